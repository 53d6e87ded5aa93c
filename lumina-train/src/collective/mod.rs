//! What the ranks of a run do together: each of them computes its passes, and they exchange gradients and weights.
//!
//! A rank is a device of this process ([`Threads`]) or a process that MPI started (`Mpi`, with the feature `mpi`);
//! [`Alone`] is a run of one rank. Over either of the first two, `Nccl` (with the feature `cuda`) moves long messages
//! from GPU to GPU. All ranks make the same calls in the same order. Sums are taken in the order of the ranks, not of
//! arrival, so they are the same to the bit each time.
//!
//! A call ends within the time limit of the collective, and where a rank does not take part, with an
//! [`Error::Rank`](crate::Error::Rank) that names it. After that all further calls fail: the run is resumed from its
//! last checkpoint.

mod agree;
#[cfg(feature = "mpi")]
mod mpi;
#[cfg(feature = "cuda")]
mod nccl;
mod ranks;
mod threads;
mod values;

pub(crate) use agree::{agree, lead, messages, tell};
#[cfg(feature = "mpi")]
pub use mpi::Mpi;
#[cfg(feature = "cuda")]
pub use nccl::Nccl;
pub use ranks::{Alone, Collective, RankProblem};
pub use threads::Threads;
pub(crate) use values::{bytes_f32, f32_bytes, gather_numbers, gather_of_same};
