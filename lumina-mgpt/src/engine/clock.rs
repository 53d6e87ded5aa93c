//! Time, as the engine is given it.

use std::time::Duration;

/// A clock. The engine reads no other, so a program can give it one of its own: tests one that stands still, a server
/// that of its event loop.
pub trait Clock: Send + Sync {
    /// Time since any fixed moment; it never goes back.
    fn now(&self) -> Duration;
}
