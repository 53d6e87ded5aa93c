//! Chooses the next token of a stream in which text and images are mixed: classifier-free guidance, the grammar of
//! images, top-k and its relatives, and seeded draws.
//!
//! It needs no tensor library: tokens are `u32`, logits are `&[f32]`. A program with a transformer of its own can use
//! this crate alone.
//!
//! # The pipeline
//!
//! A [`StreamState`] follows the stream token by token and knows, without looking back, what the next one is part of:
//! text, the size of an image, a row of it. A [`Sampler`] takes that state and a row of logits through these steps:
//!
//! | | step | in text | in an image |
//! | --- | --- | --- | --- |
//! | 1 | [guidance](guide) | | once both sizes are there |
//! | 2 | [grammar](Grammar) | free, or as [`Modality`] says | row-ends and the image's end where they are due, image tokens elsewhere |
//! | 3 | [repetition penalty](RepetitionPenalty) | where asked for | |
//! | 4 | [top-k](TopK) | `text_top_k` | `image_top_k` |
//! | 5 | [temperature](Temperature) | yes | yes |
//! | 6 | [top-p](TopP), [min-p](MinP) | where asked for | where asked for |
//! | 7 | [draw](DrawKey) | yes | yes |
//!
//! The order is the original's. Guidance, grammar and top-k are its own *logits processors*, which Hugging Face's
//! `generate` runs before temperature: **top-k comes before temperature**. Top-p and min-p are Hugging Face's
//! *warpers*, which come after temperature, in this order. The repetition penalty is Hugging Face's too and runs ahead
//! of the original's processors: top-k must see what it did. (Guidance and grammar come first here, which changes
//! nothing: in an image there is no penalty, and in text no guidance.)
//!
//! Steps 3 to 6 implement one small trait, [`Step`], and so can [yours](Step#your-own-step); it runs ahead of them
//! ([`Sampler::step_before`]) or after ([`Sampler::step_after`]).
//!
//! # A generation loop
//!
//! ```
//! use std::sync::Arc;
//! use lumina_sampling::{ImageSize, Modality, Sampler, SamplingOptions, StreamState, Vocabulary};
//!
//! // A program takes names and ids from a tokenizer file.
//! # const _: &str = stringify!(
//! let vocabulary = Arc::new(Vocabulary::from_tokens(names_and_ids)?);
//! # );
//! # let vocabulary: Arc<Vocabulary> = Arc::new(include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/small_vocabulary.rs")));
//! let model = |tokens: &[u32]| vec![tokens.len() as f32; 32];
//!
//! let options = SamplingOptions::default().seed(7).modality(Modality::Image).image_size(ImageSize::new(64, 32)?);
//! let mut sampler = Sampler::new(&vocabulary, &options)?;
//!
//! let mut stream = vec![vocabulary.bos()];
//! let mut state = StreamState::new(vocabulary.clone(), &stream);
//! while stream.last() != Some(&vocabulary.turn_end()) {
//!     let token = match sampler.forced(&state) {
//!         Some(token) => token, // no pass of the model
//!         None => {
//!             let unconditional = sampler.unconditional(&state).map(|seen| model(&stream[seen]));
//!             sampler.sample(&model(&stream), unconditional.as_ref().map(Into::into), &state)?
//!         }
//!     };
//!     stream.push(token);
//!     state.push(token);
//! }
//! // <s>, the image of 2 rows of 4 tokens, the end of the turn.
//! assert_eq!(stream.len(), 1 + ImageSize::new(64, 32)?.n_tokens() + 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Replay, batches, several tokens a pass
//!
//! A token depends on the options, the state and its logits, and its random number on seed, branch and position
//! ([`DrawKey`]). So a request gives the same tokens alone or in a batch, and a position can be sampled before the one
//! ahead of it is settled. [`Sampler::candidates`] gives the distribution itself, as methods need that accept or reject
//! proposed tokens.
//!
//! # Memory and speed
//!
//! Once its buffers have grown, a draw allocates nothing. In an image the steps touch the image tokens alone, however
//! large the vocabulary. `cargo bench -p lumina-sampling` shows the time of a draw beside that of reading its logits
//! once.
//!
//! # Untrusted input
//!
//! Tokens, logits and options of any kind give a token or an [`Error`], never a panic. Streams that a correct decoder
//! never makes are sampled as the original does; [`Phase::Malformed`] tells.
#![forbid(unsafe_code)]

mod candidates;
mod draw;
mod error;
mod grammar;
mod guidance;
mod logits_row;
mod options;
mod sampler;
mod state;
mod step;
mod steps;

pub use candidates::Candidates;
pub use draw::DrawKey;
pub use error::{Error, Result};
pub use grammar::{Allowed, Grammar, Modality};
pub use guidance::guide;
pub use logits_row::LogitsRow;
pub use options::SamplingOptions;
pub use sampler::Sampler;
pub use state::{Snapshot, StreamState};
pub use step::Step;
pub use steps::{MinP, RepetitionPenalty, Temperature, TopK, TopP};

#[doc(no_inline)]
pub use lumina_core::layout::{ImageProgress, Phase, Slot};
#[doc(no_inline)]
pub use lumina_core::{ImageSize, Vocabulary};

#[cfg(test)]
fn small_vocabulary() -> Vocabulary {
    include!("../tests/support/small_vocabulary.rs")
}
