//! The sources of drafts.

mod lookup;
mod stale;

pub(super) use lookup::Lookup;
pub(super) use stale::Stale;
