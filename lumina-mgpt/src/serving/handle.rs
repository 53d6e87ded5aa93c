//! What callers hold of an engine that runs on a thread of its own.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::events::{self, Events};
use super::metrics::Metrics;
use super::worker::{Command, Worker};
use crate::engine::{Clock, EngineOptions, Prepared, Request, Submission};
use crate::pipeline::{Lumina, SystemClock};
use crate::{Error, Result};

/// An [`Engine`](crate::Engine) on a thread of its own. A clone is a handle to the same engine.
///
/// Requests of all callers share passes, in the order of their submission: up to
/// [`EngineOptions::max_sequences`] at once, others wait. The thread ends when the last handle and the last [`Events`]
/// are dropped, or with [`Handle::shutdown`].
///
/// ```
/// # #[cfg(feature = "flex")] {
/// use lumina_mgpt::{Compute, Event, Handle, HandleOptions, Lumina};
///
/// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../model");
/// let model = Lumina::from_pretrained(folder).compute(Compute::cpu()).load()?;
/// let handle = Handle::new(&model, HandleOptions::default())?;
///
/// // From any thread, as often as you like.
/// let request = model.text_to_image("a small red circle on a white background", (96, 96)).seed(7).request()?;
/// for event in handle.submit(&request)? {
///     match event? {
///         Event::ImageRow { row, .. } => println!("row {row}"),
///         Event::Image { image, .. } => assert_eq!(image.dimensions(), (96, 96)),
///         _ => {}
///     }
/// }
/// assert_eq!(handle.metrics().completed, 1);
/// # }
/// # Ok::<(), lumina_mgpt::Error>(())
/// ```
#[derive(Clone)]
pub struct Handle {
    caller: Caller,
}

/// What an engine's thread may take on. The default: the engine's own bounds, 256 requests that wait, and 256 events of
/// each request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HandleOptions {
    /// Bounds of the engine.
    pub engine: EngineOptions,
    /// The most requests that wait for their first pass; further ones are refused ([`Error::QueueFull`]).
    pub max_waiting: usize,
    /// The most events of a request that wait to be read, give or take those of a pass. A request whose reader is
    /// further behind is left out of passes until half of them are read.
    pub event_buffer: usize,
}

impl Default for HandleOptions {
    fn default() -> Self {
        Self { engine: EngineOptions::default(), max_waiting: 256, event_buffer: 256 }
    }
}

impl HandleOptions {
    /// Sets [`HandleOptions::engine`].
    #[must_use]
    pub fn engine(self, engine: EngineOptions) -> Self {
        Self { engine, ..self }
    }

    /// Sets [`HandleOptions::max_waiting`].
    #[must_use]
    pub fn max_waiting(self, max_waiting: usize) -> Self {
        Self { max_waiting, ..self }
    }

    /// Sets [`HandleOptions::event_buffer`].
    #[must_use]
    pub fn event_buffer(self, event_buffer: usize) -> Self {
        Self { event_buffer, ..self }
    }
}

/// What callers and the engine's thread share.
pub(super) struct Shared {
    pub(super) model: Lumina,
    pub(super) options: HandleOptions,
    pub(super) clock: Arc<dyn Clock>,
    /// Requests that the thread has not seen yet.
    pub(super) unseen: AtomicUsize,
    is_closing: AtomicBool,
    metrics: Mutex<Metrics>,
    has_ended: Mutex<bool>,
    ended: Condvar,
}

impl Shared {
    pub(super) fn metrics(&self) -> MutexGuard<'_, Metrics> {
        self.metrics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that the thread has ended.
    pub(super) fn end(&self) {
        self.is_closing.store(true, Ordering::Release);
        *self.has_ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.ended.notify_all();
    }
}

/// A way to the engine's thread, which ends when the last of them is dropped.
#[derive(Clone)]
pub(super) struct Caller(Arc<Line>);

struct Line {
    commands: Sender<Command>,
    shared: Arc<Shared>,
}

impl Caller {
    /// Has the thread look around, where it waits.
    pub(super) fn wake(&self) {
        // An engine that has ended has nothing to look at.
        let _ = self.0.commands.send(Command::Wake);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let _ = self.commands.send(Command::Close { end: Some(Instant::now()) });
    }
}

impl Handle {
    /// Starts an engine for a model on a thread of its own.
    ///
    /// # Errors
    /// [`Error::Thread`] where the system starts no thread.
    pub fn new(model: &Lumina, options: HandleOptions) -> Result<Self> {
        let (commands, received) = channel();
        let shared = Arc::new(Shared {
            model: model.clone(),
            options,
            clock: Arc::new(SystemClock::new()),
            unseen: AtomicUsize::new(0),
            is_closing: AtomicBool::new(false),
            metrics: Mutex::default(),
            has_ended: Mutex::new(false),
            ended: Condvar::new(),
        });
        Worker::start(shared.clone(), received, commands.clone())?;
        Ok(Self { caller: Caller(Arc::new(Line { commands, shared })) })
    }

    /// The model.
    pub fn model(&self) -> &Lumina {
        &self.shared().model
    }

    /// Adds a request: its prompt becomes tokens here, the engine's thread does the rest.
    ///
    /// # Errors
    /// What is wrong with the request, [`Error::QueueFull`] where too many wait, and [`Error::Stopped`] after
    /// [`Handle::shutdown`].
    pub fn submit(&self, request: &Request) -> Result<Events> {
        self.submit_with(request, Submission::default())
    }

    /// [`Handle::submit`] with what is no value. Dropping the events uses the [`Cancel`](crate::Cancel).
    ///
    /// # Errors
    /// As [`Handle::submit`].
    pub fn submit_with(&self, request: &Request, submission: Submission) -> Result<Events> {
        let shared = self.shared();
        if shared.is_closing.load(Ordering::Acquire) {
            return Err(Error::Stopped);
        }
        let cancel = submission.cancel.clone();
        let engine = &shared.options.engine;
        let prepared = Prepared::new(shared.model.parts(), engine, request, submission, &*shared.clock)?;
        self.take_place()?;
        let (feed, events) = events::channel(shared.options.event_buffer, cancel, self.caller.clone());
        let command = Command::Submit { prepared: Box::new(prepared), feed };
        self.caller.0.commands.send(command).map_err(|_| Error::Stopped)?;
        Ok(events)
    }

    /// Takes a place among those that wait.
    fn take_place(&self) -> Result<()> {
        let shared = self.shared();
        let mut metrics = shared.metrics();
        let unseen = shared.unseen.load(Ordering::Acquire);
        let free = shared.options.engine.max_sequences.saturating_sub(metrics.running + metrics.held);
        let limit = shared.options.max_waiting;
        if metrics.waiting.saturating_add(unseen) >= limit.saturating_add(free) {
            metrics.refused += 1;
            return Err(Error::QueueFull { limit });
        }
        metrics.submitted += 1;
        shared.unseen.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// What the engine does now, and has done so far.
    pub fn metrics(&self) -> Metrics {
        let shared = self.shared();
        let mut metrics = shared.metrics().clone();
        metrics.waiting += shared.unseen.load(Ordering::Acquire);
        metrics
    }

    /// Ends the engine: takes no further requests, waits until those that it has are answered, at most as long as
    /// `grace`, and cancels the rest, whose events end with [`Event::Done`](crate::Event::Done).
    pub fn shutdown(&self, grace: Duration) {
        let shared = self.shared();
        shared.is_closing.store(true, Ordering::Release);
        let _ = self.caller.0.commands.send(Command::Close { end: Instant::now().checked_add(grace) });
        let mut has_ended = shared.has_ended.lock().unwrap_or_else(PoisonError::into_inner);
        while !*has_ended {
            has_ended = shared.ended.wait(has_ended).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether the engine takes no further requests.
    pub fn is_shut_down(&self) -> bool {
        self.shared().is_closing.load(Ordering::Acquire)
    }

    fn shared(&self) -> &Shared {
        &self.caller.0.shared
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("options", &self.shared().options)
            .field("metrics", &self.metrics())
            .finish_non_exhaustive()
    }
}
