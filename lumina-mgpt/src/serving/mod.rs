//! An engine on a thread of its own, for programs with many clients: servers, windows, queues of jobs.
//!
//! 1. `handle`: what callers hold. Requests are checked on the caller's thread, then sent to the engine's.
//! 2. `worker`: the loop of the engine's thread, and the thread that decodes images.
//! 3. `events`: the events of a request, in a bounded buffer between the two.
//! 4. `metrics`: what the engine has done so far.

mod events;
mod handle;
mod metrics;
mod worker;

pub use events::{Events, NotYet};
pub use handle::{Handle, HandleOptions};
pub use metrics::Metrics;
