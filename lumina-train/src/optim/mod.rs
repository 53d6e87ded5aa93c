//! Optimizer, gradients and learning rates, for any network of parameters that have names in a checkpoint.
//!
//! [`AdamW`] updates the parameters, those of linear layers by [Muon](MuonOptions) where it is asked to;
//! [`global_norm`], [`clip_factor`] and [`scale`] clip all gradients together, as `torch.nn.utils.clip_grad_norm_`
//! does; [`EpochSchedule`] and [`StepSchedule`] give the learning rate, the one by epochs as the original fine-tunes,
//! the other by steps. Burn's own optimizer restores its state on its default device, which may be one that the
//! machine lacks, and clips each tensor by itself.

mod adamw;
mod gradients;
mod muon;
mod schedule;

pub(crate) use adamw::StateOf;
pub use adamw::{AdamW, AdamWOptions};
pub use gradients::{clip_factor, global_norm, scale};
pub use muon::MuonOptions;
pub use schedule::{EpochSchedule, StepSchedule};
