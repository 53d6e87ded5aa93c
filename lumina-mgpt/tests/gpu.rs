//! The transformer on a GPU, or on the software Vulkan driver: what is recorded, what depends on what.
#![cfg(any(feature = "wgpu", feature = "cuda"))]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a panic is the failure, a print the report")]

#[path = "support/answers.rs"]
mod answers;
#[path = "support/nothing.rs"]
mod nothing;

use answers::{answers, reference};
use lumina_mgpt::{
    Compute, Conversation, Dtype, Fit, ImageSize, KvCache, Lumina, Modality, Request, Row, SamplingOptions,
    Transformer, Weights,
};
use lumina_nn::ops::AttentionPath;
use lumina_testing::part;
use nothing::on_processor;

/// The GPU of this machine, if there is one.
fn gpu() -> Option<Compute> {
    let is_gpu = |compute: &Compute| ["wgpu", "cuda"].iter().any(|name| compute.to_string().starts_with(name));
    let gpu = Compute::available().into_iter().find(is_gpu);
    if gpu.is_none() {
        eprintln!("SKIPPED: this machine has no driver for a GPU");
    }
    gpu
}

const FOLDERS: [&str; 3] = ["model/prenorm", "model/swin", "model/qk_norm_per_head"];

fn tokens(n: usize) -> Vec<u32> {
    lumina_testing::lcg(7).take(n).map(|state| state >> 8 & 63).collect()
}

/// Tokens that give what they give one by one: attention of prompts may round differently.
fn decoded<'a>(tokens: &'a [u32], cache: &'a mut KvCache) -> Row<'a> {
    Row { attention: AttentionPath::AsDecoding, ..Row::cached(tokens, cache) }
}

/// Logits of some tokens of each row, to the bit.
fn run(model: &Transformer, rows: &mut [Row<'_>]) -> Vec<Vec<u32>> {
    let ids = 0..model.architecture().vocab_size();
    let logits = model.run(rows, ids).unwrap();
    logits.rows().map(|row| row.iter().map(|value| value.to_bits()).collect()).collect()
}

/// What exact decoding of several tokens a pass rests on: one by one, several at once, in a batch, recorded or not.
#[test]
fn rows_do_not_depend_on_their_company() {
    let Some(compute) = gpu() else { return };
    for folder in FOLDERS {
        for (weights, kv) in [
            (Weights::AsStored, Dtype::F16),
            (Weights::BF16, Dtype::F32),
            (Weights::Q8, Dtype::Q8_0),
            (Weights::Q4, Dtype::BF16),
        ] {
            let what = format!("{folder} in {weights} with keys in {kv}");
            let model = Transformer::open(part(folder), &compute.clone().weights(weights).kv_cache(kv)).unwrap();
            let (prompt, next) = (tokens(21), tokens(30)[21..].to_vec());
            let filled = |prompt: &[u32]| {
                let mut cache: KvCache = model.new_cache(64);
                model.forward(&mut [decoded(prompt, &mut cache)]).unwrap();
                cache
            };
            // One by one: the third is a replay.
            let mut cache = filled(&prompt);
            let alone: Vec<Vec<u32>> =
                next.chunks(1).flat_map(|token| run(&model, &mut [Row::cached(token, &mut cache)])).collect();
            // The prompt token by token gives the same keys and values.
            let mut cache = model.new_cache(64);
            for token in prompt.chunks(1) {
                run(&model, &mut [Row::cached(token, &mut cache)]);
            }
            for _ in 0..3 {
                // Several at once, three times: then it is recorded, too.
                let mut other = filled(&prompt);
                let window = Row { logits: 0..next.len(), ..decoded(&next, &mut other) };
                assert_eq!(run(&model, &mut [window]), alone, "{what}: a window");
            }
            let window = Row { logits: 0..next.len(), ..decoded(&next, &mut cache) };
            assert_eq!(run(&model, &mut [window]), alone, "{what}: after a prompt one by one");
            // A prompt has its bits in any company, too.
            let whole = || Row { logits: 0..prompt.len(), ..Row::whole(&prompt) };
            let expected = run(&model, &mut [whole()]);
            let mut own = filled(&prompt);
            let mut rows = [Row::whole(&next), Row::cached(&next[..1], &mut own), whole(), Row::whole(&prompt[..3])];
            assert_eq!(run(&model, &mut rows)[2..][..prompt.len()], expected, "{what}: a prompt beside others");
            for others in [1, 7] {
                let mut own = filled(&prompt);
                let mut caches: Vec<KvCache> = (0..others).map(|index| filled(&tokens(3 + index))).collect();
                for (index, token) in next.chunks(1).enumerate() {
                    let mut rows: Vec<Row<'_>> =
                        caches.iter_mut().map(|cache| Row::cached(&prompt[..1], cache)).collect();
                    rows.push(Row::cached(token, &mut own));
                    let found = run(&model, &mut rows).pop().unwrap();
                    assert_eq!(found, alone[index], "{what}: beside {others}, token {index}");
                }
            }
        }
    }
}

/// The pool of keys and values grows under sequences that are there, and takes back what they leave.
#[test]
fn sequences_outlive_the_growth_of_their_pool() {
    let Some(compute) = gpu() else { return };
    let model = Transformer::open(part(FOLDERS[0]), &compute).unwrap();
    let prompt = tokens(9);
    let mut first = model.new_cache(64);
    model.forward(&mut [decoded(&prompt[..8], &mut first)]).unwrap();
    let expected = run(&model, &mut [Row { attention: AttentionPath::AsDecoding, ..Row::whole(&prompt) }]);
    let mut others: Vec<KvCache> = Vec::new();
    for _ in 0..40 {
        let mut cache = model.new_cache(64);
        model.forward(&mut [Row::cached(&prompt[..3], &mut cache)]).unwrap();
        others.push(cache);
    }
    let bytes = first.bytes();
    assert!(bytes > 0 && others.iter().all(|cache| cache.bytes() == bytes));
    assert_eq!(run(&model, &mut [Row::cached(&prompt[8..], &mut first)]), expected);
    first.truncate(8);
    assert_eq!(run(&model, &mut [Row::cached(&prompt[8..], &mut first)]), expected, "after going back");
    others.truncate(1);
    assert_eq!(run(&model, &mut [Row::cached(&prompt[3..], &mut others[0])]), expected, "another sequence");
    first.truncate(0);
    assert_eq!((first.bytes(), first.len()), (0, 0));
}

/// Passes, recordings and the growth of the pool take turns on the device.
#[test]
fn threads_share_a_model() {
    let Some(compute) = gpu() else { return };
    let model = Transformer::open(part(FOLDERS[0]), &compute).unwrap();
    let tokens = tokens(8);
    let decode = || {
        let mut cache = model.new_cache(64);
        tokens.chunks(1).flat_map(|token| run(&model, &mut [Row::cached(token, &mut cache)])).collect::<Vec<_>>()
    };
    let expected = decode();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(|| (0..4).all(|_| decode() == expected))).collect();
        // Meanwhile the pool grows, and another model is opened on the device.
        let caches: Vec<KvCache> = (0..40)
            .map(|_| {
                let mut cache = model.new_cache(64);
                cache.reserve(64).unwrap();
                cache
            })
            .collect();
        let other = Transformer::open(part(FOLDERS[0]), &compute).unwrap();
        let whole = Row { attention: AttentionPath::AsDecoding, ..Row::whole(&tokens) };
        assert_eq!(run(&other, &mut [whole]).pop(), expected.last().cloned());
        assert!(threads.into_iter().all(|thread| thread.join().unwrap()));
        drop(caches);
    });
}

/// With bytes on both sides sums of blocks are whole numbers, so the results are all but those of the CPU.
#[test]
fn quantised_weights_give_what_the_cpu_gives() {
    let Some(compute) = gpu() else { return };
    let tokens = tokens(30);
    for weights in [Weights::Q8, Weights::Q4] {
        let logits = |compute: Compute| {
            let model = Transformer::open(part(FOLDERS[0]), &compute.weights(weights).kv_cache(Dtype::F32)).unwrap();
            let mut rows = [Row { logits: 0..tokens.len(), ..Row::whole(&tokens) }];
            let logits = model.run(&mut rows, 0..model.architecture().vocab_size()).unwrap();
            logits.rows().flatten().copied().collect::<Vec<f32>>()
        };
        let (found, expected) = (logits(compute.clone()), logits(Compute::cpu()));
        let largest = expected.iter().fold(0.0f32, |most, value| most.max(value.abs()));
        let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        // Where a number lies between two bytes, a rounding error of the number decides: a 127th of a block's largest.
        assert!(worst <= 4e-3 * largest, "{weights}: {worst} of {largest}");
    }
}

/// What training on a GPU rests on: Burn's own kernels, which start without timing any.
#[cfg(feature = "burn")]
#[test]
fn the_tensors_of_burn_give_what_the_cpu_gives() {
    let Some(compute) = gpu() else { return };
    let tokens = tokens(20);
    let logits = |compute: Compute| {
        let model = Transformer::open(part(FOLDERS[1]), &compute).unwrap();
        let mut cache = model.new_cache(24);
        let ids = 0..model.architecture().vocab_size();
        let prompt = model.run(&mut [Row { logits: 0..16, ..Row::cached(&tokens[..16], &mut cache) }], ids.clone());
        let more = model.run(&mut [Row::cached(&tokens[16..], &mut cache)], ids);
        [prompt.unwrap(), more.unwrap()]
            .iter()
            .flat_map(|logits| logits.rows().flatten().copied().collect::<Vec<f32>>())
            .collect()
    };
    let [found, expected]: [Vec<f32>; 2] = [compute.in_tensors(), Compute::cpu()].map(logits);
    let largest = expected.iter().fold(0.0f32, |most, value| most.max(value.abs()));
    let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst <= 2e-5 * largest, "{worst} of {largest}");
}

#[test]
fn a_cache_of_another_model_is_an_error() {
    let Some(compute) = gpu() else { return };
    let open = |compute: &Compute| Transformer::open(part(FOLDERS[0]), compute).unwrap();
    let (model, other, cpu) = (open(&compute), open(&compute), open(&Compute::cpu()));
    for mut cache in [other.new_cache(8), cpu.new_cache(8)] {
        let error = model.forward(&mut [Row::cached(&[1, 2], &mut cache)]).unwrap_err();
        assert!(error.to_string().contains("another model or device"), "{error}");
    }
}

#[test]
fn warming_up_makes_no_difference() {
    let Some(compute) = gpu() else { return };
    let open = || {
        Lumina::from_pretrained(part(FOLDERS[0])).image_tokenizer(part("vq")).compute(compute.clone()).load().unwrap()
    };
    let (cold, warm) = (open(), open());
    let mut steps = Vec::new();
    warm.warm_up(|step| steps.push((step.done, step.of))).unwrap();
    assert_eq!(steps, [(0, 4), (1, 4), (2, 4), (3, 4)]);
    let tokens = tokens(12);
    let run = |model: &Lumina| run(model.transformer(), &mut [Row::whole(&tokens)]);
    assert_eq!(run(&cold), run(&warm));
}

#[test]
fn what_a_model_takes_is_known_before() {
    let Some(compute) = gpu() else { return };
    let fit: Fit = Lumina::fit(part(FOLDERS[0]), &compute).unwrap();
    let q4 = Lumina::fit(part(FOLDERS[0]), &compute.weights(Weights::Q4)).unwrap();
    assert!(fit.weights > q4.weights && q4.weights > 0 && fit.kv_cache > 0);
    assert!(fit.smaller.iter().any(|(format, bytes)| *format == Weights::Q4 && *bytes == q4.weights));
}

/// Draws in images are the device's, and those of the processor to the token: with and without guidance, alone and
/// together.
#[test]
fn the_device_draws_what_the_processor_draws() {
    let Some(compute) = gpu() else { return };
    let model = reference(compute);
    let request = |seed, guidance, top_k, temperature| {
        let mut request = Request::new(Conversation::new().human("a tree"));
        let sampling = SamplingOptions::default().seed(seed).modality(Modality::Image);
        let size = ImageSize::new(64, 96).unwrap();
        request.options.sampling =
            sampling.image_size(size).guidance_scale(guidance).image_top_k(top_k).temperature(temperature);
        request
    };
    let requests = [request(1, 4.0, 2000, 1.0), request(2, 1.0, 5, 1.0), request(3, 2.5, 40, 0.7)];
    let by_processor = answers(&model, &requests, Some(&on_processor()));
    for (request, (expected, stats)) in requests.iter().zip(&by_processor) {
        assert_eq!(stats.drawn_on_device, 0);
        let (alone, stats) = answers(&model, std::slice::from_ref(request), None).remove(0);
        assert_eq!(&alone, expected);
        assert_eq!(stats.drawn_on_device, 4 * 6, "a token for each code");
    }
    let together = answers(&model, &requests, None);
    assert!(together.iter().zip(&by_processor).all(|(found, expected)| found.0 == expected.0));
    assert!(together.iter().any(|(_, stats)| stats.drawn_on_device > 0));
}
