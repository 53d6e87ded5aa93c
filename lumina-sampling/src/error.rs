//! The errors of this crate.

use std::ops::Range;

use lumina_core::ImageSize;

/// The results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong in `lumina-sampling`.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// A sampling option is out of its range.
    #[error("sampling option `{field}` is {value}, but must be {range}")]
    Option {
        /// The field of [`SamplingOptions`](crate::SamplingOptions).
        field: &'static str,
        /// Its value.
        value: String,
        /// The range.
        range: &'static str,
    },
    /// The image size fixed by the caller has no size token.
    #[error(
        "image size {size} cannot be stated: the vocabulary's size tokens end at {largest_px} pixels a side; choose a \
         smaller size"
    )]
    ImageSize {
        /// The size asked for.
        size: ImageSize,
        /// The longest side that has a size token, in pixels.
        largest_px: u32,
    },
    /// A row of logits lacks a token that can be drawn.
    #[error(
        "a row of {} logits has none for token {token}: it is for the ids from {} to before {}; is the vocabulary \
         that of another model?",
        ids.len(), ids.start, ids.end
    )]
    ShortRow {
        /// The ids that the row has logits for.
        ids: Range<u32>,
        /// The token that has none.
        token: u32,
    },
    /// The rows of the two guidance branches are for different ids.
    #[error(
        "the conditional row has {} logits and the unconditional one {}, from the tokens {} and {} on; both must come \
         from one model",
        conditional.len(), unconditional.len(), conditional.start, unconditional.start
    )]
    RowsDiffer {
        /// The ids of the conditional row.
        conditional: Range<u32>,
        /// The ids of the unconditional row.
        unconditional: Range<u32>,
    },
    /// Guidance applies, but there is no unconditional row.
    #[error(
        "guidance applies at position {position}, but no unconditional logits were given; run the branch that \
         `unconditional` names, or set `guidance_scale` to 1"
    )]
    NoUnconditional {
        /// Index in the stream of the token to be drawn.
        position: usize,
    },
    /// A logit is not a number.
    #[error(
        "the logit of token {token} is NaN; the model's activations or weights overflowed, or a sampling step \
         made it so"
    )]
    NanLogit {
        /// The token.
        token: u32,
    },
    /// A sampling step panicked. The sampler can be used further.
    #[error("the sampling step `{step}` panicked: {message}")]
    StepPanicked {
        /// The step's type.
        step: &'static str,
        /// The message of the panic, at most 200 characters of it.
        message: String,
    },
    /// No token can be drawn.
    #[error(
        "no token is left to draw at position {position}: every logit is minus infinity, or a sampling step \
         dropped the last candidate"
    )]
    NothingLeft {
        /// Index in the stream of the token to be drawn.
        position: usize,
    },
}
