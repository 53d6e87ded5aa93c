//! The engine's thread, and the one that decodes images.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use super::events::{Feed, Reader};
use super::shared::Shared;
use crate::engine::{DecodeResult, DecodeWork, Engine, Event, Prepared, RequestId, spawn_image_decoder};
use crate::pipeline::with_memory;
use crate::{Error, Result};

/// What the engine's thread is told.
pub(super) enum Command {
    /// A request to answer.
    Submit { prepared: Box<Prepared>, feed: Feed },
    /// An image has been decoded.
    Decoded(DecodeResult),
    /// Something has changed that it may wait for: a reader has caught up, or a request was cancelled.
    Wake,
    /// No further requests; at `end` the rest is cancelled, or never.
    Close { end: Option<Instant> },
}

/// How often requests whose readers are behind are looked at, for their deadlines.
const LOOK_AROUND: Duration = Duration::from_millis(100);

/// The state of the engine's thread.
pub(super) struct Worker {
    shared: Arc<Shared>,
    engine: Engine,
    commands: Receiver<Command>,
    images: Sender<DecodeWork>,
    requests: BTreeMap<RequestId, Feed>,
    closing: Option<Option<Instant>>,
}

impl Worker {
    /// Starts both threads.
    ///
    /// # Errors
    /// [`Error::Thread`].
    pub(super) fn start(shared: Arc<Shared>, commands: Receiver<Command>, decoded: Sender<Command>) -> Result<()> {
        let no_thread = |source| Error::Thread { source };
        let done = move |result| decoded.send(Command::Decoded(result)).is_ok();
        let (images, _) = spawn_image_decoder(shared.clock.clone(), done).map_err(no_thread)?;
        let engine = shared.model.engine(shared.options.engine.clone(), shared.clock.clone());
        let worker = Self { shared, engine, commands, images, requests: BTreeMap::new(), closing: None };
        let thread = std::thread::Builder::new().name("lumina-engine".to_owned());
        thread.spawn(move || worker.run()).map(drop).map_err(no_thread)
    }

    fn run(mut self) {
        while !self.has_ended() {
            self.listen();
            self.look_at_readers();
            let had_passes = self.engine.has_passes();
            let started = Instant::now();
            let events = self.engine.step();
            while let Some(work) = self.engine.next_work() {
                self.decode(work);
            }
            for (id, event) in events {
                self.hand_out(id, event);
            }
            self.note(had_passes.then(|| started.elapsed()));
        }
    }

    fn has_ended(&self) -> bool {
        self.closing.is_some() && self.requests.is_empty() && self.engine.is_idle()
    }

    /// Takes all commands that are there, and waits for one where there is nothing else to do.
    fn listen(&mut self) {
        if !self.engine.has_passes() {
            // Once it has come, what is left is cancelled, and an image at most is waited for.
            let until = self.closing.flatten().and_then(|end| end.checked_duration_since(Instant::now()));
            let look_around = (!self.requests.is_empty()).then_some(LOOK_AROUND);
            let command = match until.into_iter().chain(look_around).min() {
                Some(time) => match self.commands.recv_timeout(time) {
                    Ok(command) => Some(command),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => Some(Command::Close { end: Some(Instant::now()) }),
                },
                None => Some(self.commands.recv().unwrap_or(Command::Close { end: Some(Instant::now()) })),
            };
            command.into_iter().for_each(|command| self.obey(command));
        }
        while let Ok(command) = self.commands.try_recv() {
            self.obey(command);
        }
        if self.closing.flatten().is_some_and(|end| Instant::now() >= end) {
            self.requests.keys().for_each(|&id| self.engine.cancel(id));
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Submit { prepared, feed } => {
                let id = self.engine.push(*prepared);
                self.shared.see();
                self.requests.insert(id, feed);
            }
            Command::Decoded(result) => self.engine.complete(result),
            Command::Wake => {}
            Command::Close { end } => {
                // The earlier end counts.
                let ends = [self.closing.flatten(), end];
                self.closing = Some(ends.into_iter().flatten().min());
            }
        }
    }

    /// Cancels what nobody reads, and goes on with what readers have caught up with.
    fn look_at_readers(&mut self) {
        for (&id, feed) in &self.requests {
            match feed.reader() {
                Reader::Gone => self.engine.abandon(id),
                Reader::Cancelled => self.engine.cancel(id),
                Reader::Ready => self.engine.resume(id),
                Reader::Behind => {}
            }
        }
    }

    /// Has an image decoded; here, where the thread for it has ended.
    fn decode(&mut self, work: DecodeWork) {
        if let Err(unsent) = self.images.send(work) {
            let result = unsent.0.run(&*self.shared.clock);
            self.engine.complete(result);
        }
    }

    fn hand_out(&mut self, id: RequestId, event: Result<Event>) {
        let mut metrics = self.shared.metrics();
        match &event {
            Ok(Event::Done { stats, .. }) => metrics.add(stats),
            Ok(_) => {}
            Err(_) => metrics.failed += 1,
        }
        drop(metrics);
        let is_last = matches!(event, Ok(Event::Done { .. }) | Err(_));
        let Some(feed) = self.requests.get(&id) else { return };
        let reader = feed.push(event.map(with_memory));
        if is_last {
            self.requests.remove(&id);
        } else if reader == Reader::Behind {
            self.engine.hold(id);
        }
    }

    /// Notes what the engine does, and the time of a pass.
    fn note(&mut self, pass: Option<Duration>) {
        let mut metrics = self.shared.metrics();
        metrics.waiting = self.engine.n_waiting();
        metrics.running = self.engine.n_running();
        metrics.held = self.engine.n_held();
        metrics.kv_cache_bytes = self.engine.kv_bytes();
        if let Some(time) = pass {
            metrics.passes += 1;
            metrics.pass_time += time;
        }
    }
}

impl Drop for Worker {
    /// Whatever ended it, nobody waits for ever: feeds end with an error when they are dropped.
    fn drop(&mut self) {
        self.requests.clear();
        self.shared.end();
    }
}
