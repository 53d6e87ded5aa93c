//! Success and failure of all ranks together.

use bytes::Bytes;

use super::{Collective, RankProblem};
use crate::{Error, Result};

/// The result of this rank where all ranks succeeded. Where one failed, all have an error: the failed rank its own, the
/// others one that names it.
pub(crate) fn agree<T>(collective: &dyn Collective, own: Result<T>) -> Result<T> {
    let message = own.as_ref().err().map_or(Bytes::new(), |error| messages(error).into());
    let all = collective.all_gather(message);
    let own = own?;
    match all?.iter().enumerate().find(|(_, message)| !message.is_empty()) {
        Some((rank, message)) => {
            Err(Error::Rank { rank, problem: RankProblem::Failed(String::from_utf8_lossy(message).into_owned()) })
        }
        None => Ok(own),
    }
}

/// What rank 0 does for all: the others wait, and have an error where it has one. They get a default.
pub(crate) fn lead<T: Default>(collective: &dyn Collective, act: impl FnOnce() -> Result<T>) -> Result<T> {
    agree(collective, if collective.rank() == 0 { act() } else { Ok(T::default()) })
}

/// Tells the other ranks of an error, unless all have it.
pub(crate) fn tell(collective: &dyn Collective, error: &Error) {
    if !matches!(error, Error::NotFinite { .. } | Error::Rank { .. }) {
        collective.fail(&messages(error));
    }
}

/// An error with its sources.
pub(crate) fn messages(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
