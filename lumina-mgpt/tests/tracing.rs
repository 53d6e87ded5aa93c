//! What a program's subscriber sees with the feature `tracing`: the course of a request, and nothing of its contents.
#![allow(clippy::unwrap_used, reason = "helpers of tests: a panic is the failure")]
#![cfg(feature = "tracing")]

use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex};

use lumina_mgpt::{Compute, Lumina};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Keeps all events as lines.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

struct Fields<'a>(&'a mut String);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        write!(self.0, " {field}={value:?}").unwrap();
    }
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "lumina_mgpt"
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut line = event.metadata().level().to_string();
        event.record(&mut Fields(&mut line));
        self.0.lock().unwrap().push(line);
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[test]
fn a_request_is_seen_from_its_submission_to_its_end() {
    const SECRET: &str = "pomegranate";
    let lines = Lines::default();
    tracing::subscriber::with_default(lines.clone(), || {
        let folder = lumina_testing::model_of_small_images();
        let model = Lumina::from_pretrained(folder).compute(Compute::cpu()).load().unwrap();
        model.text_to_image(SECRET, (96, 96)).seed(1).run().unwrap();
        assert!(model.text_to_image(SECRET, (96, 96)).sampler(|_| panic!("{SECRET}")).run().is_err());
    });
    let lines = lines.0.lock().unwrap();
    let count = |level: Level, words: &[&str]| {
        let begin = level.to_string();
        lines.iter().filter(|line| line.starts_with(&begin) && words.iter().all(|word| line.contains(word))).count()
    };
    assert_eq!(count(Level::INFO, &["opened", "path=", "layers="]), 1, "{lines:#?}");
    assert_eq!(count(Level::DEBUG, &["request submitted", "request=0", "prompt_tokens="]), 1, "{lines:#?}");
    assert!(count(Level::TRACE, &["pass", "requests=1", "time="]) > 10, "{lines:#?}");
    assert_eq!(count(Level::DEBUG, &["request ended", "request=0", "passes:"]), 1, "{lines:#?}");
    assert!(!lines.iter().any(|line| line.contains(SECRET)), "{lines:#?}");
}
