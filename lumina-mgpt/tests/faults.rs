//! One request is no other's trouble: code of the program that panics, memory that is not there, contents in logs.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is the failure, and what is tested")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lumina_checkpoint::gguf::{Array, Value};
use lumina_mgpt::{
    Clock, Compute, Conversation, Engine, EngineOptions, Error, Event, ImageDecoder, ImageSize, InputImage, Limits,
    Lumina, LuminaBuilder, Modality, ModelConfig, Part, Request, RequestId, Row, SamplingOptions, Submission,
    SystemClock, TaskInput,
};
use lumina_sampling::{Candidates, Grammar, LogitsRow, Sampler, Step, StreamState};
use lumina_testing::part;

fn builder() -> LuminaBuilder<'static> {
    let folder = part("model").join(folder_name());
    let tokenizer = if folder.join("tokenizer.json").exists() { folder.clone() } else { part("tokenizer") };
    Lumina::from_pretrained(folder).tokenizer(tokenizer).image_tokenizer(part("vq")).compute(Compute::cpu())
}

fn model() -> Lumina {
    builder().load().unwrap()
}

fn image_request(width: u32, height: u32, guidance: f32) -> Request {
    let mut request = Request::new(Conversation::new().human("a tree"));
    let size = ImageSize::new(width, height).unwrap();
    let sampling = SamplingOptions::default().seed(1).modality(Modality::Image);
    request.options.sampling = sampling.image_size(size).guidance_scale(guidance);
    request
}

fn text_request(seed: u64) -> Request {
    let mut request = Request::new(Conversation::new().human("Hello"));
    request.options.sampling = SamplingOptions::default().seed(seed).modality(Modality::Text);
    request.options.max_new_tokens = 20;
    request
}

/// A step of the program that fails in the answer's tenth token.
#[derive(Debug)]
struct Overdrawn;

impl Step for Overdrawn {
    fn apply(&self, _: &mut Candidates, state: &StreamState) {
        assert!(state.answer_len() < 10, "the bonus of token {} is missing\n", state.answer_len());
    }
}

/// One that fails when it is dropped, with a value that is no text.
#[derive(Debug)]
struct Sticky;

impl Step for Sticky {
    fn apply(&self, _: &mut Candidates, _: &StreamState) {}
}

impl Drop for Sticky {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            std::panic::panic_any(7);
        }
    }
}

fn with(adapt: impl Fn(Sampler) -> Sampler + Send + Sync + 'static) -> Submission {
    Submission { sampler: Some(Arc::new(adapt)), ..Submission::default() }
}

/// The last event of each request: its tokens, or the message of its error. Images are decoded by `decoder`.
fn run(engine: &mut Engine, decoder: &mut ImageDecoder) -> Vec<(RequestId, Result<Vec<u32>, String>)> {
    let mut ended: Vec<(RequestId, Result<Vec<u32>, String>)> = Vec::new();
    for step in 0.. {
        assert!(step < 10_000, "it does not end");
        if engine.is_idle() {
            break;
        }
        while let Some(work) = engine.next_work() {
            decoder.submit(work);
        }
        if let Some(done) = if engine.has_passes() { decoder.try_next() } else { decoder.wait() } {
            engine.complete(done);
        }
        for (id, event) in engine.step() {
            assert!(ended.iter().all(|(ended, _)| *ended != id), "an event after the last one");
            match event {
                Ok(Event::Done { tokens, .. }) => ended.push((id, Ok(tokens))),
                Ok(_) => {}
                Err(error) => ended.push((id, Err(error.to_string()))),
            }
        }
    }
    ended.sort_by_key(|(id, _)| *id);
    ended
}

#[test]
fn a_step_that_panics_ends_its_request_and_no_other() {
    let model = model();
    let usual: Vec<_> = [2, 3].map(|seed| model.generate(text_request(seed)).run().unwrap().tokens).into();
    let image = model.generate(image_request(64, 64, 2.0)).run().unwrap().tokens;
    let clock = Arc::new(SystemClock::new());
    let mut engine = model.engine(EngineOptions::default(), clock.clone());
    engine.submit(&text_request(2)).unwrap();
    engine.submit_with(&image_request(64, 64, 2.0), with(|sampler| sampler.step_after(Overdrawn))).unwrap();
    engine.submit_with(&image_request(64, 64, 2.0), with(|sampler| sampler.step_before(Sticky))).unwrap();
    engine.submit(&text_request(3)).unwrap();
    let ended = run(&mut engine, &mut ImageDecoder::new(clock));
    let [(_, first), (_, failed), (_, sticky), (_, last)] = ended.try_into().unwrap();
    assert_eq!((first, last, sticky), (Ok(usual[0].clone()), Ok(usual[1].clone()), Ok(image)));
    let message = failed.unwrap_err();
    assert!(message.contains("Overdrawn` panicked: the bonus of token 10 is missing\\n"), "{message}");
}

#[test]
fn a_stream_whose_step_panics_ends_with_the_error() {
    let model = model();
    let stream = model.generate(image_request(64, 64, 1.0)).sampler(|sampler| sampler.step_before(Overdrawn)).stream();
    let events: Vec<_> = stream.unwrap().take(1000).collect();
    assert!(matches!(events.last(), Some(Err(Error::Sampling(lumina_sampling::Error::StepPanicked { .. })))));
    assert_eq!(events.iter().filter(|event| event.is_err()).count(), 1);
    let refused = model.generate(text_request(1)).sampler(|_| panic!("no sampler today")).stream().unwrap_err();
    assert!(refused.to_string().contains("panicked: no sampler today"), "{refused}");
}

/// A clock that panics in some call, on any thread.
#[derive(Default)]
struct Faulty {
    calls: AtomicUsize,
    fails_at: usize,
}

impl Clock for Faulty {
    fn now(&self) -> Duration {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        assert_ne!(call, self.fails_at, "the battery is empty");
        Duration::from_millis(call as u64)
    }
}

#[test]
fn requests_end_whenever_the_clock_panics() {
    let model = model();
    let usual = model.generate(text_request(2)).run().unwrap().tokens;
    for fails_at in 0..40 {
        let clock = Arc::new(Faulty { fails_at, ..Faulty::default() });
        let mut engine = model.engine(EngineOptions::default(), clock.clone());
        let submitted = [text_request(2), image_request(32, 32, 1.0)].map(|request| engine.submit(&request));
        assert_eq!(submitted.iter().filter(|id| id.is_err()).count(), usize::from(fails_at < 2));
        // What comes later goes on.
        let ended = run(&mut engine, &mut ImageDecoder::new(clock.clone()));
        assert_eq!(ended.len(), if fails_at < 2 { 1 } else { 2 });
        for message in ended.iter().filter_map(|(_, tokens)| tokens.as_ref().err()) {
            assert!(message.contains("clock panicked: ") && message.contains("the battery is empty"), "{message}");
        }
        assert!(clock.calls.load(Ordering::Relaxed) > fails_at);
        let id = engine.submit(&text_request(2)).unwrap();
        assert_eq!(run(&mut engine, &mut ImageDecoder::new(clock)), [(id, Ok(usual.clone()))]);
    }
}

/// The thread that decodes images outlives what panics on it.
#[test]
fn an_image_that_cannot_be_decoded_ends_its_request_alone() {
    let model = model();
    let mut decoder = ImageDecoder::new(Arc::new(Faulty { fails_at: 0, ..Faulty::default() }));
    let mut engine = model.engine(EngineOptions::default(), Arc::new(SystemClock::new()));
    for _ in 0..3 {
        engine.submit(&image_request(32, 32, 1.0)).unwrap();
    }
    let ended = run(&mut engine, &mut decoder);
    let failed: Vec<_> = ended.iter().filter_map(|(_, tokens)| tokens.as_ref().err()).collect();
    assert!(ended.len() == 3 && failed.len() == 1 && failed[0].contains("the battery is empty"), "{ended:?}");
}

#[test]
fn a_cache_has_no_more_capacity_than_can_be_addressed() {
    let targets = [
        Compute::cpu(),
        #[cfg(feature = "burn")]
        Compute::new(burn::tensor::Device::flex()),
    ];
    for compute in targets {
        let model = builder().compute(compute).load().unwrap();
        let mut cache = model.transformer().new_cache(usize::MAX);
        assert!(cache.capacity() < usize::MAX && cache.capacity() > 1 << 40);
        assert!(cache.bytes_of(usize::MAX) >= cache.bytes_of(1 << 40));
        assert_eq!(cache.bytes(), 0);
        // A request may still have a cache of as many tokens as it likes, of which it takes what it uses.
        if model.transformer().compute().is_host() {
            assert!(model.transformer().forward(&mut [Row::cached(&[0, 0], &mut cache)]).is_ok());
            let error = cache.reserve(cache.capacity()).unwrap_err().to_string();
            assert!(error.contains("no memory") && error.contains(&cache.capacity().to_string()), "{error}");
            assert_eq!(cache.len(), 2);
        }
    }
}

#[test]
fn keys_and_values_beyond_the_limit_are_refused_before_or_end_their_request() {
    let block = model().transformer().new_cache(1024).bytes_of(128);
    let mut limits = Limits::default();
    limits.kv_cache_bytes = block;
    let model = builder().limits(limits).load().unwrap();
    let refused = model.generate(image_request(256, 256, 1.0)).run().unwrap_err().to_string();
    assert!(refused.contains("kv_cache_bytes") && refused.contains(&block.to_string()), "{refused}");
    // Of a text the length is not known before. The other one ends in time.
    let clock = Arc::new(SystemClock::new());
    let mut engine = model.engine(EngineOptions::default(), clock.clone());
    let no_end = |sampler: Sampler| sampler.step_before(NoEnd);
    let mut long = text_request(1);
    long.options.max_new_tokens = 1000;
    engine.submit_with(&long, with(no_end)).unwrap();
    engine.submit(&text_request(2)).unwrap();
    let ended = run(&mut engine, &mut ImageDecoder::new(clock));
    assert!(ended[0].1.as_ref().is_err_and(|message| message.contains("kv_cache_bytes")), "{ended:?}");
    assert!(ended[1].1.is_ok(), "{ended:?}");
}

/// Rules out the end of the turn.
#[derive(Debug)]
struct NoEnd;

impl Step for NoEnd {
    fn apply(&self, candidates: &mut Candidates, state: &StreamState) {
        let end = state.vocabulary().turn_end();
        candidates.retain(|token, _| token != end);
    }
}

/// What a program may log holds no prompt, answer, weight or activation, and is short, whatever went through.
#[test]
fn debug_forms_are_short_and_hold_no_contents() {
    const SECRET: &str = "pomegranate";
    let model = model();
    let unirep = model.tokenizer();
    let mut request = image_request(64, 64, 2.0);
    let codes = model.generate(request.clone()).run().unwrap().codes.remove(0);
    let conversation = Conversation::new().human([codes.clone().into(), Part::from(SECRET.repeat(20))]);
    let encoded = unirep.encode(&conversation).unwrap();
    request.prompt = conversation.clone().into();
    let tokens = encoded.tokens.clone();
    let mut forms: Vec<String> = Vec::new();
    let mut show = |value: &dyn std::fmt::Debug| forms.push(format!("{value:?}\n{value:#?}"));

    // The engine, in the middle of its work and after it.
    let mut stream = model.generate(request.clone()).stream().unwrap();
    while let Some(event) = stream.next() {
        show(&stream);
        show(&event);
    }
    let mut engine = model.engine(EngineOptions::default(), Arc::new(SystemClock::new()));
    engine.submit(&request).unwrap();
    let work = loop {
        engine.step().iter().for_each(|event| show(event));
        if let Some(work) = engine.next_work() {
            break work;
        }
    };
    show(&work);
    show(&work.run(&SystemClock::new()));
    let output = model.generate(request.clone()).run().unwrap();
    show(&engine);
    show(&output);
    show(&request);

    // The model: weights, caches, activations.
    let transformer = model.transformer();
    let mut cache = transformer.new_cache(tokens.len());
    let mut row = Row::cached(&tokens, &mut cache);
    show(&row);
    let hidden = transformer.forward(std::slice::from_mut(&mut row)).unwrap();
    let logits = transformer.logits_at(&hidden, &[0, 1]).unwrap();
    let images = model.image_tokenizer().unwrap();
    let all: [&dyn std::fmt::Debug; 12] = [
        &model,
        transformer,
        &transformer.compute(),
        transformer.architecture(),
        &ModelConfig::default(),
        &cache,
        &hidden,
        &logits,
        images,
        images.model(),
        &InputImage::from(output.images[0].clone()),
        unirep,
    ];
    all.into_iter().for_each(&mut show);
    let names = lumina_mgpt::Compute::available();
    show(&names);

    // Streams of tokens, as text and as logits.
    let mut state = StreamState::new(unirep.vocabulary().clone(), &tokens);
    state.push(tokens[0]);
    let mut sampler = Sampler::new(unirep.vocabulary(), &SamplingOptions::default()).unwrap().step_after(NoEnd);
    let row = vec![0.0; transformer.architecture().vocab_size()];
    show(&sampler.candidates(&row, None, &state).unwrap());
    show(&sampler.allowed(&state));
    let grammar = Grammar::new(unirep.vocabulary(), Modality::Any, None).unwrap();
    let decoded = unirep.decode(&tokens, lumina_mgpt::Malformed::Partial).unwrap();
    let mut decoder = unirep.stream();
    let events: Vec<_> = tokens.iter().filter_map(|&token| decoder.push(token)).collect();
    events.iter().for_each(|event| show(event));
    decoded.segments.iter().for_each(|segment| show(segment));
    let turn = &conversation.turns[0];
    turn.content.0.iter().for_each(|part| show(part));
    let json = format!(r#"{{"conversations":[{{"from":"human","value":"{SECRET}"}}]}}"#);
    let record = lumina_tokenizer::Record::from_json(&json).unwrap();
    let input = TaskInput::new().text(SECRET).image(codes);
    let all: [&dyn std::fmt::Debug; 15] = [
        &state,
        &sampler,
        &LogitsRow::from(&row),
        &grammar,
        &decoded,
        &decoder,
        &encoded,
        turn,
        &turn.content,
        &conversation,
        &record,
        &record.conversations[0],
        &input,
        unirep.vocabulary(),
        unirep.text(),
    ];
    all.into_iter().for_each(&mut show);

    // Files.
    let checkpoint = lumina_checkpoint::Checkpoint::open(part("model").join(folder_name())).unwrap();
    show(&checkpoint);
    show(&checkpoint.get(checkpoint.names().next().unwrap()).unwrap());
    for array in [Value::String(SECRET.repeat(100)), Value::Array(Array::F32(row.clone()))] {
        show(&array);
    }
    for form in &forms {
        assert!(form.len() < 4000, "{} bytes: {form:.2000}", form.len());
        assert!(!form.contains(SECRET), "{form}");
    }
    assert!(forms.len() > 60);
}

/// The folder of the model that draws.
fn folder_name() -> String {
    lumina_testing::cases("generate/cases.json")[0]["model"].as_str().unwrap().to_owned()
}
