//! The events of a request, on their way from the engine's thread to whoever reads them.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use crate::engine::Event;
use crate::pipeline::Output;
use crate::{Error, Result};

/// Has the engine's thread look around, where it waits. It ends when nobody can wake it any more.
pub(super) trait Wake: Send + Sync {
    fn wake(&self);
}

/// What both sides share.
struct Channel {
    state: Mutex<State>,
    changed: Condvar,
    /// The engine goes on with the request while fewer events wait.
    capacity: usize,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Result<Event>>,
    has_ended: bool,
    /// The reader wants no more.
    is_cancelled: bool,
    /// The reader is gone.
    is_dropped: bool,
    /// The engine waits for the reader.
    is_held: bool,
    waker: Option<Waker>,
}

impl Channel {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn notify(&self, mut state: MutexGuard<'_, State>) {
        let waker = state.waker.take();
        drop(state);
        self.changed.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The engine's end.
pub(super) struct Feed(Arc<Channel>);

/// What the reader is up to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    /// It takes more events.
    Ready,
    /// As many events wait as may.
    Behind,
    /// It wants no more but what is there.
    Cancelled,
    /// It is gone.
    Gone,
}

/// Both ends of a request's events; the reader's wakes `engine`.
pub(super) fn channel(capacity: usize, engine: Arc<dyn Wake>) -> (Feed, Events) {
    let channel = Arc::new(Channel { state: Mutex::default(), changed: Condvar::new(), capacity: capacity.max(1) });
    (Feed(channel.clone()), Events { channel, engine })
}

impl Feed {
    /// Adds an event. A preview takes the place of one that nobody has read: they are large, and it shows more.
    pub(super) fn push(&self, event: Result<Event>) -> Reader {
        let mut state = self.0.lock();
        if state.is_dropped {
            return Reader::Gone;
        }
        if matches!(event, Ok(Event::Preview(_))) {
            state.waiting.retain(|event| !matches!(event, Ok(Event::Preview(_))));
        }
        state.has_ended |= matches!(event, Ok(Event::Done { .. }) | Err(_));
        state.waiting.push_back(event);
        let is_behind = state.waiting.len() >= self.0.capacity && !state.has_ended;
        state.is_held = is_behind;
        self.0.notify(state);
        if is_behind { Reader::Behind } else { Reader::Ready }
    }

    /// What the reader is up to; one that was behind is so until half of the events are read.
    pub(super) fn reader(&self) -> Reader {
        let mut state = self.0.lock();
        if state.is_dropped {
            return Reader::Gone;
        }
        if state.is_cancelled {
            return Reader::Cancelled;
        }
        state.is_held &= state.waiting.len() > self.0.capacity / 2;
        if state.is_held { Reader::Behind } else { Reader::Ready }
    }
}

impl Drop for Feed {
    /// The reader is not left waiting.
    fn drop(&mut self) {
        let mut state = self.0.lock();
        if !state.has_ended {
            state.has_ended = true;
            state.waiting.push_back(Err(Error::Stopped));
        }
        self.0.notify(state);
    }
}

/// The events of a request that an engine's thread answers: an iterator that waits for each.
///
/// Its last item is [`Event::Done`] or an error. Dropping it cancels the request within a pass. A reader that falls
/// behind holds its own request up, and no other: see [`HandleOptions::event_buffer`](super::HandleOptions). With the
/// feature `async` it is also a `futures` stream, on any executor.
pub struct Events {
    channel: Arc<Channel>,
    engine: Arc<dyn Wake>,
}

impl Events {
    /// The next event, if it is there now; `Ok(None)` after the last one.
    ///
    /// # Errors
    /// [`NotYet`] where it is still to come.
    pub fn try_next(&mut self) -> std::result::Result<Option<Result<Event>>, NotYet> {
        self.pop(self.channel.lock()).map_err(|_| NotYet)
    }

    /// Waits for the next event, at most this long; `Ok(None)` after the last one.
    ///
    /// # Errors
    /// [`NotYet`] where it is still to come.
    pub fn next_within(&mut self, timeout: Duration) -> std::result::Result<Option<Result<Event>>, NotYet> {
        let end = Instant::now().checked_add(timeout);
        let channel = self.channel.clone();
        let mut state = channel.lock();
        loop {
            state = match self.pop(state) {
                Ok(event) => return Ok(event),
                Err(state) => state,
            };
            let left = end.map_or(timeout, |end| end.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return Err(NotYet);
            }
            state = channel.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits for all of the answer.
    ///
    /// # Errors
    /// What the request failed with.
    pub fn output(self) -> Result<Output> {
        let mut output = Output::default();
        for event in self {
            output.add(event?);
        }
        Ok(output)
    }

    /// Ends the request within a pass, with what is there: its events end with [`Event::Done`].
    pub fn cancel(&self) {
        self.channel.lock().is_cancelled = true;
        self.engine.wake();
    }

    /// What waits: the next event, or `None` after the last. The state is handed back where it is still to come.
    fn pop<'a>(
        &self,
        mut state: MutexGuard<'a, State>,
    ) -> std::result::Result<Option<Result<Event>>, MutexGuard<'a, State>> {
        let event = state.waiting.pop_front();
        if event.is_none() && !state.has_ended {
            return Err(state);
        }
        let wakes = state.is_held && state.waiting.len() <= self.channel.capacity / 2;
        drop(state);
        if wakes {
            self.engine.wake();
        }
        Ok(event)
    }

    /// [`Events::try_next`] that has `waker` woken when there is an event.
    #[cfg_attr(not(feature = "async"), allow(dead_code, reason = "streams alone need it"))]
    fn poll(&mut self, waker: &Waker) -> Poll<Option<Result<Event>>> {
        match self.pop(self.channel.lock()) {
            Ok(event) => Poll::Ready(event),
            Err(mut state) => {
                state.waker = Some(waker.clone());
                Poll::Pending
            }
        }
    }
}

/// There is no event yet: [`Events::try_next`], [`Events::next_within`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotYet;

impl Iterator for Events {
    type Item = Result<Event>;

    fn next(&mut self) -> Option<Self::Item> {
        let channel = self.channel.clone();
        let mut state = channel.lock();
        loop {
            state = match self.pop(state) {
                Ok(event) => return event,
                Err(state) => channel.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

#[cfg(feature = "async")]
impl futures_core::Stream for Events {
    type Item = Result<Event>;

    fn poll_next(self: std::pin::Pin<&mut Self>, context: &mut std::task::Context<'_>) -> Poll<Option<Result<Event>>> {
        self.get_mut().poll(context.waker())
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let mut state = self.channel.lock();
        state.is_dropped = true;
        state.waiting.clear();
        let has_ended = state.has_ended;
        drop(state);
        if !has_ended {
            self.engine.wake();
        }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.channel.lock();
        f.debug_struct("Events")
            .field("waiting", &state.waiting.len())
            .field("has_ended", &state.has_ended)
            .finish_non_exhaustive()
    }
}
