//! Models that are split over several devices: over host memory alone on any machine, and over the GPU or the software
//! Vulkan driver, opened once or twice, where there is one.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a panic is the failure, a print the report")]

#[path = "support/answers.rs"]
mod answers;
#[path = "support/nothing.rs"]
mod nothing;
#[path = "support/split.rs"]
mod split;

use answers::{answers, reference, reference_folder};
use bytes::Bytes;
use lumina_checkpoint::{Adapter, Checkpoint, save_safetensors};
use lumina_mgpt::{
    Compute, Conversation, Dtype, ImageSize, KvCache, Lumina, Modality, ModelConfig, Request, Row, SamplingOptions,
    Transformer, Weights,
};
use lumina_nn::Loader;
use lumina_nn::ops::AttentionPath;
use lumina_testing::part;
use nothing::on_processor;

use split::split;

/// A GPU of this machine, opened anew at each call: then it is a device of its own, with its own memory and order.
fn gpu() -> Option<Compute> {
    let is_gpu = |compute: &Compute| ["wgpu", "cuda"].iter().any(|name| compute.to_string().starts_with(name));
    let gpu = Compute::available().into_iter().find(is_gpu);
    if gpu.is_none() {
        eprintln!("SKIPPED: this machine has no driver for a GPU");
    }
    gpu
}

/// Devices of one kind, whose results are the same to the bit: one, and several of it.
fn of_one_kind() -> Vec<(Compute, Vec<Compute>)> {
    let host = (Compute::cpu(), vec![Compute::cpu(), Compute::cpu(), Compute::cpu()]);
    let gpus = gpu().zip(gpu()).zip(gpu()).map(|((a, b), c)| (a.clone(), vec![a, b, c]));
    std::iter::once(host).chain(gpus).collect()
}

/// Three layers; two.
const FOLDERS: [&str; 2] = ["model/swin", "model/prenorm"];

fn tokens(n: usize) -> Vec<u32> {
    lumina_testing::lcg(7).take(n).map(|state| state >> 8 & 63).collect()
}

/// Logits of some tokens of each row, to the bit.
fn run(model: &Transformer, rows: &mut [Row<'_>]) -> Vec<Vec<u32>> {
    let ids = 0..model.architecture().vocab_size();
    let logits = model.run(rows, ids).unwrap();
    logits.rows().map(|row| row.iter().map(|value| value.to_bits()).collect()).collect()
}

/// A prompt, tokens one by one, several at once, in a batch, and without a cache: all their logits. Each pass is made
/// often enough to be recorded and replayed.
fn passes(model: &Transformer) -> Vec<Vec<u32>> {
    let (prompt, next) = (tokens(21), tokens(30)[21..].to_vec());
    let mut found = Vec::new();
    let mut caches: Vec<KvCache> = (0..3).map(|_| model.new_cache(64)).collect();
    for (index, cache) in caches.iter_mut().enumerate() {
        model.forward(&mut [Row::cached(&prompt[index..], cache)]).unwrap();
    }
    for token in next.chunks(1) {
        let mut rows: Vec<Row<'_>> = caches.iter_mut().map(|cache| Row::cached(token, cache)).collect();
        found.extend(run(model, &mut rows));
    }
    for _ in 0..3 {
        caches[0].truncate(prompt.len());
        let window =
            Row { logits: 0..next.len(), attention: AttentionPath::AsDecoding, ..Row::cached(&next, &mut caches[0]) };
        found.extend(run(model, &mut [window]));
        found.extend(run(model, &mut [Row::whole(&prompt), Row::whole(&next)]));
    }
    found
}

#[test]
fn a_split_network_gives_what_one_device_gives() {
    for (one, several) in of_one_kind() {
        for folder in FOLDERS {
            for (weights, kv) in
                [(Weights::AsStored, Dtype::F32), (Weights::Q8, Dtype::Q8_0), (Weights::Q4, Dtype::BF16)]
            {
                let of = |compute: &Compute| compute.clone().weights(weights).kv_cache(kv);
                let several: Vec<Compute> = several.iter().map(of).collect();
                let whole = Transformer::open(part(folder), &of(&one)).unwrap();
                let expected = passes(&whole);
                let layers = whole.architecture().n_layers();
                for n in 2..=layers {
                    let compute = split(&part(folder), &several[..n]);
                    let what = format!("{folder} on {compute} with keys in {kv}");
                    assert_eq!(Lumina::fit(part(folder), &compute).unwrap().stages.len(), n, "{what}");
                    let model = Transformer::open(part(folder), &compute).unwrap();
                    assert!(passes(&model) == expected, "{what}");
                    // Keys and values take what they take on one device.
                    let [mut a, mut b] = [&whole, &model].map(|model| model.new_cache(100));
                    assert_eq!((a.bytes_of(70), a.bytes()), (b.bytes_of(70), b.bytes()), "{what}");
                    [&mut a, &mut b].into_iter().for_each(|cache| cache.reserve(70).unwrap());
                    assert_eq!(a.bytes(), b.bytes(), "{what}");
                    // A network that is split is no replica elsewhere.
                    #[cfg(feature = "burn")]
                    assert!(passes(&model.replica(&Compute::cpu())) == expected, "{what}");
                }
            }
        }
    }
}

/// The hidden states before each layer, and the last ones.
#[test]
fn all_layers_are_observed() {
    let observed = |compute: &Compute| {
        let model = Transformer::open(part(FOLDERS[0]), compute).unwrap();
        let mut all: Vec<Vec<f32>> = Vec::new();
        let mut cache = model.new_cache(8);
        model.forward_with(&mut [Row::cached(&tokens(8), &mut cache)], &mut |x| all.push(x.to_vec().unwrap())).unwrap();
        all
    };
    for (one, several) in of_one_kind() {
        let found = observed(&split(&part(FOLDERS[0]), &several));
        assert!(found.len() == 4 && found == observed(&one), "{one}");
    }
}

/// Rows on host memory and a GPU: alone, in a batch, and as one of several tokens of a pass.
#[test]
fn rows_do_not_depend_on_their_company() {
    let Some(gpu) = gpu() else { return };
    for folder in FOLDERS {
        let model = Transformer::open(part(folder), &split(&part(folder), &[gpu.clone(), Compute::cpu()])).unwrap();
        let (prompt, next) = (tokens(21), tokens(27)[21..].to_vec());
        let filled = |prompt: &[u32]| {
            let mut cache = model.new_cache(64);
            model.forward(&mut [Row::cached(prompt, &mut cache)]).unwrap();
            cache
        };
        let mut cache = filled(&prompt);
        let alone: Vec<_> =
            next.chunks(1).flat_map(|token| run(&model, &mut [Row::cached(token, &mut cache)])).collect();
        let (mut own, mut other) = (filled(&prompt), filled(&prompt[..3]));
        for (index, token) in next.chunks(1).enumerate() {
            let mut rows = [Row::cached(&prompt[..1], &mut other), Row::cached(token, &mut own)];
            assert!(run(&model, &mut rows)[1] == alone[index], "{folder}: token {index}");
        }
        for _ in 0..3 {
            let mut cache = filled(&prompt);
            let row = Row::cached(&next, &mut cache);
            let window = Row { logits: 0..next.len(), attention: AttentionPath::AsDecoding, ..row };
            assert!(run(&model, &mut [window]) == alone, "{folder}: a window");
        }
    }
}

/// The pools of all stages grow under sequences that are there, while other threads make passes.
#[test]
fn sequences_and_threads_share_a_split_network() {
    for (one, several) in of_one_kind() {
        let compute = split(&part(FOLDERS[0]), &several);
        let model = Transformer::open(part(FOLDERS[0]), &compute).unwrap();
        let tokens = tokens(8);
        let decode = |model: &Transformer| {
            let mut cache = model.new_cache(64);
            tokens.chunks(1).flat_map(|token| run(model, &mut [Row::cached(token, &mut cache)])).collect::<Vec<_>>()
        };
        let expected = decode(&Transformer::open(part(FOLDERS[0]), &one).unwrap());
        let mut first = model.new_cache(64);
        run(&model, &mut [Row::cached(&tokens[..7], &mut first)]);
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..2).map(|_| scope.spawn(|| (0..3).all(|_| decode(&model) == expected))).collect();
            let caches: Vec<KvCache> = (0..40)
                .map(|_| {
                    let mut cache = model.new_cache(64);
                    cache.reserve(64).unwrap();
                    cache
                })
                .collect();
            assert!(threads.into_iter().all(|thread| thread.join().unwrap()), "{compute}");
            drop(caches);
        });
        assert!(run(&model, &mut [Row::cached(&tokens[7..], &mut first)])[0] == expected[7], "{compute}");
        first.truncate(0);
        assert_eq!((first.bytes(), first.len()), (0, 0));
    }
}

/// Requests with and without guidance, alone and together: where the head is on a GPU, that draws, whatever comes
/// before it.
#[test]
fn images_are_drawn_where_the_head_is() {
    let request = |seed, guidance, top_k| {
        let mut request = Request::new(Conversation::new().human("a tree"));
        let sampling = SamplingOptions::default().seed(seed).modality(Modality::Image);
        let size = ImageSize::new(64, 96).unwrap();
        request.options.sampling = sampling.image_size(size).guidance_scale(guidance).image_top_k(top_k);
        request
    };
    let requests = [request(1, 4.0, 2000), request(2, 1.0, 5)];
    let mut splits = vec![(vec![Compute::cpu(), Compute::cpu()], false)];
    if let (Some(a), Some(b)) = (gpu(), gpu()) {
        splits.extend([(vec![a.clone(), b], true), (vec![a, Compute::cpu()], true)]);
    }
    for (devices, draws) in splits {
        let compute = split(&reference_folder(), &devices);
        let model = reference(compute.clone());
        let by_processor = answers(&model, &requests, Some(&on_processor()));
        for (request, (expected, _)) in requests.iter().zip(&by_processor) {
            let (alone, stats) = answers(&model, std::slice::from_ref(request), None).remove(0);
            assert_eq!(&alone, expected, "{compute}");
            assert_eq!(stats.drawn_on_device, if draws { 4 * 6 } else { 0 }, "{compute}: a token for each code");
        }
        let together = answers(&model, &requests, None);
        assert!(together.iter().zip(&by_processor).all(|(found, expected)| found.0 == expected.0), "{compute}");
    }
}

/// Matrices of an adapter are where their layer is, and are counted there.
#[test]
fn adapters_are_where_their_layers_are() {
    let checkpoint = Checkpoint::open(part(FOLDERS[0])).unwrap();
    let architecture = ModelConfig::open(&part(FOLDERS[0]).join("config.json")).unwrap();
    let architecture = architecture.resolve("config.json".as_ref()).unwrap();
    let mut tensors: Vec<(String, Vec<usize>)> = Vec::new();
    for (layer, [outputs, inputs]) in Transformer::linear_layers(&architecture, &Compute::cpu()) {
        let [a, b] = Adapter::tensor_names(&layer);
        tensors.extend([(a, vec![4, inputs]), (b, vec![outputs, 4])]);
    }
    let folder = tempfile::tempdir().unwrap();
    let mut seed = 0;
    let tensors = tensors.into_iter().map(|(name, shape)| {
        seed += 1;
        let n = shape.iter().product();
        let values = lumina_testing::lcg(seed).take(n).map(|state| (state >> 8) as f32 / (1 << 24) as f32 - 0.5);
        let bytes: Bytes = values.flat_map(f32::to_le_bytes).collect();
        (name, Dtype::F32, shape, move || Ok(bytes))
    });
    save_safetensors(folder.path().join(Adapter::WEIGHTS), tensors).unwrap();
    let config = r#"{"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "lm_head"]}"#;
    std::fs::write(folder.path().join(Adapter::CONFIG), config).unwrap();
    let adapter = Adapter::open(folder.path()).unwrap();
    let open = |compute: &Compute, adapter: Option<&Adapter>| {
        let loader = Loader::new(&checkpoint, compute);
        let loader = adapter.map_or(loader.clone(), |adapter| loader.with_adapter(adapter));
        Transformer::from_loader(&loader, architecture.clone())
    };
    for (one, several) in of_one_kind() {
        let compute = split(&part(FOLDERS[0]), &several);
        let expected = passes(&open(&one, Some(&adapter)).unwrap());
        assert!(expected != passes(&open(&one, None).unwrap()), "the adapter changes something");
        assert!(passes(&open(&compute, Some(&adapter)).unwrap()) == expected, "{compute}");
        // Two devices that together have just room for the model have none for the adapter.
        let fit = Lumina::fit(part(FOLDERS[0]), &one).unwrap();
        let tight = one.clone().max_memory(fit.needed_to_open()).then(several[1].clone().max_memory(0));
        assert!(open(&tight, None).is_ok());
        let error = open(&tight, Some(&adapter)).unwrap_err().to_string();
        assert!(error.contains("on 2 devices") && error.contains("Compute::then"), "{error}");
    }
}

#[test]
fn what_goes_where_is_known_before() {
    for (one, several) in of_one_kind() {
        let fit = Lumina::fit(part(FOLDERS[0]), &one).unwrap();
        assert_eq!((fit.stages.len(), fit.stages[0].layers.clone()), (1, 0..3));
        assert_eq!((fit.weights, fit.kv_cache), (fit.stages[0].weights, fit.stages[0].kv_cache));

        let compute = split(&part(FOLDERS[0]), &several);
        let shared = Lumina::fit(part(FOLDERS[0]), &compute).unwrap();
        assert_eq!((shared.weights, shared.kv_cache), (fit.weights, fit.kv_cache));
        assert_eq!(shared.needed_to_open(), fit.weights + 3 * fit.overhead);
        assert_eq!(shared.needed(), shared.needed_to_open() + shared.kv_cache);
        let layers: Vec<_> = shared.stages.iter().map(|stage| stage.layers.clone()).collect();
        assert_eq!(layers, [0..1, 1..2, 2..3]);
        for (stage, limit) in shared.stages.iter().zip([false, true, true]) {
            assert_eq!(stage.available.is_some(), limit, "the last device, which is without a limit, is first");
            assert!(stage.available.is_none_or(|bytes| stage.weights + stage.kv_cache + fit.overhead <= bytes));
            assert!(one.to_string().starts_with(&stage.device), "{stage:?}");
        }

        // A quarter of the weights on each of two devices.
        let least = fit.overhead + fit.weights / 4;
        let small = one.clone().max_memory(least).then(several[1].clone().max_memory(least));
        let refused = Lumina::fit(part(FOLDERS[0]), &small).unwrap();
        assert!(!refused.fits() && refused.stages.is_empty() && refused.available() == Some(2 * least));
        let model = || Lumina::from_pretrained(part(FOLDERS[0])).tokenizer(part("tokenizer")).compute(small.clone());
        let error = model().load().unwrap_err().to_string();
        assert!(
            error.contains("on 2 devices, which have")
                && error.contains("for whole layers")
                && error.contains("`Compute::then`"),
            "{error}"
        );
        assert!(Transformer::open(part(FOLDERS[0]), &small).unwrap_err().to_string().contains("on 2 devices"));
        // What does not fit there goes on.
        let model = Transformer::open(part(FOLDERS[0]), &small.then(Compute::cpu())).unwrap();
        assert_eq!(run(&model, &mut [Row::whole(&tokens(5))]).len(), 1);
    }
}

#[test]
fn what_is_for_one_place_is_an_error() {
    for (one, several) in of_one_kind() {
        let compute = split(&part(FOLDERS[0]), &several[..2]);
        let open = |compute: &Compute| Transformer::open(part(FOLDERS[0]), compute).unwrap();
        let (model, again, whole) = (open(&compute), open(&compute), open(&one));
        let others =
            ["model/qk_norm_per_head", "model/prenorm"].map(|name| Transformer::open(part(name), &one).unwrap());
        let cache_of = |index: usize| others[index].new_cache(8);
        let mut foreign = vec![(&model, cache_of(0)), (&model, cache_of(1)), (&others[0], cache_of(1))];
        // On the processor the keys and values of the same layers are those of any network of this shape.
        if !one.is_host() {
            foreign.extend([(&model, again.new_cache(8)), (&model, whole.new_cache(8)), (&whole, model.new_cache(8))]);
        }
        for (model, mut cache) in foreign {
            let error = model.forward(&mut [Row::cached(&[1, 2], &mut cache)]).unwrap_err().to_string();
            assert!(error.contains("another model or device"), "{error}");
            assert_eq!((cache.len(), cache.bytes()), (0, 0));
        }
        #[cfg(feature = "burn")]
        {
            let error = model.begin(&[&[1, 2]], lumina_mgpt::Dropout::NONE).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains("cannot share a model"), "{error}");
        }
        // Nothing of a pass that fails is kept.
        let mut cache = model.new_cache(8);
        let vocab_size = model.architecture().vocab_size() as u32;
        for tokens in [&[1, vocab_size][..], &[1; 9]] {
            assert!(model.forward(&mut [Row::cached(tokens, &mut cache)]).is_err());
            assert_eq!((cache.len(), cache.bytes()), (0, 0));
        }
    }
}
