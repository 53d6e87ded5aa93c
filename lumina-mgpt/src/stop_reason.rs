//! Why an answer ended.

use std::fmt;

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StopReason {
    /// The model ended its turn.
    #[default]
    TurnEnd,
    /// `max_new_tokens` was reached.
    MaxNewTokens,
    /// `max_images` was reached.
    MaxImages,
    /// The model's context is full.
    ContextFull,
    /// `deadline_ms` has passed.
    Deadline,
    /// [`Cancel`](crate::Cancel) was used.
    Cancelled,
    /// An error ended it, which was the request's last event.
    Failed,
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TurnEnd => "the end of the turn",
            Self::MaxNewTokens => "`max_new_tokens`",
            Self::MaxImages => "`max_images`",
            Self::ContextFull => "the end of the model's context",
            Self::Deadline => "`deadline_ms`",
            Self::Cancelled => "cancellation",
            Self::Failed => "an error",
        })
    }
}
