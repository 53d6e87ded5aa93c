//! An engine on a thread of its own: the answers of many callers, slow readers, cancelling, bounds, and its end.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests: a panic is the failure")]

use std::time::Duration;

use lumina_mgpt::{
    Compute, Conversation, EngineOptions, Error, Event, Events, Handle, HandleOptions, Lumina, Malformed, Request,
    StopReason, Submission,
};
use lumina_testing::wait_until;

fn model() -> Lumina {
    let folder = lumina_testing::model_of_small_images();
    Lumina::from_pretrained(folder).compute(Compute::cpu()).load().unwrap()
}

fn image(model: &Lumina, seed: u64) -> Request {
    model.text_to_image("a small red circle on a white background", (96, 96)).seed(seed).request().unwrap()
}

/// A request that takes a while: text at random, whose end is excluded.
fn endless(model: &Lumina) -> (Request, Submission) {
    let request = model.chat(Conversation::new().human("Hello")).temperature(3.0).text_top_k(200).request().unwrap();
    let request =
        request.with(|options| options.max_new_tokens(100_000).sampling(|s| s.modality(lumina_mgpt::Modality::Text)));
    let no_end = |sampler: lumina_mgpt::Sampler| sampler.step_after(NoEnd);
    (request, Submission { sampler: Some(std::sync::Arc::new(no_end)), ..Submission::default() })
}

/// Rules out the end of the turn, and takes its time.
#[derive(Debug)]
struct NoEnd;

impl lumina_mgpt::Step for NoEnd {
    fn apply(&self, candidates: &mut lumina_mgpt::Candidates, state: &lumina_mgpt::StreamState) {
        std::thread::sleep(Duration::from_millis(20));
        let end = state.vocabulary().turn_end();
        candidates.retain(|token, _| token != end);
    }
}

fn stop(events: Events) -> StopReason {
    events.output().unwrap().stats.stop
}

#[test]
fn callers_on_many_threads_get_what_they_would_alone() {
    let model = model();
    let handle = Handle::new(&model, HandleOptions::default()).unwrap();
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let (handle, model) = (handle.clone(), model.clone());
            std::thread::spawn(move || {
                for seed in [thread, thread + 10] {
                    let request = image(&model, seed);
                    let output = handle.submit(&request).unwrap().output().unwrap();
                    let alone = model.generate(request).run().unwrap();
                    assert!(output.tokens == alone.tokens && output.images == alone.images, "seed {seed}");
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let metrics = handle.metrics();
    assert_eq!((metrics.submitted, metrics.completed, metrics.failed, metrics.cancelled), (8, 8, 0, 0));
    assert_eq!((metrics.waiting, metrics.held), (0, 0));
    assert!(metrics.passes > 0 && metrics.generated_tokens > 8 * 36 && metrics.pass_time > Duration::ZERO);
    wait_until("the end of the last request", || handle.metrics().running == 0);
    assert_eq!(handle.metrics().kv_cache_bytes, 0);
}

#[test]
fn dropped_events_cancel_their_request_and_no_other() {
    let model = model();
    let handle = Handle::new(&model, HandleOptions::default()).unwrap();
    let (request, submission) = endless(&model);
    let mut events = handle.submit_with(&request, submission.clone()).unwrap();
    assert!(matches!(events.next(), Some(Ok(Event::Text(_)))));
    let passes = handle.metrics().passes;
    drop(events);
    wait_until("cancelling", || handle.metrics().cancelled == 1);
    assert!(handle.metrics().passes <= passes + 50, "{passes} then {:?}", handle.metrics());
    // By its owner, with what is there.
    let (request, submission) = endless(&model);
    let mut events = handle.submit_with(&request, submission).unwrap();
    events.next().unwrap().unwrap();
    events.cancel();
    assert_eq!(stop(events), StopReason::Cancelled);
    // Others are not concerned.
    assert_eq!(stop(handle.submit(&image(&model, 1)).unwrap()), StopReason::TurnEnd);
}

#[test]
fn images_that_nobody_is_left_to_get_are_not_decoded() {
    let model = model();
    let handle = Handle::new(&model, HandleOptions::default().event_buffer(3)).unwrap();
    for malformed in [Malformed::Partial, Malformed::Error] {
        let cancelled = handle.metrics().cancelled;
        let request = image(&model, 3).with(|options| options.malformed(malformed));
        let events = handle.submit(&request).unwrap();
        wait_until("some rows", || handle.metrics().held == 1);
        drop(events);
        wait_until("cancelling", || handle.metrics().cancelled == cancelled + 1);
    }
    assert_eq!((handle.metrics().image_decode, handle.metrics().failed), (Duration::ZERO, 0));
    // Who has cancelled it gets what is there.
    let events = handle.submit(&image(&model, 3)).unwrap();
    wait_until("some rows", || handle.metrics().held == 1);
    events.cancel();
    assert!(events.output().unwrap().malformed[0].1.is_some());
    assert!(handle.metrics().image_decode > Duration::ZERO);
}

#[test]
fn a_reader_that_is_behind_holds_up_its_own_request_alone() {
    let model = model();
    for budget in [u64::MAX, 3_000_000] {
        let engine = EngineOptions::default().kv_budget_bytes(budget);
        let options = HandleOptions::default().event_buffer(3).engine(engine);
        let handle = Handle::new(&model, options).unwrap();
        let request = image(&model, 3);
        let mut slow = handle.submit(&request).unwrap();
        wait_until("holding", || handle.metrics().held == 1);
        // It stays so, and others go on.
        let other = image(&model, 4);
        let output = handle.submit(&other).unwrap().output().unwrap();
        assert_eq!(output.tokens, model.generate(other).run().unwrap().tokens);
        assert_eq!(handle.metrics().held, 1);
        let mut tokens = Vec::new();
        for event in slow.by_ref() {
            std::thread::sleep(Duration::from_millis(2));
            if let Event::Done { tokens: all, .. } = event.unwrap() {
                tokens = all;
            }
        }
        assert!(tokens == model.generate(request).run().unwrap().tokens, "budget {budget}");
    }
}

#[test]
fn a_deadline_holds_for_a_request_that_nobody_reads() {
    let model = model();
    let handle = Handle::new(&model, HandleOptions::default().event_buffer(2)).unwrap();
    let (request, submission) = endless(&model);
    let request = request.with(|options| options.deadline_ms(300));
    let events = handle.submit_with(&request, submission).unwrap();
    // On a slow machine the deadline may come before two events do.
    wait_until("holding", || handle.metrics().held == 1 || handle.metrics().completed == 1);
    wait_until("the deadline", || handle.metrics().completed == 1);
    assert_eq!(stop(events), StopReason::Deadline);
}

#[test]
fn a_queue_without_room_for_any_is_not_said_to_be_full() {
    let model = model();
    let engine = EngineOptions::default().max_sequences(1);
    let handle = Handle::new(&model, HandleOptions::default().engine(engine).max_waiting(0)).unwrap();
    let (request, submission) = endless(&model);
    let _running = handle.submit_with(&request, submission).unwrap();
    let message = handle.submit(&image(&model, 1)).unwrap_err().to_string();
    assert!(message.contains("none may wait") && !message.contains("0 requests"), "{message}");
}

#[test]
fn more_requests_than_may_wait_are_refused() {
    let model = model();
    let options = HandleOptions::default().max_waiting(2).engine(EngineOptions::default().max_sequences(1));
    let handle = Handle::new(&model, options).unwrap();
    let submit = || {
        let (request, submission) = endless(&model);
        handle.submit_with(&request, submission)
    };
    let running = submit().unwrap();
    wait_until("the first pass", || handle.metrics().running == 1);
    let waiting = [submit().unwrap(), submit().unwrap()];
    let error = submit().unwrap_err();
    assert!(matches!(error, Error::QueueFull { limit: 2 }), "{error}");
    assert_eq!(handle.metrics().refused, 1);
    drop(waiting);
    wait_until("a place", || handle.metrics().waiting == 0);
    drop(running);
    assert_eq!(stop(handle.submit(&image(&model, 5)).unwrap()), StopReason::TurnEnd);
}

/// Requests that nobody reads count, and keep no more keys and values than those that run could have.
#[test]
fn unread_requests_are_bounded() {
    let model = model();
    let engine = EngineOptions::default().max_sequences(2);
    let options = HandleOptions::default().max_waiting(4).event_buffer(1).engine(engine);
    let handle = Handle::new(&model, options).unwrap();
    let (mut unread, mut is_full) = (Vec::new(), false);
    let mut most_bytes = 0;
    wait_until("a full queue", || {
        match handle.submit(&image(&model, 1)) {
            Ok(events) => unread.push(events),
            Err(error) => is_full = matches!(error, Error::QueueFull { limit: 4 }),
        }
        let metrics = handle.metrics();
        most_bytes = most_bytes.max(metrics.kv_cache_bytes);
        is_full && metrics.held == 6
    });
    assert_eq!(unread.len(), 6);
    // Two that run and two that are held, at the most.
    let alone = model.generate(image(&model, 1)).run().unwrap();
    assert!(most_bytes <= 4 * alone.stats.kv_cache_bytes, "{most_bytes} of {}", alone.stats.kv_cache_bytes);
    for events in unread {
        assert_eq!(events.output().unwrap().tokens, alone.tokens);
    }
}

/// One `Cancel` may be of many requests: dropping the events of one uses it for no other.
#[test]
fn dropping_events_cancels_no_other_with_the_same_cancel() {
    let model = model();
    let handle = Handle::new(&model, HandleOptions::default()).unwrap();
    let submission = Submission::default();
    let dropped = handle.submit_with(&image(&model, 1), submission.clone()).unwrap();
    let kept = handle.submit_with(&image(&model, 2), submission.clone()).unwrap();
    drop(dropped);
    assert_eq!(stop(kept), StopReason::TurnEnd);
    assert!(!submission.cancel.is_cancelled());
}

#[test]
fn shutting_down_answers_what_it_can_and_ends_the_rest() {
    let model = model();
    let handle = Handle::new(&model, HandleOptions::default()).unwrap();
    let short = handle.submit(&image(&model, 6)).unwrap();
    let (request, submission) = endless(&model);
    let long = handle.submit_with(&request, submission).unwrap();
    let ending = {
        let handle = handle.clone();
        std::thread::spawn(move || handle.shutdown(Duration::from_secs(1000)))
    };
    wait_until("closing", || handle.is_shut_down());
    assert_eq!(stop(short), StopReason::TurnEnd);
    // The earlier end counts.
    handle.shutdown(Duration::ZERO);
    ending.join().unwrap();
    assert_eq!(stop(long), StopReason::Cancelled);
    assert!(handle.is_shut_down());
    assert!(matches!(handle.submit(&image(&model, 6)).unwrap_err(), Error::Stopped));
    // Once more does no harm.
    handle.shutdown(Duration::ZERO);
}

/// A reader outlives its handle, and gets all of its answer.
#[test]
fn events_keep_the_engine() {
    let model = model();
    let events = Handle::new(&model, HandleOptions::default()).unwrap().submit(&image(&model, 7)).unwrap();
    assert_eq!(stop(events), StopReason::TurnEnd);
}

#[test]
fn a_request_that_fails_is_an_error_of_its_own_events() {
    let model = model();
    let handle = Handle::new(&model, HandleOptions::default()).unwrap();
    let wrong = image(&model, 1).with(|options| options.max_new_tokens(0));
    assert!(handle.submit(&wrong).unwrap_err().to_string().contains("max_new_tokens"));
    let panics = |sampler: lumina_mgpt::Sampler| sampler.step_after(Panics);
    let submission = Submission { sampler: Some(std::sync::Arc::new(panics)), ..Submission::default() };
    let failing = handle.submit_with(&image(&model, 1), submission).unwrap();
    let other = handle.submit(&image(&model, 2)).unwrap();
    assert!(failing.output().unwrap_err().to_string().contains("out of luck"));
    assert_eq!(stop(other), StopReason::TurnEnd);
    assert_eq!(handle.metrics().failed, 1);
}

#[derive(Debug)]
struct Panics;

impl lumina_mgpt::Step for Panics {
    fn apply(&self, _: &mut lumina_mgpt::Candidates, _: &lumina_mgpt::StreamState) {
        panic!("out of luck");
    }
}

#[test]
fn an_event_is_there_or_still_to_come() {
    let model = model();
    let handle = Handle::new(&model, HandleOptions::default()).unwrap();
    let mut events = handle.submit(&image(&model, 8)).unwrap();
    let mut n_events = 0;
    let last = loop {
        match events.next_within(Duration::from_millis(1)).or_else(|_| events.try_next()) {
            Ok(Some(event)) => {
                n_events += 1;
                if let Event::Done { stats, .. } = event.unwrap() {
                    break stats;
                }
            }
            Ok(None) => panic!("no end"),
            Err(lumina_mgpt::NotYet) => {}
        }
    };
    assert!(n_events > 5 && last.generated_tokens > 36);
    assert!(matches!(events.try_next(), Ok(None)) && events.next().is_none());
}

#[cfg(feature = "async")]
#[test]
fn events_are_a_stream_on_any_executor() {
    use std::pin::Pin;
    use std::sync::Arc;
    use std::task::{Context, Poll, Wake, Waker};

    use futures_core::Stream;

    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let model = model();
    let handle = Handle::new(&model, HandleOptions::default().event_buffer(2)).unwrap();
    let request = image(&model, 9);
    let mut events = handle.submit(&request).unwrap();
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let (mut tokens, mut n_pending) = (Vec::new(), 0);
    loop {
        match Pin::new(&mut events).poll_next(&mut context) {
            Poll::Ready(Some(Ok(Event::Done { tokens: all, .. }))) => tokens = all,
            Poll::Ready(Some(event)) => drop(event.unwrap()),
            Poll::Ready(None) => break,
            Poll::Pending => {
                n_pending += 1;
                std::thread::park_timeout(Duration::from_secs(60));
            }
        }
    }
    assert!(n_pending > 0);
    assert_eq!(tokens, model.generate(request).run().unwrap().tokens);
}
