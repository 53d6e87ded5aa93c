//! Several tokens a pass, and the same tokens.
//!
//! Where memory is the limit, a pass of a few tokens takes hardly longer than that of one. So a pass runs *drafts* of
//! the next tokens behind the pending one, and their logits tell which of them are right:
//!
//! 1. [`Speculator::draft`] guesses the tokens of the next positions: the *window*.
//! 2. The model runs the pending token and the drafts in one pass, each with logits of its own.
//! 3. [`Speculator::verify`] draws at each position from its logits with the position's own [noise](crate::race). While
//!    drafts and draws agree, the logits are those of the true stream, and so the draws are those of plain decoding.
//!    The first draw that differs from its draft is right, too: its logits come from right tokens alone.
//! 4. The draws behind it come from a stream with a wrong token. As the noise stays, most of them stay, too: they are
//!    the next drafts, which get better from pass to pass. This is Jacobi's iteration.
//!
//! Nothing is accepted or rejected by chance, and nothing is drawn anew: **the tokens are those of plain decoding, one
//! by one**, whatever the window and the drafts are, as long as the model's logits are those of a pass of one token. So
//! a request can be replayed with another window, alone or in a batch.
//!
//! # Where drafts come from
//! - The grammar: ends of rows are known and cost no place in the window ([`DraftKind::Forced`]).
//! - [`Stale`]: what an earlier pass drew at the position, after the same token if one did.
//! - [`Neighbours`]: for positions that no pass has reached, a draw from the distributions of the neighbours in the
//!   image.
//! - [`Lookup`]: in text, what came after the same tokens before.
//! - A tree of alternatives ([`Speculation::Tree`]): other earlier draws, and those that nearly won. They are checked
//!   in the same pass, which needs a mask: a draft sees those on its own path.
//!
//! Another source is a file with a [`DraftSource`]; [`Speculator::with_sources`] takes those of a program.
//!
//! # How many
//! [`WindowChooser`] takes as many as pay, by measured times. `cargo bench -p lumina-sampling --bench speculation`
//! counts the tokens a pass on a synthetic process.
//!
//! # Sources
//! Speculative Jacobi decoding (arXiv 2410.01699) accepts a draft with probability p/q and draws the others anew.
//! Drafts that are coupled from pass to pass change less (arXiv 2510.24211). Here drafts and draws have one Gumbel
//! noise, which couples them, too, and needs no rule of acceptance. Prompt lookup is known from text models.
//!
//! # A pass
//! ```
//! use lumina_sampling::speculation::Speculator;
//! use lumina_sampling::{ImageSize, Modality, Sampler, SamplingOptions, StreamState};
//! # use lumina_sampling::Vocabulary;
//! # let vocabulary: std::sync::Arc<Vocabulary> = std::sync::Arc::new(
//! #    include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/small_vocabulary.rs")));
//! # let model = |tokens: &[u32]| vec![tokens.iter().sum::<u32>() as f32; 32];
//! let size = ImageSize::new(64, 64)?;
//! let options = SamplingOptions::default().modality(Modality::Image).image_size(size).guidance_scale(1.0);
//! let mut sampler = Sampler::new(&vocabulary, &options)?;
//! let mut speculator = Speculator::new(options.speculation);
//! let mut tokens = vec![vocabulary.bos()];
//! let mut state = StreamState::new(vocabulary.clone(), &tokens);
//! while tokens.last() != Some(&vocabulary.turn_end()) {
//!     if let Some(token) = sampler.forced(&state) {
//!         tokens.push(token);
//!         state.push(token);
//!         continue;
//!     }
//!     // Up to 8 drafts, and the logits after the pending token and after each of them.
//!     let drafts = speculator.draft(&sampler, &mut state, &tokens, 8, 100);
//!     let mut stream = tokens.clone();
//!     let mut rows = vec![model(&stream)];
//!     for draft in drafts {
//!         stream.push(draft.token);
//!         rows.push(model(&stream));
//!     }
//!     let mut accepted = Vec::new();
//!     let accept = |token| {
//!         accepted.push(token);
//!         true
//!     };
//!     speculator.verify(&mut sampler, &mut state, |row| ((&rows[row]).into(), None), accept)?;
//!     for token in accepted {
//!         tokens.push(token);
//!         state.push(token);
//!     }
//! }
//! assert_eq!(tokens.len(), 1 + size.n_tokens() + 1);
//! assert!(speculator.statistics().passes < size.n_codes());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

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
