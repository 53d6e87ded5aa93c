//! What a rank can do together with the others, and why one may take no further part.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{bytes_f32, f32_bytes};
use crate::{Error, Result};

/// Ranks that compute together. Calls may come from any thread, one at a time.
pub trait Collective: fmt::Debug + Send + Sync {
    /// The number of this rank, from 0.
    fn rank(&self) -> usize;

    /// The number of ranks.
    fn size(&self) -> usize;

    /// Gives `to[rank]` to each rank, and returns what each rank gave to this one, in the order of ranks. Messages
    /// may be of different lengths; those that `to` lacks are empty.
    ///
    /// # Errors
    /// [`Error::Rank`] with the rank that ended, failed or did not come within the time limit.
    fn exchange(&self, to: Vec<Bytes>) -> Result<Vec<Bytes>>;

    /// Tells the other ranks that this one has failed, so that they end at once and not at the time limit.
    fn fail(&self, reason: &str);

    /// The bytes of each rank, in the order of ranks.
    ///
    /// # Errors
    /// As [`Collective::exchange`].
    fn all_gather(&self, own: Bytes) -> Result<Vec<Bytes>> {
        self.exchange(vec![own; self.size()])
    }

    /// Adds up `f32` values over ranks. `parts[rank]` is what this rank adds for each rank, and an empty part adds
    /// nothing. What all ranks have for this one is added to `sum`, rank 0 first; where there is no sum yet, it begins
    /// with the first part.
    ///
    /// So with the passes of a step given to the ranks in turn, calls of this sum them up in their order.
    ///
    /// # Errors
    /// As [`Collective::exchange`]; [`RankProblem::Differs`] where parts have other lengths than the sum.
    fn reduce_scatter(&self, mut parts: Vec<Vec<f32>>, sum: &mut Option<Vec<f32>>) -> Result<()> {
        parts.resize(self.size(), Vec::new());
        let mut own = Some(std::mem::take(&mut parts[self.rank()]));
        let received = self.exchange(parts.into_iter().map(f32_bytes).collect())?;
        for (rank, part) in received.into_iter().enumerate() {
            let part = match own.take_if(|_| rank == self.rank()) {
                Some(own) => own,
                None => bytes_f32(&part),
            };
            match sum {
                _ if part.is_empty() => (),
                None => *sum = Some(part),
                Some(sum) if sum.len() == part.len() => {
                    sum.iter_mut().zip(part).for_each(|(sum, value)| *sum += value);
                }
                Some(_) => return Err(Error::Rank { rank, problem: RankProblem::Differs }),
            }
        }
        Ok(())
    }

    /// The bytes of rank `from`; what the others give is left out.
    ///
    /// # Errors
    /// As [`Collective::exchange`].
    fn broadcast(&self, from: usize, bytes: Bytes) -> Result<Bytes> {
        let own = if self.rank() == from { bytes } else { Bytes::new() };
        Ok(self.all_gather(own)?.into_iter().nth(from).unwrap_or_default())
    }

    /// Returns once all ranks have called it.
    ///
    /// # Errors
    /// As [`Collective::exchange`].
    fn barrier(&self) -> Result<()> {
        self.all_gather(Bytes::new()).map(|_| ())
    }
}

/// So that several parts of a program can be the same rank, one after the other.
impl<C: Collective + ?Sized> Collective for Arc<C> {
    fn rank(&self) -> usize {
        (**self).rank()
    }

    fn size(&self) -> usize {
        (**self).size()
    }

    fn exchange(&self, to: Vec<Bytes>) -> Result<Vec<Bytes>> {
        (**self).exchange(to)
    }

    fn fail(&self, reason: &str) {
        (**self).fail(reason);
    }
}

/// Why a rank takes no further part.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RankProblem {
    /// It ended while others went on.
    #[error("has ended")]
    Ended,
    /// Its thread panicked.
    #[error("has panicked")]
    Panicked,
    /// It failed, with the message of its error.
    #[error("has failed: {0}")]
    Failed(String),
    /// It did not come within the time limit.
    #[error("did not come within {0:?}")]
    Stalled(Duration),
    /// What it gives does not fit to what this rank has.
    #[error("computes something else; start all ranks with the same program, model, data and options")]
    Differs,
}

/// A run of one rank.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

impl Collective for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn exchange(&self, mut to: Vec<Bytes>) -> Result<Vec<Bytes>> {
        to.resize(1, Bytes::new());
        Ok(to)
    }

    fn fail(&self, _: &str) {}
}
