//! Time, as the engine is given it.

use std::time::Duration;

use crate::Result;
use crate::error::catch;

/// A clock. The engine reads no other, so a program can give it one of its own: tests one that stands still, a server
/// that of its event loop.
pub trait Clock: Send + Sync {
    /// Time since any fixed moment; it never goes back.
    fn now(&self) -> Duration;
}

/// The time by a clock of the program.
///
/// # Errors
/// [`Error::Panicked`](crate::Error::Panicked) where the clock does.
pub(super) fn now(clock: &dyn Clock) -> Result<Duration> {
    catch("the engine's clock", || clock.now())
}
