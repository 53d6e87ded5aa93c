//! The sources of drafts.

mod lookup;
mod neighbours;
mod runner_up;
mod stale;

pub use lookup::Lookup;
pub use neighbours::Neighbours;
pub(super) use runner_up::runner_ups;
pub use stale::Stale;
