//! Events as they happen: an iterator over an engine.

use std::collections::VecDeque;
use std::sync::Arc;

use super::clock::{SystemClock, peak_resident_bytes};
use super::lumina::Lumina;
use super::output::Output;
use crate::Result;
use crate::engine::{Cancel, DecodeResult, Engine, EngineOptions, Event, ImageDecoder, Request, RequestId, Submission};

/// The events of one or more answers, generated as they are asked for: each `next` runs passes until there is one.
///
/// Images are decoded on another thread, so that in a batch no other request waits for them. Dropping the stream ends
/// the generation. Made by [`Generation::stream`](crate::Generation::stream); it does not borrow the model, so it can
/// be moved to another thread.
#[derive(Debug)]
pub struct Stream {
    engine: Engine,
    images: ImageDecoder,
    /// The caller's index of each request.
    requests: Vec<(RequestId, usize)>,
    events: VecDeque<(usize, Result<Event>)>,
}

impl Stream {
    pub(super) fn new(model: &Lumina) -> Self {
        let clock = Arc::new(SystemClock::new());
        Self {
            engine: model.engine(EngineOptions::default().max_sequences(usize::MAX), clock.clone()),
            images: ImageDecoder::new(clock),
            requests: Vec::new(),
            events: VecDeque::new(),
        }
    }

    /// Adds the request at `index` of the caller's batch.
    pub(super) fn submit(&mut self, index: usize, request: &Request, submission: Submission) -> Result<()> {
        let id = self.engine.submit_with(request, submission)?;
        self.requests.push((id, index));
        Ok(())
    }

    /// The next event with the index of its request in the batch.
    fn advance(&mut self) -> Option<(usize, Result<Event>)> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            if self.engine.is_idle() {
                return None;
            }
            while let Some(work) = self.engine.next_work() {
                self.images.submit(work);
            }
            // Where only images are missing, there is nothing else to do meanwhile.
            let done: Option<DecodeResult> =
                if self.engine.has_passes() { self.images.try_next() } else { self.images.wait() };
            if let Some(done) = done {
                self.engine.complete(done);
            }
            for (id, event) in self.engine.step() {
                let index = self.requests.iter().find(|(request, _)| *request == id).map_or(0, |(_, index)| *index);
                self.events.push_back((index, event.map(with_memory)));
            }
        }
    }
}

/// The event with what the process has taken.
pub(crate) fn with_memory(mut event: Event) -> Event {
    if let Event::Done { stats, .. } = &mut event {
        stats.peak_resident_bytes = peak_resident_bytes();
    }
    event
}

impl Iterator for Stream {
    type Item = Result<Event>;

    fn next(&mut self) -> Option<Self::Item> {
        self.advance().map(|(_, event)| event)
    }
}

/// The events of several answers, each with the index of its request.
#[derive(Debug)]
pub struct BatchStream(Stream);

impl Iterator for BatchStream {
    type Item = (usize, Result<Event>);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.advance()
    }
}

impl Lumina {
    /// Generates several answers in the same passes over the weights, and returns each event as it happens.
    ///
    /// A request that cannot be begun has its error as its only event; the others are not affected.
    pub fn stream_batch(&self, requests: &[Request]) -> BatchStream {
        self.stream_batch_with(requests, &Cancel::new())
    }

    /// [`Lumina::stream_batch`] that another thread can end.
    pub fn stream_batch_with(&self, requests: &[Request], cancel: &Cancel) -> BatchStream {
        let mut stream = Stream::new(self);
        for (index, request) in requests.iter().enumerate() {
            let submission = Submission { cancel: cancel.clone(), ..Submission::default() };
            if let Err(error) = stream.submit(index, request, submission) {
                stream.events.push_back((index, Err(error)));
            }
        }
        BatchStream(stream)
    }

    /// Generates several answers in the same passes over the weights, to the end; in the order of the requests.
    pub fn run_batch(&self, requests: &[Request]) -> Vec<Result<Output>> {
        let mut outputs: Vec<Result<Output>> = requests.iter().map(|_| Ok(Output::default())).collect();
        for (index, event) in self.stream_batch(requests) {
            match (&mut outputs[index], event) {
                (Ok(output), Ok(event)) => output.add(event),
                (slot, Err(error)) => *slot = Err(error),
                (Err(_), Ok(_)) => {}
            }
        }
        outputs
    }
}
