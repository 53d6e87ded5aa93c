//! Once begun, decoding allocates nothing: layers, logits and the draw. A test binary of its own, as it counts the
//! allocations of a whole process.
#![allow(clippy::unwrap_used, reason = "helpers of tests: a panic is the failure")]

use std::sync::Mutex;

use half::bf16;
use lumina_checkpoint::{Checkpoint, save_safetensors};
use lumina_mgpt::{
    Architecture, Compute, Conversation, Dtype, Event, ImageSize, KvCache, Lumina, Modality, ModelConfig, Request, Row,
    SamplingOptions, Transformer, Weights,
};
use lumina_testing::{Counting, part};
use smallvec::SmallVec;

#[global_allocator]
static ALLOCATOR: Counting = Counting::new();

const STEPS: usize = 20;
const PROMPT: usize = 96;

/// Wide enough that threads share the products and attention.
fn architecture() -> Architecture {
    let config = ModelConfig {
        hidden_size: 512,
        intermediate_size: 1024,
        num_hidden_layers: 3,
        num_attention_heads: 4,
        ..ModelConfig::default()
    };
    config.resolve("config.json".as_ref()).unwrap()
}

fn checkpoint(folder: &std::path::Path) -> Checkpoint {
    let shapes = Transformer::tensor_shapes(&architecture(), &Compute::cpu());
    let tensors = shapes.into_iter().map(|(name, shape)| {
        let n = shape.iter().product();
        let values = lumina_testing::lcg(1).take(n).map(|state| (state >> 8) as f32 / (1 << 24) as f32 - 0.5);
        let bytes: Vec<u8> = values.flat_map(|value| bf16::from_f32(0.1 * value).to_le_bytes()).collect();
        (name, Dtype::BF16, shape, move || Ok(bytes.into()))
    });
    let file = folder.join("model.safetensors");
    save_safetensors(&file, tensors).unwrap();
    Checkpoint::open(&file).unwrap()
}

/// Counts are those of the whole process, so one test counts at a time.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn a_step_of_decoding_allocates_nothing() {
    let _alone = ALONE.lock().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = checkpoint(folder.path());
    let prompt: Vec<u32> = (9000..9000 + PROMPT as u32).collect();
    // From within a pool, as an app runs it; entering one from outside is rayon's to pay.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    for (weights, kv_cache) in [Weights::AsStored, Weights::Q8, Weights::Q4].into_iter().zip(Compute::KV_CACHE_DTYPES) {
        let compute = Compute::cpu().weights(weights).kv_cache(kv_cache);
        let model = Transformer::from_checkpoint(&checkpoint, architecture(), &compute, &|_| {}).unwrap();
        for n in [1, 2, 8] {
            for tokens in [0..model.architecture().vocab_size(), 4..8196] {
                let allocations = pool.install(|| {
                    let mut caches: Vec<KvCache> = (0..n).map(|_| model.new_cache(PROMPT + 3 * STEPS)).collect();
                    for cache in &mut caches {
                        model.forward(&mut [Row::cached(&prompt, cache)]).unwrap();
                    }
                    let positions: Vec<usize> = (0..n).collect();
                    let mut step = || {
                        let rows = caches.iter_mut().map(|cache| Row::cached(&prompt[..1], cache));
                        let mut rows: SmallVec<[Row<'_>; 8]> = rows.collect();
                        let hidden = model.forward(&mut rows).unwrap();
                        let logits = model.logits_among(&hidden, &positions, tokens.clone()).unwrap();
                        assert!(logits.rows().all(|row| row[0].is_finite()));
                    };
                    // Both threads must have had a task of each kind.
                    (0..2 * STEPS).for_each(|_| step());
                    let before = ALLOCATOR.count();
                    (0..STEPS).for_each(|_| step());
                    ALLOCATOR.count() - before
                });
                // Rayon's queues may grow now and then; a step that allocated would show twenty times.
                assert!(allocations < STEPS / 2, "{n} rows, {weights}: {allocations} allocations in {STEPS} steps");
            }
        }
    }
}

/// Grammar, guidance, draw and all: what a row of codes costs is its event.
#[test]
fn codes_of_a_image_allocate_nothing_but_the_events_of_their_rows() {
    let _alone = ALONE.lock().unwrap();
    let cases = lumina_testing::cases("generate/cases.json");
    let folder = part("model").join(cases[0]["model"].as_str().unwrap());
    let tokenizer = if folder.join("tokenizer.json").exists() { folder.clone() } else { part("tokenizer") };
    let model = Lumina::from_pretrained(folder).tokenizer(tokenizer).image_tokenizer(part("vq"));
    let model = model.compute(Compute::cpu()).load().unwrap();
    let mut request = Request::new(Conversation::new().human("7"));
    let size = ImageSize::new(512, 128).unwrap();
    request.options.sampling =
        SamplingOptions::default().modality(Modality::Image).image_size(size).guidance_scale(3.0);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    pool.install(|| {
        let mut rows = 0;
        let mut before = 0;
        for event in model.generate(request).stream().unwrap() {
            let now = ALLOCATOR.count();
            if let Event::ImageRow { row, codes } = event.unwrap() {
                assert_eq!(codes.len(), 32);
                // The first ones grow what is kept, and with the last comes the image.
                if (4..7).contains(&row) {
                    let allocations = now - before;
                    assert!(allocations < codes.len() / 2, "row {row}: {allocations} for {} codes", codes.len());
                    rows += 1;
                }
            }
            before = ALLOCATOR.count();
        }
        assert_eq!(rows, 3);
    });
}
