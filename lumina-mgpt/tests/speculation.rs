//! Several tokens a pass give the tokens that one a pass gives.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "helpers of tests: a panic is the failure")]

#[path = "support/answers.rs"]
mod answers;

use std::sync::Arc;

use answers::{answers, reference};
use lumina_mgpt::{
    Compute, Content, Conversation, Dtype, EngineOptions, Event, ImageSize, Lumina, Modality, Part, Request,
    SamplingOptions, Speculation, StopReason, SystemClock, Weights,
};
use lumina_sampling::{Candidates, Step, StreamState};
use proptest::prelude::*;

/// The model of the repository, which draws scenes.
fn scenes(compute: Compute) -> Lumina {
    let folder = lumina_testing::model_of_small_images();
    Lumina::from_pretrained(folder).image_tokenizer(folder).target_size_px(96).compute(compute).load().unwrap()
}

fn request(prompt: &str, size: [u32; 2], options: SamplingOptions, speculation: Speculation) -> Request {
    let mut request = Request::new(Conversation::new().human(prompt));
    let size = ImageSize::new(size[0], size[1]).unwrap();
    request.options.sampling = options.modality(Modality::Image).image_size(size).speculation(speculation);
    request
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
    let narrow = Compute::cpu().weights(Weights::Q8).kv_cache(Dtype::BF16);
    vec![Compute::cpu(), narrow, Compute::cpu().weights(Weights::Q4).kv_cache(Dtype::Q8_0)]
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
            let expected = answers(&model, &[plain], None).remove(0);
            for setting in SETTINGS {
                let (tokens, stats) =
                    answers(&model, &[request(prompt, size, options.clone(), setting)], None).remove(0);
                assert_eq!(tokens, expected.0, "{setting:?} {options:?}");
                compared += tokens.len();
                if scene && setting == Speculation::Window(8) {
                    (passes, plain_passes) = (passes + stats.passes, plain_passes + expected.1.passes);
                    // A pass gives a token and the drafts that were right; the last one only the end of the image.
                    let drawn = stats.generated_tokens - stats.forced_tokens;
                    let given = stats.accepted_drafts + stats.passes;
                    assert!(drawn == given || drawn + 1 == given, "{stats:?}");
                }
            }
        }
    }
    eprintln!("{compared} tokens compared; {passes} passes instead of {plain_passes}");
    assert!(passes < plain_passes);
}

/// On a GPU, where it draws, with the same kernels for any number of tokens. Trees are windows there.
#[cfg(feature = "wgpu")]
#[test]
fn images_are_the_same_with_any_window_on_a_gpu() {
    let compute = Compute::wgpu();
    if let Err(error) = compute.check() {
        eprintln!("skipped: {error}");
        return;
    }
    let model = scenes(compute);
    let prompt = "a large red circle on a white background";
    let mut passes = [0, 0];
    let [plain, .., unlimited, _, _, warped] = <[SamplingOptions; 7]>::try_from(options()).unwrap();
    let settings = [Speculation::Window(3), Speculation::Tree { window: 12, depth: 1, width: 2 }, Speculation::Auto];
    // Drawn by the device, and by the processor.
    for options in [plain, unlimited, warped] {
        let plain = request(prompt, [96, 96], options.clone(), Speculation::Off);
        let (expected, stats) = answers(&model, &[plain], None).remove(0);
        passes[0] += stats.passes;
        let requests: Vec<Request> =
            settings.iter().map(|&setting| request(prompt, [96, 96], options.clone(), setting)).collect();
        for (alone, together) in requests.iter().zip(answers(&model, &requests, None)) {
            let (alone, stats) = answers(&model, std::slice::from_ref(alone), None).remove(0);
            assert_eq!(alone, expected, "{options:?}");
            assert_eq!(together.0, expected, "{options:?}");
            passes[1] += stats.passes;
        }
    }
    assert!(passes[1] < passes[0] * settings.len() * 2 / 3, "{passes:?}");
}

/// Conversations of every kind that the model of the repository knows: to an image, an edit, a caption, a question,
/// several turns, and what it does not know.
fn conversation(model: &Lumina, kind: usize) -> Conversation {
    let drawn = || {
        let scene = "a small blue square on a yellow background";
        model.text_to_image(scene, (96, 96)).seed(3).run().unwrap()
    };
    let tokens = model.encode_image(&drawn().into()).unwrap();
    let with_image = |text: &str| Content::from([Part::from(tokens.clone()), Part::from(text)]);
    match kind {
        0 => Conversation::new().human("a large red circle on a white background"),
        1 => Conversation::new().human(with_image("make the square red")),
        2 => Conversation::new().human(with_image("Describe this image.")),
        3 => Conversation::new().human(with_image("What colour is the square?")),
        4 => {
            Conversation::new().human("a green triangle").assistant(with_image("")).human("describe it again and again")
        }
        _ => Conversation::new().human("the the the the a a a a of of of of the the the the"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    /// Any mix of requests in one batch, each with its own window, which join and leave at any step, and run out of
    /// memory: each gets the tokens that it gets alone and one a pass, or, if it is cancelled, the first of them.
    #[test]
    fn any_mix_gives_the_same_tokens(
        asked in prop::collection::vec(
            (any::<u64>(), 0..6usize, 0..SETTINGS.len(), 0..7usize, 0..12usize, 0..30usize, any::<bool>()), 1..5,
        ),
        format in 0..3usize,
        budget_blocks in 0..12u64,
    ) {
        let model = scenes(mapped().swap_remove(format));
        type Asked = (u64, usize, usize, usize, usize, usize, bool);
        let request = |&(seed, kind, setting, sampling, ..): &Asked, plain: bool| {
            let mut request = Request::new(conversation(&model, kind));
            let setting = if plain { Speculation::Off } else { SETTINGS[setting] };
            request.options.sampling = options().swap_remove(sampling).seed(seed).speculation(setting);
            request.options.max_new_tokens = 70;
            request
        };
        let alone: Vec<Vec<u32>> =
            asked.iter().map(|asked| model.generate(request(asked, true)).run().unwrap().tokens).collect();
        let cache = model.transformer().new_cache(1024);
        let options = EngineOptions::default().kv_budget_bytes(cache.bytes_of(512) + budget_blocks * cache.bytes_of(1));
        let mut engine = model.engine(options, Arc::new(SystemClock::new()));
        let mut ids = vec![None; asked.len()];
        let mut ended: Vec<Option<(StopReason, Vec<u32>)>> = vec![None; asked.len()];
        let mut steps = 0;
        while ended.iter().any(Option::is_none) {
            for (index, asked) in asked.iter().enumerate() {
                let &(.., joins, leaves, cancels) = asked;
                if ids[index].is_none() && steps >= joins {
                    ids[index] = Some(engine.submit(&request(asked, false)).unwrap());
                }
                if cancels && steps == joins + leaves {
                    engine.cancel(ids[index].unwrap());
                }
            }
            for (id, event) in engine.step() {
                let index = ids.iter().position(|own| *own == Some(id)).unwrap();
                if let Event::Done { stats, tokens } = event.unwrap() {
                    ended[index] = Some((stats.stop, tokens));
                }
            }
            while let Some(work) = engine.next_work() {
                engine.complete(work.run(&SystemClock::new()));
            }
            steps += 1;
            prop_assert!(steps < 20_000, "it does not end");
        }
        for ((stop, tokens), alone) in ended.into_iter().flatten().zip(alone) {
            match stop {
                StopReason::Cancelled => prop_assert_eq!(&tokens[..], &alone[..tokens.len()]),
                _ => prop_assert_eq!(tokens, alone),
            }
        }
    }
}

/// More with `LUMINA_CASES`.
fn cases() -> u32 {
    std::env::var("LUMINA_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(16)
}

/// A step that is not to be called for nothing.
#[derive(Debug)]
struct Counted;

impl Step for Counted {
    fn apply(&self, _: &mut Candidates, _: &StreamState) {}

    fn is_pure(&self) -> bool {
        false
    }
}

#[test]
fn steps_that_are_not_pure_have_one_token_a_pass() {
    let model = scenes(Compute::cpu());
    let generate = || model.text_to_image("a large red circle on a white background", (96, 96)).seed(1);
    let [counted, plain] = [generate().sampler(|sampler| sampler.step_after(Counted)), generate()].map(|generation| {
        let mut done = None;
        for event in generation.speculation(Speculation::Window(8)).stream().unwrap() {
            if let Event::Done { stats, tokens } = event.unwrap() {
                done = Some((stats, tokens));
            }
        }
        done.unwrap()
    });
    assert_eq!(counted.1, plain.1);
    assert_eq!((counted.0.drafts, counted.0.accepted_drafts), (0, 0));
    assert!(plain.0.passes < counted.0.passes, "{} of {}", plain.0.passes, counted.0.passes);
}
