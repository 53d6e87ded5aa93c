//! Requests to the model of the reference's own requests, answered together.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use lumina_mgpt::{AdaptSampler, Compute, EngineOptions, Event, Lumina, Request, Stats, Submission, SystemClock};
use lumina_testing::part;

/// The folder of the model of the reference's own requests. Its weights are random.
pub(crate) fn reference_folder() -> PathBuf {
    part("model").join(lumina_testing::cases("generate/cases.json")[0]["model"].as_str().unwrap())
}

/// That model.
pub(crate) fn reference(compute: Compute) -> Lumina {
    let folder = reference_folder();
    let tokenizer = if folder.join("tokenizer.json").exists() { folder.clone() } else { part("tokenizer") };
    let builder = Lumina::from_pretrained(folder).tokenizer(tokenizer).image_tokenizer(part("vq"));
    builder.compute(compute).load().unwrap()
}

/// The tokens and statistics of requests that an engine answers together, each with a changed sampler if there is one.
pub(crate) fn answers(model: &Lumina, requests: &[Request], sampler: Option<&AdaptSampler>) -> Vec<(Vec<u32>, Stats)> {
    let mut engine = model.engine(EngineOptions::default(), Arc::new(SystemClock::new()));
    let submit = |request| {
        engine.submit_with(request, Submission { sampler: sampler.cloned(), ..Submission::default() }).unwrap()
    };
    let ids: Vec<_> = requests.iter().map(submit).collect();
    let mut done = BTreeMap::new();
    while !engine.is_idle() {
        for (id, event) in engine.step() {
            if let Event::Done { tokens, stats } = event.unwrap() {
                done.insert(ids.iter().position(|own| *own == id).unwrap(), (tokens, stats));
            }
        }
        while let Some(work) = engine.next_work() {
            engine.complete(work.run(&SystemClock::new()));
        }
    }
    assert_eq!(done.len(), requests.len());
    done.into_values().collect()
}
