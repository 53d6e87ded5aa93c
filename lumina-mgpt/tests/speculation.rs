//! Several tokens a pass give the tokens that one a pass gives.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "helpers of tests: a panic is the failure")]
#![cfg(feature = "flex")]

use std::sync::Arc;

use lumina_mgpt::{
    Compute, Conversation, EngineOptions, Event, ImageSize, Lumina, Modality, Request, SamplingOptions, Speculation,
    Stats, SystemClock, Weights,
};
use lumina_testing::part;

/// The model of the reference's own requests. Its weights are random, so hardly a draft is right.
fn reference(compute: Compute) -> Lumina {
    let cases = lumina_testing::cases("generate/cases.json");
    let folder = part("model").join(cases[0]["model"].as_str().unwrap());
    let tokenizer = if folder.join("tokenizer.json").exists() { folder.clone() } else { part("tokenizer") };
    let builder = Lumina::from_pretrained(folder).tokenizer(tokenizer).image_tokenizer(part("vq"));
    builder.compute(compute).load().unwrap()
}

/// The model of the repository, which draws scenes.
fn scenes(compute: Compute) -> Lumina {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../model");
    Lumina::from_pretrained(folder).image_tokenizer(folder).compute(compute).load().unwrap()
}

fn request(prompt: &str, size: [u32; 2], options: SamplingOptions, speculation: Speculation) -> Request {
    let mut request = Request::new(Conversation::new().human(prompt));
    let size = ImageSize::new(size[0], size[1]).unwrap();
    request.options.sampling = options.modality(Modality::Image).image_size(size).speculation(speculation);
    request
}

/// The tokens and statistics of requests that share passes.
fn answers(model: &Lumina, requests: &[Request]) -> Vec<(Vec<u32>, Stats)> {
    let mut engine = model.engine(EngineOptions::default(), Arc::new(SystemClock::new()));
    let ids: Vec<_> = requests.iter().map(|request| engine.submit(request).unwrap()).collect();
    let mut done = vec![None; ids.len()];
    while !engine.is_idle() {
        for (id, event) in engine.step() {
            if let Event::Done { tokens, stats } = event.unwrap() {
                done[ids.iter().position(|own| *own == id).unwrap()] = Some((tokens, stats));
            }
        }
        while let Some(work) = engine.next_work() {
            engine.complete(work.run(&SystemClock::new()));
        }
    }
    done.into_iter().map(Option::unwrap).collect()
}

const SETTINGS: [Speculation; 7] = [
    Speculation::Window(1),
    Speculation::Window(3),
    Speculation::Window(8),
    Speculation::Window(31),
    Speculation::Window(128),
    Speculation::Tree { window: 24, depth: 2, width: 3 },
    Speculation::Auto,
];

/// Options of many kinds.
fn options() -> Vec<SamplingOptions> {
    let plain = SamplingOptions::default;
    let all = |top_k, guidance: f32, temperature, seed| {
        plain().image_top_k(top_k).guidance_scale(guidance).temperature(temperature).seed(seed)
    };
    let mut greedy = plain().greedy();
    greedy.repetition_penalty = Some(1.1);
    let mut warped = all(50, 2.0, 0.9, 9);
    (warped.top_p, warped.min_p) = (Some(0.95), Some(0.01));
    vec![
        plain().seed(5),
        all(1, 1.0, 1.0, 1),
        all(10, 4.0, 1.0, 2),
        all(usize::MAX, 3.0, 1.3, 3),
        all(2000, 1.0, 0.5, 4),
        greedy,
        warped,
    ]
}

fn mapped() -> Vec<Compute> {
    let narrow = Compute::cpu().weights(Weights::Q8).kv_cache(lumina_mgpt::Dtype::BF16);
    vec![Compute::cpu(), narrow, Compute::cpu().weights(Weights::Q4).kv_cache(lumina_mgpt::Dtype::Q8_0)]
}

#[test]
fn images_are_the_same_with_any_window() {
    let (mut compared, mut passes, mut plain_passes) = (0, 0, 0);
    for (scene, model) in
        mapped().into_iter().map(|compute| (true, scenes(compute))).chain([(false, reference(Compute::cpu()))])
    {
        let (prompt, size) =
            if scene { ("a large red circle on a white background", [96, 96]) } else { ("a tree", [64, 96]) };
        for options in options() {
            let plain = request(prompt, size, options.clone(), Speculation::Off);
            let expected = answers(&model, &[plain]).remove(0);
            for setting in SETTINGS {
                let (tokens, stats) = answers(&model, &[request(prompt, size, options.clone(), setting)]).remove(0);
                assert_eq!(tokens, expected.0, "{setting:?} {options:?}");
                compared += tokens.len();
                if scene && setting == Speculation::Window(8) {
                    (passes, plain_passes) = (passes + stats.passes, plain_passes + expected.1.passes);
                    assert_eq!(
                        stats.generated_tokens - stats.forced_tokens,
                        stats.accepted_drafts + stats.passes,
                        "a pass gives a token and the drafts that were right"
                    );
                }
            }
        }
    }
    eprintln!("{compared} tokens compared; {passes} passes instead of {plain_passes}");
    assert!(passes < plain_passes);
}
