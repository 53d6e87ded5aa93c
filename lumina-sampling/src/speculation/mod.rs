//! Several tokens a pass, and the same tokens.
//!
//! A pass of a few tokens takes hardly longer than that of one where memory is the limit. So a pass runs *drafts* of the
//! next tokens besides the one that is pending, and their logits tell which of them were right:
//!
//! 1. [`Speculator::draft`] guesses the tokens of the next positions: the *window*.
//! 2. The caller's model runs the pending token and the drafts in one pass, each with logits of its own.
//! 3. [`Speculator::verify`] draws at each position from these logits with the position's own [noise](crate::race).
//!    While draft and draw agree, the logits were those of the true stream, and so the draw is the one that plain
//!    decoding makes. The first that differs is right, too: its logits came from right tokens alone.
//! 4. The draws behind it came from a stream with a wrong token. As noise is by position and token, most of them stay
//!    as they are: they are the next drafts. Each pass makes them better, which is Jacobi's iteration.
//!
//! Noise is fixed beforehand, so nothing is rejected by chance and nothing is drawn anew: **the tokens are those of plain
//! decoding, one by one**, at any window and with any drafts.
//!
//! Sources: speculative Jacobi decoding (arXiv 2410.01699), which accepts with probability p/q; drafts coupled from pass
//! to pass (arXiv 2510.24211), here by one Gumbel noise for drafts and draws, after which acceptance needs no rule of its
//! own; prompt lookup for text.

mod draft;
mod memory;
mod setting;
mod source;
mod sources;
mod speculator;
mod statistics;
mod tree;
mod window;

pub use draft::{Draft, DraftKind, accepted_path};
pub use setting::Speculation;
pub use source::{DraftContext, DraftSource};
pub use sources::{Lookup, Neighbours, Stale};
pub use speculator::{Speculator, Verified};
pub use statistics::{DraftCounts, Statistics};
pub use window::WindowChooser;
