//! An engine on a thread of its own, for programs with many clients: servers, windows, queues of jobs.
//!
//! 1. `handle`: what callers hold. Requests are checked on the caller's thread, then sent to the engine's.
//! 2. `shared`: options, and what both sides share.
//! 3. `worker`: the loop of the engine's thread, and the thread that decodes images.
//! 4. `events`: the events of a request, in a bounded buffer between the two.
//! 5. `metrics`: what the engine has done so far.

mod events;
mod handle;
mod metrics;
mod shared;
mod worker;

pub use events::{Events, NotYet};
pub use handle::Handle;
pub use metrics::Metrics;
pub use shared::HandleOptions;
