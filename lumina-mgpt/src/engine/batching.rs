//! Continuous batching: requests in, events out, a pass at a time.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use super::clock::{Clock, now};
use super::entry::Entry;
use super::event::Event;
use super::event_decoder::EventDecoder;
use super::images::{DecodeResult, DecodeWork};
use super::options::{EngineOptions, RequestId, Submission};
use super::prepared::Prepared;
use super::request::Request;
use super::scheduler::Scheduler;
use super::step::{self, Stepped};
use super::windows;
use crate::error::catch;
use crate::model::ModelParts;
use crate::trace::event;
use crate::{Error, Result};

/// Answers requests, as many as there are in each pass over the weights.
///
/// The same request gives the same tokens whatever else runs, unless the transformer computes in Burn's tensors
/// ([`Compute::in_tensors`](crate::Compute::in_tensors)). It owns what it needs, is `Send`, and does nothing unless
/// called: a server calls [`Engine::step`] on a thread of its own. Made by [`Lumina::engine`](crate::Lumina::engine).
///
/// ```
/// # use std::sync::Arc;
/// # use lumina_mgpt::{Compute, Lumina};
/// use lumina_mgpt::{Conversation, EngineOptions, Event, Request, SystemClock};
/// # let data = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/reference");
/// # let (folder, images) = (format!("{data}/model/prenorm"), format!("{data}/vq"));
/// # let model = Lumina::from_pretrained(folder).image_tokenizer(images).compute(Compute::cpu()).load()?;
/// let clock = Arc::new(SystemClock::new());
/// let mut engine = model.engine(EngineOptions::default().kv_budget_bytes(1 << 30), clock.clone());
/// let mut request = Request::new(Conversation::new().human("Hello"));
/// request.options.max_new_tokens = 4;
/// let id = engine.submit(&request)?;
/// let mut tokens = Vec::new();
/// while !engine.is_idle() {
///     for (request, event) in engine.step() {
///         assert_eq!(request, id);
///         if let Event::Done { tokens: all, .. } = event? {
///             tokens = all;
///         }
///     }
///     // Images are decoded where the program likes: here, at once.
///     while let Some(work) = engine.next_work() {
///         engine.complete(work.run(&*clock));
///     }
/// }
/// assert_eq!(tokens.len(), 4);
/// # Ok::<(), lumina_mgpt::Error>(())
/// ```
pub struct Engine {
    model: Arc<ModelParts>,
    options: EngineOptions,
    clock: Arc<dyn Clock>,
    scheduler: Scheduler,
    /// Entries whose sequence has ended and whose images are being decoded.
    ending: Vec<Entry>,
    work: VecDeque<DecodeWork>,
    errors: VecDeque<(RequestId, Error)>,
    next_id: u64,
}

impl Engine {
    pub(crate) fn new(model: Arc<ModelParts>, options: EngineOptions, clock: Arc<dyn Clock>) -> Self {
        // The field is public, and none would wait for ever.
        let options = EngineOptions { max_sequences: options.max_sequences.max(1), ..options };
        Self {
            model,
            options,
            clock,
            scheduler: Scheduler::default(),
            ending: Vec::new(),
            work: VecDeque::new(),
            errors: VecDeque::new(),
            next_id: 0,
        }
    }

    /// Adds a request. It runs from the next [`Engine::step`] on for which there is memory, in the order of submission.
    ///
    /// # Errors
    /// What is wrong with the request, [`Error::KvLimit`] where its keys and values exceed the limit, and
    /// [`Error::KvBudget`] where it can never fit the budget. Nothing has been added then.
    pub fn submit(&mut self, request: &Request) -> Result<RequestId> {
        self.submit_with(request, Submission::default())
    }

    /// [`Engine::submit`] with what is no value.
    ///
    /// # Errors
    /// As [`Engine::submit`].
    pub fn submit_with(&mut self, request: &Request, submission: Submission) -> Result<RequestId> {
        let prepared = Prepared::new(&self.model, &self.options, request, submission, &*self.clock)?;
        Ok(self.push(prepared))
    }

    /// Adds a request that has been checked.
    pub(crate) fn push(&mut self, prepared: Prepared) -> RequestId {
        let Prepared { sequence, options } = prepared;
        let id = RequestId(self.next_id);
        self.next_id += 1;
        event!(
            DEBUG,
            request = id.0,
            prompt_tokens = sequence.stats.prompt_tokens,
            max_new_tokens = options.max_new_tokens,
            waiting = self.scheduler.n_waiting(),
            "request submitted"
        );
        let events = EventDecoder::new(id, self.model.clone(), options);
        self.scheduler.push(Entry { id, sequence, events });
        id
    }

    /// Ends a request before its next pass, with what is there: its events end with [`Event::Done`]. Nothing happens
    /// where it has ended already.
    pub fn cancel(&mut self, id: RequestId) {
        if let Some(entry) = self.scheduler.entries_mut().find(|entry| entry.id == id) {
            entry.sequence.cancel();
        }
    }

    /// [`Engine::cancel`] of a request whose events nobody reads: its images are not decoded.
    pub(crate) fn abandon(&mut self, id: RequestId) {
        self.work.retain(|work| work.request != id);
        if let Some(entry) = self.scheduler.entries_mut().chain(&mut self.ending).find(|entry| entry.id == id) {
            entry.sequence.cancel();
            entry.events.abandon();
        }
    }

    /// Leaves a request out of passes until it is [resumed](Engine::resume), because who reads its events is behind.
    /// It keeps its keys and values, unless others need them. Cancelling and deadlines hold for it, too.
    pub fn hold(&mut self, id: RequestId) {
        self.scheduler.hold(id);
    }

    /// Lets a request that was [held](Engine::hold) take part in passes again. Nothing happens where it is not held.
    pub fn resume(&mut self, id: RequestId) {
        self.scheduler.resume(id);
    }

    /// Whether nothing is left to do: no request runs or waits, and none waits for an image.
    pub fn is_idle(&self) -> bool {
        self.scheduler.is_empty() && self.ending.is_empty() && self.errors.is_empty()
    }

    /// Whether a step would run a pass. Otherwise, unless the engine [is idle](Engine::is_idle), it waits for
    /// [`Engine::complete`] or [`Engine::resume`].
    pub fn has_passes(&self) -> bool {
        self.scheduler.has_passes()
    }

    /// Number of requests that take part in passes.
    pub fn n_running(&self) -> usize {
        self.scheduler.running.len()
    }

    /// Number of requests that are [held](Engine::hold).
    pub fn n_held(&self) -> usize {
        self.scheduler.n_held()
    }

    /// Number of requests that wait for memory, or for their first pass.
    pub fn n_waiting(&self) -> usize {
        self.scheduler.n_waiting()
    }

    /// Bytes of keys and values of all sequences.
    pub fn kv_bytes(&self) -> u64 {
        self.scheduler.kv_bytes()
    }

    /// Makes one pass over the weights for all requests that run, and returns the events that are there, each with its
    /// request; those of one request are in order. A request that fails has its error as its last event, and a panic of
    /// its sampling steps is such a failure. The others go on.
    pub fn step(&mut self) -> Vec<(RequestId, Result<Event>)> {
        let mut events = Vec::new();
        // Tokens that are there without a pass, in the beginning, are events before the first one.
        self.decode_events();
        self.emit(&mut events);
        if !events.is_empty() {
            return events;
        }
        match now(&*self.clock) {
            Ok(now) => self.scheduler.entries_mut().for_each(|entry| entry.sequence.check_deadline(now)),
            Err(error) => {
                let error = Arc::new(error);
                for entry in self.scheduler.entries_mut() {
                    entry.sequence.fail();
                    self.errors.push_back((entry.id, Error::Pass(error.clone())));
                }
            }
        }
        self.end();
        if let Some((index, error)) = self.scheduler.schedule(&self.options) {
            let entry = &mut self.scheduler.running[index];
            entry.sequence.fail();
            self.errors.push_back((entry.id, error));
        }
        windows::draft(&self.model, &mut self.scheduler, &self.options);
        self.reserve();
        self.end();
        match step::step(&self.model.transformer, &mut self.scheduler.running, &*self.clock) {
            Ok(Stepped { failed, decoded, time }) => {
                event!(TRACE, requests = self.scheduler.running.len(), ?time, "pass");
                windows::note(&self.model, &mut self.scheduler.running, decoded, time);
                for (index, error) in failed {
                    self.errors.push_back((self.scheduler.running[index].id, error));
                }
            }
            Err(error) => {
                // The device, or the clock, failed under all of them.
                let error = Arc::new(error);
                for entry in &mut self.scheduler.running {
                    entry.sequence.fail();
                    self.errors.push_back((entry.id, Error::Pass(error.clone())));
                }
            }
        }
        self.decode_events();
        self.emit(&mut events);
        events
    }

    /// An image to be decoded, if there is one: see [`DecodeWork`].
    pub fn next_work(&mut self) -> Option<DecodeWork> {
        self.work.pop_front()
    }

    /// Takes a decoded image back; its events are those of the next [`Engine::step`].
    pub fn complete(&mut self, result: DecodeResult) {
        let id = result.request;
        let mut entries = self.scheduler.entries_mut().chain(&mut self.ending);
        if let Some(entry) = entries.find(|entry| entry.id == id)
            && let Err(error) = entry.events.complete(result)
        {
            entry.sequence.fail();
            self.errors.push_back((id, error));
        }
    }

    /// Takes memory for the keys and values of the next pass. Sequences for which there is none fail, and no others.
    fn reserve(&mut self) {
        let limit = self.model.limits.kv_cache_bytes;
        for entry in &mut self.scheduler.running {
            if entry.sequence.is_done() {
                continue;
            }
            let mut reserved = entry.sequence.reserve(limit);
            if reserved.is_err() && entry.sequence.n_drafts() > 0 {
                entry.sequence.drop_drafts();
                reserved = entry.sequence.reserve(limit);
            }
            if let Err(error) = reserved {
                entry.sequence.fail();
                self.errors.push_back((entry.id, error));
            }
        }
    }

    /// Decodes the new tokens of all sequences.
    fn decode_events(&mut self) {
        for entry in self.scheduler.entries_mut().chain(&mut self.ending) {
            if self.errors.iter().any(|(id, _)| *id == entry.id) {
                continue;
            }
            if let Err(error) = entry.events.decode(&entry.sequence, &mut self.work) {
                entry.sequence.fail();
                self.errors.push_back((entry.id, error));
            }
        }
        self.end();
    }

    /// Moves the sequences that have ended out of the passes; their memory is free then.
    fn end(&mut self) {
        let ending = &mut self.ending;
        self.scheduler.remove_ended(|mut entry| {
            entry.sequence.release();
            ending.push(entry);
        });
    }

    /// Takes the events that are ready.
    fn emit(&mut self, events: &mut Vec<(RequestId, Result<Event>)>) {
        for entry in self.scheduler.entries_mut().chain(&mut self.ending) {
            let failed = self.errors.iter().any(|(id, _)| *id == entry.id);
            while let Some(event) = entry.events.next() {
                // A request that failed has not ended well.
                if !(failed && matches!(event, Event::Done { .. })) {
                    #[cfg(feature = "tracing")]
                    if let Event::Done { stats, .. } = &event {
                        event!(DEBUG, request = entry.id.0, ?stats, "request ended");
                    }
                    events.push((entry.id, Ok(event)));
                }
            }
        }
        let failed: Vec<_> = self.errors.drain(..).collect();
        for (_id, _error) in &failed {
            event!(WARN, request = _id.0, error = %_error, "request failed");
        }
        self.work.retain(|work| failed.iter().all(|(id, _)| *id != work.request));
        let is_over = |entry: &mut Entry| entry.events.is_drained() || failed.iter().any(|(id, _)| *id == entry.id);
        for entry in self.ending.extract_if(.., is_over) {
            // A sampling step of the program is dropped with it. The request has had its last event.
            let _ = catch("dropping a request", || drop(entry));
        }
        events.extend(failed.into_iter().map(|(id, error)| (id, Err(error))));
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("options", &self.options)
            .field("running", &self.scheduler.running.len())
            .field("waiting", &self.scheduler.n_waiting())
            .finish_non_exhaustive()
    }
}
