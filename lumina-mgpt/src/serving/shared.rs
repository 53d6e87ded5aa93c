//! What callers and the engine's thread share.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::metrics::Metrics;
use crate::engine::{Clock, EngineOptions};
use crate::pipeline::{Lumina, SystemClock};
use crate::{Error, Result};

/// What an engine's thread may take on. The default: the engine's own bounds, 256 requests that wait, and 256 events of
/// each request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HandleOptions {
    /// Bounds of the engine.
    pub engine: EngineOptions,
    /// The most requests beside [`EngineOptions::max_sequences`]: those that wait for their first pass, and those whose
    /// readers are behind. Further ones are refused ([`Error::QueueFull`]).
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
    unseen: AtomicUsize,
    is_closing: AtomicBool,
    metrics: Mutex<Metrics>,
    has_ended: Mutex<bool>,
    ended: Condvar,
}

impl Shared {
    pub(super) fn new(model: &Lumina, options: HandleOptions) -> Self {
        Self {
            model: model.clone(),
            options,
            clock: Arc::new(SystemClock::new()),
            unseen: AtomicUsize::new(0),
            is_closing: AtomicBool::new(false),
            metrics: Mutex::default(),
            has_ended: Mutex::new(false),
            ended: Condvar::new(),
        }
    }

    pub(super) fn metrics(&self) -> MutexGuard<'_, Metrics> {
        self.metrics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The metrics, with what the thread has not seen yet.
    pub(super) fn snapshot(&self) -> Metrics {
        let mut metrics = self.metrics().clone();
        metrics.waiting += self.unseen.load(Ordering::Acquire);
        metrics
    }

    /// Takes a place among those that wait.
    ///
    /// # Errors
    /// [`Error::QueueFull`].
    pub(super) fn take_place(&self) -> Result<()> {
        let mut metrics = self.metrics();
        let unseen = self.unseen.load(Ordering::Acquire);
        let limit = self.options.max_waiting;
        // Those whose readers are behind count as well: they have memory, and nobody says for how long.
        let taken = metrics.waiting + metrics.running + metrics.held + unseen;
        if taken >= limit.saturating_add(self.options.engine.max_sequences) {
            metrics.refused += 1;
            return Err(Error::QueueFull { limit });
        }
        metrics.submitted += 1;
        self.unseen.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// The thread has seen a request, which waits in its engine from now on.
    pub(super) fn see(&self) {
        let mut metrics = self.metrics();
        metrics.waiting += 1;
        self.unseen.fetch_sub(1, Ordering::AcqRel);
    }

    /// Takes no further requests.
    pub(super) fn close(&self) {
        self.is_closing.store(true, Ordering::Release);
    }

    pub(super) fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::Acquire)
    }

    /// Says that the thread has ended.
    pub(super) fn end(&self) {
        self.close();
        *self.has_ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.ended.notify_all();
    }

    /// Waits until the thread has ended.
    pub(super) fn wait_for_end(&self) {
        let mut has_ended = self.has_ended.lock().unwrap_or_else(PoisonError::into_inner);
        while !*has_ended {
            has_ended = self.ended.wait(has_ended).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
