//! What a request promises, whatever the model: replay, batching, streaming, limits, cancellation, errors.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "helpers of tests: a panic is the failure, a print the report"
)]

use std::time::Duration;

use image::RgbImage;
use lumina_mgpt::{
    Cancel, Clock, Compute, Conversation, EngineOptions, Event, GenerateOptions, ImageSize, Lumina, Malformed,
    Modality, Output, Request, SamplingOptions, Speculation, StopReason, Submission, SystemClock, Task,
};
use lumina_testing::part;
use proptest::prelude::*;

/// The model of the reference's own requests: one that draws.
fn model() -> Lumina {
    model_on(Compute::cpu())
}

fn model_on(compute: Compute) -> Lumina {
    let cases = lumina_testing::cases("generate/cases.json");
    let folder = part("model").join(cases[0]["model"].as_str().unwrap());
    let tokenizer = if folder.join("tokenizer.json").exists() { folder.clone() } else { part("tokenizer") };
    Lumina::from_pretrained(folder)
        .tokenizer(tokenizer)
        .image_tokenizer(part("vq"))
        .compute(compute)
        .target_size_px(96)
        .load()
        .unwrap()
}

fn request(prompt: &str, seed: u64) -> Request {
    let mut request = Request::new(Conversation::new().human(prompt));
    request.options.sampling = SamplingOptions::default().seed(seed);
    request.options.max_new_tokens = 60;
    request
}

fn with_image(mut request: Request, width: u32, height: u32, guidance: f32) -> Request {
    let size = ImageSize::new(width, height).unwrap();
    request.options.sampling =
        request.options.sampling.modality(Modality::Image).image_size(size).guidance_scale(guidance);
    request
}

/// A text that makes a prompt of at least `n_tokens` tokens, and hardly more.
fn long_text(model: &Lumina, n_tokens: usize) -> String {
    let mut text = "7 ".to_owned();
    let n =
        |text: &str| model.tokenizer().encode(&request(text, 1).prompt.conversation().unwrap()).unwrap().tokens.len();
    while n(&text) < n_tokens {
        text += "7 ";
    }
    text
}

fn summary(output: &Output) -> (&[u32], &str, Vec<&[u8]>) {
    (&output.tokens, &output.text, output.images.iter().map(|image| image.as_raw().as_slice()).collect())
}

#[test]
fn the_model_can_be_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Lumina>();
    let model = model();
    let run = |seed| model.generate(request("Hello", seed)).run().unwrap().tokens;
    let expected = [run(1), run(2)];
    std::thread::scope(|scope| {
        for (seed, expected) in [1, 2].into_iter().zip(&expected) {
            let model = &model;
            scope.spawn(move || assert_eq!(&model.generate(request("Hello", seed)).run().unwrap().tokens, expected));
        }
    });
}

/// A program shows texts, and never the names of special tokens that a model writes among them.
#[test]
fn special_tokens_in_text_are_events_of_their_own() {
    let model = model();
    let mut specials = Vec::new();
    for seed in 0..4 {
        let (mut whole, asked) = (String::new(), request("Hello", seed));
        for event in model.generate(asked.clone()).malformed(Malformed::Partial).stream().unwrap() {
            match event.unwrap() {
                Event::Text(text) => {
                    assert!(!text.contains("IMGIMG") && !text.contains("<reserved"), "{text}");
                    whole += &text;
                }
                Event::Special(name) => {
                    whole += &name;
                    specials.push(name);
                }
                _ => {}
            }
        }
        let output = model.generate(asked).malformed(Malformed::Partial).run().unwrap();
        assert_eq!(output.text.replace("<|image|>", ""), whole);
    }
    assert!(specials.len() > 10 && specials.iter().all(|name| name.starts_with(['<', 'I'])), "{specials:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// Any mix of requests: each answer is the same alone, again, in a batch, and streamed.
    #[test]
    fn answers_do_not_depend_on_how_they_are_asked(
        asked in prop::collection::vec((any::<u64>(), "[!-~][ -~]{0,79}", 0..4usize, 1..4u32, 1..4u32), 1..5),
    ) {
        let model = model();
        let requests: Vec<Request> = asked.iter().map(|(seed, prompt, kind, columns, rows)| {
            let plain = request(prompt, *seed);
            match kind {
                0 => plain,
                1 => with_image(plain, columns * 32, rows * 32, 1.0),
                2 => with_image(plain, columns * 32, rows * 32, 3.5),
                _ => {
                    let mut text = plain;
                    let sampling = text.options.sampling.modality(Modality::Text);
                    text.options.sampling = sampling.repetition_penalty(1.2).top_p(0.9);
                    text
                }
            }
        }).collect();
        let together = model.run_batch(&requests);
        for (request, batched) in requests.iter().zip(together) {
            let batched = batched.unwrap();
            let alone = model.generate(request.clone()).run().unwrap();
            prop_assert_eq!(summary(&batched), summary(&alone));
            // A request is a value: what is read back from JSON asks the same.
            let json = serde_json::to_string(request).unwrap();
            let again = model.generate(serde_json::from_str(&json).unwrap());
            let mut text = String::new();
            let mut rows = Vec::new();
            for event in again.stream().unwrap() {
                match event.unwrap() {
                    Event::Text(piece) | Event::Special(piece) => text += &piece,
                    Event::Image { codes, .. } => {
                        text += "<|image|>";
                        prop_assert_eq!(std::mem::take(&mut rows), codes.codes());
                    }
                    Event::ImageRow { codes, .. } => rows.extend(codes),
                    Event::Done { tokens, stats } => {
                        prop_assert_eq!(&tokens, &alone.tokens);
                        prop_assert_eq!(stats.generated_tokens, tokens.len());
                    }
                    _ => {}
                }
            }
            prop_assert_eq!(text, alone.text);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// Requests that join and leave at any step, with as little memory as the largest needs: each gets the tokens that
    /// it gets alone, or, if it is cancelled, the first of them.
    #[test]
    fn answers_do_not_depend_on_what_else_runs(
        asked in prop::collection::vec(
            (any::<u64>(), 2..360usize, 0..3usize, 0..30usize, 0..60usize, any::<bool>()),
            2..6,
        ),
        budget_blocks in 0..12u64,
        max_sequences in 1..5usize,
    ) {
        let model = model();
        let requests: Vec<Request> = asked.iter().map(|&(seed, prompt_tokens, kind, ..)| {
            let plain = request(&"7 ".repeat(prompt_tokens / 2), seed);
            match kind {
                0 => plain,
                1 => with_image(plain, 64, 64, 1.0),
                _ => with_image(plain, 96, 64, 3.0),
            }
        }).collect();
        let alone: Vec<Vec<u32>> =
            requests.iter().map(|request| model.generate(request.clone()).run().unwrap().tokens).collect();
        // What the largest takes at most, and some blocks.
        let cache = model.transformer().new_cache(1024);
        let budget = cache.bytes_of(512) + budget_blocks * cache.bytes_of(1);
        let clock = std::sync::Arc::new(SystemClock::new());
        let options = EngineOptions::default().kv_budget_bytes(budget).max_sequences(max_sequences);
        let mut engine = model.engine(options, clock.clone());
        let mut ids = vec![None; requests.len()];
        let mut ended: Vec<Option<(StopReason, Vec<u32>)>> = vec![None; requests.len()];
        let mut steps = 0;
        while ended.iter().any(Option::is_none) {
            for (index, &(_, _, _, joins, leaves, cancels)) in asked.iter().enumerate() {
                if ids[index].is_none() && steps >= joins {
                    ids[index] = Some(engine.submit(&requests[index]).unwrap());
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
            prop_assert!(engine.kv_bytes() <= budget, "{} of {budget}", engine.kv_bytes());
            while let Some(work) = engine.next_work() {
                engine.complete(work.run(&*clock));
            }
            steps += 1;
            prop_assert!(steps < 20_000, "it does not end");
        }
        prop_assert!(engine.is_idle());
        for ((stop, tokens), alone) in ended.into_iter().flatten().zip(alone) {
            match stop {
                StopReason::Cancelled => prop_assert_eq!(&tokens[..], &alone[..tokens.len()]),
                _ => prop_assert_eq!(tokens, alone),
            }
        }
    }
}

/// A sequence that gave its keys and values up goes on as if it had not: its prompt is longer than a prefill chunk.
#[test]
fn a_sequence_without_memory_waits_and_goes_on() {
    let model = model();
    let requests = [340, 250].map(|tokens| with_image(request(&long_text(&model, tokens), 5), 96, 96, 2.0));
    let alone = requests.clone().map(|request| model.generate(request).run().unwrap());
    let bytes = |tokens| model.transformer().new_cache(1024).bytes_of(tokens);
    // Enough for the prompts of both, and for the whole of either.
    let budget = bytes(384) + bytes(256) + bytes(128);
    let clock = std::sync::Arc::new(SystemClock::new());
    let mut engine = model.engine(EngineOptions::default().kv_budget_bytes(budget), clock.clone());
    let ids = requests.each_ref().map(|request| engine.submit(request).unwrap());
    let (mut waited, mut ended) = (false, 0);
    let mut was_running = 0;
    while !engine.is_idle() {
        for (id, event) in engine.step() {
            if let Event::Done { tokens, stats } = event.unwrap() {
                let index = ids.iter().position(|own| *own == id).unwrap();
                assert_eq!(tokens, alone[index].tokens);
                assert!(stats.kv_cache_bytes <= budget);
                ended += 1;
            }
        }
        assert!(engine.kv_bytes() <= budget);
        waited |= was_running == 2 && engine.n_waiting() == 1;
        was_running = 2 - engine.n_waiting() - ended;
        while let Some(work) = engine.next_work() {
            engine.complete(work.run(&*clock));
        }
    }
    assert_eq!((waited, ended), (true, 2));
}

#[test]
fn a_request_that_can_never_fit_is_refused() {
    let model = model();
    let clock = std::sync::Arc::new(SystemClock::new());
    let least = model.transformer().new_cache(1024).bytes_of(128);
    let mut engine = model.engine(EngineOptions::default().kv_budget_bytes(least), clock.clone());
    let refused =
        engine.submit(&with_image(request(&long_text(&model, 129), 1), 256, 256, 2.0)).unwrap_err().to_string();
    assert!(refused.contains("kv_budget_bytes") && refused.contains(&least.to_string()), "{refused}");
    assert!(engine.is_idle());

    // One whose length is not known fails where it does not fit alone, and others go on.
    let text = long_text(&model, 125);
    let long = (0..100).map(|seed| {
        let mut long = request(&text, seed);
        long.options.sampling = long.options.sampling.modality(Modality::Text);
        long
    });
    let is_long = |long: &Request| model.generate(long.clone()).run().unwrap().tokens.len() > 3;
    let long = long.into_iter().find(is_long).expect("the model ends a hundred answers early");
    let mut short = request("Hello", 2);
    short.options.max_new_tokens = 5;
    let [long, short] = [long, short].map(|request| engine.submit(&request).unwrap());
    let mut ended = Vec::new();
    while !engine.is_idle() {
        for (id, event) in engine.step() {
            match event {
                Ok(Event::Done { .. }) => ended.push((id, "done")),
                Ok(_) => {}
                Err(error) => {
                    assert!(error.to_string().contains("kv_budget_bytes"), "{error}");
                    ended.push((id, "failed"));
                }
            }
        }
    }
    assert!(ended.contains(&(long, "failed")) && ended.contains(&(short, "done")), "{ended:?}");
}

/// Where keys and values are tensors of a device, a sequence has all of them from its first pass on, and none before.
#[cfg(feature = "burn")]
#[test]
fn on_a_device_requests_wait_for_memory() {
    let model = model_on(Compute::new(burn::tensor::Device::flex()));
    let asked = || with_image(request("a tree", 1), 64, 32, 2.0);
    let alone = model.generate(asked()).run().unwrap();
    let clock = std::sync::Arc::new(SystemClock::new());
    let budget = alone.stats.kv_cache_bytes;
    let mut engine = model.engine(EngineOptions::default().kv_budget_bytes(budget), clock.clone());
    let _both = [asked(), asked()].map(|request| engine.submit(&request).unwrap());
    assert_eq!(engine.kv_bytes(), 0);
    let (mut waited, mut ended) = (false, 0);
    while !engine.is_idle() {
        for (_, event) in engine.step() {
            if let Event::Done { tokens, .. } = event.unwrap() {
                assert_eq!(tokens, alone.tokens);
                ended += 1;
            }
        }
        assert!(engine.kv_bytes() <= budget);
        waited |= engine.kv_bytes() == budget && engine.n_waiting() == 1;
        while let Some(work) = engine.next_work() {
            engine.complete(work.run(&*clock));
        }
    }
    assert_eq!((waited, ended), (true, 2));
}

/// Another request gets its tokens while an image is being decoded.
#[test]
fn decoding_an_image_stops_nobody() {
    let model = model();
    let clock = std::sync::Arc::new(SystemClock::new());
    let mut engine = model.engine(EngineOptions::default(), clock.clone());
    let image = engine.submit(&with_image(request("a tree", 1), 32, 32, 1.0)).unwrap();
    let mut text = request("Hello", 2);
    text.options.sampling = text.options.sampling.modality(Modality::Text);
    let text = engine.submit(&text).unwrap();
    let mut order = Vec::new();
    let mut work = Vec::new();
    while engine.has_passes() {
        for (id, event) in engine.step() {
            if matches!(event.unwrap(), Event::Image { .. } | Event::Done { .. }) {
                order.push(id);
            }
        }
        work.extend(std::iter::from_fn(|| engine.next_work()));
    }
    assert_eq!((order.as_slice(), work.len()), (&[text][..], 1), "the image waits, the text does not");
    assert!(!engine.is_idle());
    for work in work {
        assert_eq!(work.request(), image);
        engine.complete(work.run(&*clock));
    }
    let last: Vec<_> = engine.step().into_iter().map(|(id, event)| (id, event.unwrap())).collect();
    assert!(matches!(&last[..], [(_, Event::Image { .. }), (_, Event::Done { .. })]), "{last:?}");
    assert!(last.iter().all(|(id, _)| *id == image) && engine.is_idle());
}

#[test]
fn cancelling_by_id_ends_one_and_cancelling_by_token_all_that_have_it() {
    let model = model();
    let clock = std::sync::Arc::new(SystemClock::new());
    let mut engine = model.engine(EngineOptions::default(), clock.clone());
    let cancel = Cancel::new();
    let ids: Vec<_> = (0..3)
        .map(|seed| {
            let submission = Submission { cancel: cancel.clone(), ..Submission::default() };
            engine.submit_with(&with_image(request("a tree", seed), 64, 64, 1.0), submission).unwrap()
        })
        .collect();
    let mut ended = Vec::new();
    for step in 0.. {
        match step {
            3 => engine.cancel(ids[1]),
            5 => cancel.cancel(),
            _ if engine.is_idle() => break,
            _ => {}
        }
        for (id, event) in engine.step() {
            if let Event::Done { stats, .. } = event.unwrap() {
                ended.push((id, stats.stop, step));
            }
        }
        while let Some(work) = engine.next_work() {
            engine.complete(work.run(&*clock));
        }
    }
    assert_eq!(ended[0], (ids[1], StopReason::Cancelled, 3));
    assert!(ended[1..].iter().all(|&(_, stop, step)| stop == StopReason::Cancelled && step >= 5), "{ended:?}");
    assert_eq!(ended.len(), 3);
    engine.cancel(ids[0]);
    assert!(engine.is_idle() && engine.step().is_empty());
}

/// The engine reads no clock but the one that it is given.
#[test]
fn deadlines_are_those_of_the_clock_that_is_given() {
    #[derive(Default)]
    struct Hand(std::sync::atomic::AtomicU64);
    impl Clock for Hand {
        fn now(&self) -> Duration {
            Duration::from_secs(self.0.load(std::sync::atomic::Ordering::Relaxed))
        }
    }
    let model = model();
    let clock = std::sync::Arc::new(Hand::default());
    let mut engine = model.engine(EngineOptions::default(), clock.clone());
    let mut asked = with_image(request("a tree", 1), 64, 64, 1.0);
    asked.options.deadline_ms = Some(5000);
    let id = engine.submit_with(&asked, Submission::default()).unwrap();
    for _ in 0..4 {
        assert!(engine.step().iter().all(|(_, event)| !matches!(event, Ok(Event::Done { .. }))));
    }
    clock.0.store(5, std::sync::atomic::Ordering::Relaxed);
    let mut last = None;
    while !engine.is_idle() {
        last = engine.step().pop().or(last);
        while let Some(work) = engine.next_work() {
            engine.complete(work.run(&*clock));
        }
    }
    let (ended, event) = last.unwrap();
    let Event::Done { stats, .. } = event.unwrap() else { panic!("it has ended") };
    assert_eq!((ended, stats.stop, stats.decode), (id, StopReason::Deadline, Duration::ZERO));
}

/// The prompt is longer than a prefill chunk, and shares passes with one that already decodes.
#[test]
fn long_prompts_are_prefilled_in_chunks() {
    let model = model();
    let long = long_text(&model, 330);
    let requests = [request("Hi", 3), with_image(request(&long, 4), 64, 32, 2.0)];
    let together = model.run_batch(&requests);
    for (request, batched) in requests.into_iter().zip(together) {
        assert_eq!(summary(&batched.unwrap()), summary(&model.generate(request).run().unwrap()));
    }
}

#[test]
fn a_fixed_size_gives_that_size_and_costs_no_pass_for_what_is_forced() {
    let model = model();
    let generation = model.generate(with_image(request("a tree", 1), 96, 64, 4.0));
    let output = generation.speculation(Speculation::Off).run().unwrap();
    assert_eq!(output.images[0].dimensions(), (96, 64));
    assert_eq!(output.text, "<|image|>");
    let (rows, columns) = (4, 6);
    assert_eq!(output.tokens.len(), 3 + rows * (columns + 1) + 1 + 1);
    // Start, two sizes, row-ends, image-end and turn-end are forced; each code costs one pass, for both branches.
    assert_eq!(output.stats.forced_tokens, 3 + rows + 2);
    assert_eq!(output.stats.passes, rows * columns);
    assert_eq!(output.stats.stop, StopReason::TurnEnd);
    assert!(output.stats.kv_cache_bytes > 0);
}

#[test]
fn previews_grow_with_the_rows() {
    let model = model();
    let request = with_image(request("a tree", 1), 64, 96, 1.0);
    for (every, expected) in [(2, &[32, 64][..]), (4, &[64]), (6, &[])] {
        let mut heights = Vec::new();
        for event in model.generate(request.clone()).preview_every_rows(every).stream().unwrap() {
            if let Event::Preview(image) = event.unwrap() {
                assert_eq!(image.width(), 64);
                heights.push(image.height());
            }
        }
        // After the last row comes the image itself.
        assert_eq!(heights, expected);
    }
}

#[test]
fn every_limit_ends_the_answer_and_says_so() {
    let model = model();
    let image = || with_image(request("a tree", 1), 64, 64, 2.0);
    let stopped = |generation: lumina_mgpt::Generation<'_>| generation.run().unwrap();

    let cut = stopped(model.generate(image()).max_new_tokens(9));
    assert_eq!((cut.stats.stop, cut.tokens.len()), (StopReason::MaxNewTokens, 9));
    let (malformed, partial) = &cut.malformed[0];
    assert_eq!(malformed.rows.as_ref().unwrap().rows(), 1);
    assert_eq!(partial.as_ref().unwrap().dimensions(), (64, 16));
    assert_eq!(cut.text, "");
    let refused = model.generate(image()).max_new_tokens(9).malformed(Malformed::Error).run().unwrap_err().to_string();
    assert!(refused.contains("Partial"), "{refused}");

    let mut free = image();
    free.options.sampling.modality = Modality::Any;
    let one = stopped(model.generate(free).max_images(1));
    assert_eq!((one.stats.stop, one.images.len()), (StopReason::MaxImages, 1));

    let late = stopped(model.generate(image()).deadline_ms(0));
    assert_eq!((late.stats.stop, late.stats.passes), (StopReason::Deadline, 0));

    let cancel = Cancel::new();
    let mut stream = model.generate(image()).cancel_with(&cancel).stream().unwrap();
    assert!(matches!(stream.next(), Some(Ok(Event::ImageStarted { .. }))));
    cancel.cancel();
    let last = stream.last().unwrap().unwrap();
    assert!(matches!(&last, Event::Done { stats, .. } if stats.stop == StopReason::Cancelled), "{last:?}");

    let context = model.transformer().architecture().max_positions();
    let mut long = request(&long_text(&model, context - 40), 1);
    long.options.max_new_tokens = usize::MAX;
    long.options.sampling = with_image(request("", 1), 256, 256, 1.0).options.sampling;
    // Of one image alone it is known before that it does not fit.
    let refused = model.generate(long.clone()).run().unwrap_err().to_string();
    assert!(refused.contains("256x256") && refused.contains("276 tokens"), "{refused}");
    long.options.sampling.modality = Modality::Any;
    let full = stopped(model.generate(long));
    assert_eq!(full.stats.stop, StopReason::ContextFull);
    assert_eq!(full.stats.prompt_tokens + full.tokens.len(), context);
}

#[test]
fn what_is_wrong_with_a_request_is_said_before_anything_is_generated() {
    let model = model();
    let context = model.transformer().architecture().max_positions();
    let message = |request: Request| model.generate(request).run().unwrap_err().to_string();
    let with = |change: &dyn Fn(&mut GenerateOptions)| {
        let mut request = request("Hello", 1);
        change(&mut request.options);
        message(request)
    };
    let long = message(request(&long_text(&model, context), 1));
    assert!(long.contains(&context.to_string()) && long.contains("shorten"), "{long}");
    for (message, what) in [
        (with(&|options| options.max_new_tokens = 0), "`max_new_tokens` is 0"),
        (with(&|options| options.max_images = Some(0)), "`max_images` is 0"),
        (with(&|options| options.preview_every_rows = Some(0)), "`preview_every_rows` is 0"),
        (with(&|options| options.sampling.image_top_k = 0), "`image_top_k` is 0"),
        (with(&|options| options.sampling.temperature = 0.0), "greedy"),
        (with(&|options| options.sampling.temperature = f32::NAN), "`temperature` is NaN"),
        (with(&|options| options.sampling.guidance_scale = f32::NAN), "`guidance_scale` is NaN"),
        (message(Request::default()), "no turn"),
    ] {
        assert!(message.contains(what), "{message}, expected: {what}");
    }
    let size = model.text_to_image("a tree", (100, 64)).run().unwrap_err().to_string();
    assert!(size.contains("100x64") && size.contains("multiples of 32"), "{size}");
    let task = model.edit(Task::Editing, RgbImage::new(64, 64), None).run().unwrap_err().to_string();
    assert!(task.contains("text"), "{task}");

    // One bad request in a batch does not spoil the others.
    let mut bad = request("Hello", 1);
    bad.options.max_new_tokens = 0;
    let outputs = model.run_batch(&[request("Hello", 1), bad, request("Hello", 2)]);
    assert!(outputs[0].is_ok() && outputs[1].is_err() && outputs[2].is_ok());
    assert_eq!(outputs[0].as_ref().unwrap().tokens, model.generate(request("Hello", 1)).run().unwrap().tokens);
}

#[test]
fn every_task_runs() {
    let model = model();
    let input = RgbImage::from_fn(90, 70, |x, y| image::Rgb([x as u8 * 2, y as u8 * 3, 40]));
    assert_eq!(model.text_to_image("a tree", (64, 32)).run().unwrap().dimensions(), (64, 32));
    let text: String = model.caption(&input).max_new_tokens(12).run().unwrap();
    assert!(!text.contains("<|image|>"), "{text}");
    model.ask("What is it?", &input).max_new_tokens(12).run().unwrap();
    for task in Task::ALL {
        let spec = task.spec();
        if spec.images != Some(1) || spec.output != lumina_tokenizer::TaskOutput::Image {
            continue;
        }
        let instruction = spec.template.contains("{prompt}").then_some("a car");
        let size = ImageSize::new(64, 64).unwrap();
        let drawn = model.edit(task, &input, instruction).image_size(size).run().unwrap();
        assert_eq!(drawn.dimensions(), (64, 64), "{task}");
    }
}

#[test]
fn a_step_of_ones_own_is_part_of_the_pipeline() {
    #[derive(Debug)]
    struct Only(u32);
    impl lumina_sampling::Step for Only {
        fn apply(&self, candidates: &mut lumina_sampling::Candidates, state: &lumina_sampling::StreamState) {
            if !state.in_image() {
                candidates.retain(|token, _| token == self.0);
            }
        }
    }
    let model = model();
    let token = model.tokenizer().text().encode("a", Default::default()).unwrap()[0];
    let output = model
        .generate(request("Hello", 1))
        .max_new_tokens(5)
        .sampler(move |sampler| sampler.step_before(Only(token)))
        .run()
        .unwrap();
    assert_eq!(output.tokens, [token; 5]);
}

#[test]
fn stats_add_up() {
    let output = model().generate(with_image(request("a tree", 1), 64, 64, 2.0)).run().unwrap();
    let stats = output.stats;
    assert!(stats.prefill > Duration::ZERO && stats.decode > Duration::ZERO && stats.image_decode > Duration::ZERO);
    assert!(stats.tokens_per_second() > 0.0);
    #[cfg(target_os = "linux")]
    assert!(stats.peak_resident_bytes.unwrap() > stats.kv_cache_bytes);
}
