//! Chooses the next token of a stream in which text and images are mixed: classifier-free guidance, the grammar of
//! images, top-k and its relatives, and seeded draws.
//!
//! It needs no tensor library: tokens are `u32`, logits are `&[f32]`. A program with its own transformer can use this
//! crate alone.
//!
//! # The pipeline
//!
//! ```text
//!   tokens so far              logits of the model
//!         │                            │
//!         ▼                            ▼
//!    StreamState ──────────────▶  1 guidance     guide
//!    phase, text                       ▼
//!         ├────────────────────▶  2 grammar      Grammar, Candidates
//!         │                            ▼
//!         └────────────────────▶  3 steps        Step
//!                                      ▼
//!                                 4 draw         race
//!                                      ▼
//!                               the next token
//! ```
//!
//! 1. **Guidance.** Inside an image the model runs twice: with the whole stream, and with the image alone. [`guide`]
//!    combines the two rows of logits. [`Sampler::unconditional`] says what the second branch sees.
//! 2. **Grammar.** [`StreamState`] follows the stream token by token and knows its [`Phase`]: text, the size of an
//!    image, its rows. [`Grammar`] derives the [`Allowed`] tokens: a row-end after each row, image tokens within it,
//!    text elsewhere; [`Modality`] and a fixed image size restrict it. Where one token is allowed, it is
//!    [forced](Sampler::forced), and the model need not run. [`Candidates`] holds the allowed tokens and their logits.
//! 3. **Steps.** Each [`Step`] changes logits or drops candidates:
//!
//!    | order | step | in text | in an image |
//!    | --- | --- | --- | --- |
//!    | 1 | [yours](Step#your-own-step), by [`Sampler::step_before`] | | |
//!    | 2 | [repetition penalty](RepetitionPenalty) | `repetition_penalty` | |
//!    | 3 | [top-k](TopK) | `text_top_k` | `image_top_k` |
//!    | 4 | [temperature](Temperature) | `temperature` | `temperature` |
//!    | 5 | [top-p](TopP) | `top_p` | `top_p` |
//!    | 6 | [min-p](MinP) | `min_p` | `min_p` |
//!    | 7 | [yours](Step#your-own-step), by [`Sampler::step_after`] | | |
//! 4. **Draw.** [`Candidates::draw`] is a [race] with noise by [`DrawKey`]; [`Candidates::most_likely`] needs none.
//!
//! [`SamplingOptions`] selects and configures all of this, and [`Sampler`] runs it.
//!
//! The order is the original's. Guidance, grammar and top-k are its own *logits processors*, which Hugging Face's
//! `generate` runs before temperature: **top-k comes before temperature**. Top-p and min-p are Hugging Face's
//! *warpers*, which come after temperature, in this order. The repetition penalty is Hugging Face's too and runs before
//! the original's processors, since top-k must see its effect. (Guidance and grammar come first here, which changes
//! nothing: in an image there is no penalty, and in text no guidance.)
//!
//! # A generation loop
//!
//! ```
//! use std::sync::Arc;
//! use lumina_sampling::{ImageSize, Modality, Sampler, SamplingOptions, StreamState, Vocabulary};
//!
//! // A program reads names and ids from a tokenizer file.
//! # const _: &str = stringify!(
//! let vocabulary = Arc::new(Vocabulary::from_tokens(names_and_ids)?);
//! # );
//! # let vocabulary: Arc<Vocabulary> = Arc::new(
//! #    include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/small_vocabulary.rs")));
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
//! A token depends on the options, the state and its logits, and its noise on seed, branch, position and token id
//! ([`race::noise`]). So a request gives the same tokens alone or in a batch, on any device that computes the same
//! logits, and a position can be sampled before the previous one is settled. [`speculation`] makes use of it: a pass
//! tries drafts of the next tokens, and the tokens are those of one token a pass. Other methods that accept or reject
//! drafted tokens get the distribution itself from [`Sampler::candidates`], and go back by [`StreamState::rollback`].
//!
//! # Memory and speed
//!
//! Once its buffers have grown, a draw allocates nothing. In an image the steps run over the image tokens only,
//! whatever the size of the vocabulary, and a model can compute [their logits alone](Sampler::candidate_range). `cargo
//! bench -p lumina-sampling` compares the time of a draw with that of reading its logits once.
//!
//! # Untrusted input
//!
//! Tokens, logits and options of any kind give a token or an [`Error`], never a panic. Streams that a correct model
//! never writes are sampled as the original does; their phase is [`Phase::Malformed`].
#![forbid(unsafe_code)]

mod candidates;
mod draw;
mod error;
mod grammar;
mod guidance;
mod logits_row;
mod options;
pub mod race;
mod sampler;
pub mod speculation;
mod state;
mod step;
mod steps;

pub use candidates::Candidates;
pub use draw::{DrawKey, DrawRule};
pub use error::{Error, Result};
pub use grammar::{Allowed, Grammar, Modality};
pub use guidance::guide;
pub use logits_row::LogitsRow;
pub use options::SamplingOptions;
pub use sampler::{PlainDraw, Sampler};
pub use speculation::Speculation;
pub use state::{Snapshot, StreamState};
pub use step::Step;
pub use steps::*;

#[doc(no_inline)]
pub use lumina_core::layout::{ImageProgress, Phase, Slot};
#[doc(no_inline)]
pub use lumina_core::{ImageSize, Vocabulary};

#[cfg(test)]
fn small_vocabulary() -> Vocabulary {
    include!("../tests/support/small_vocabulary.rs")
}
