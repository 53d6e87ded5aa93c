//! How many tokens a pass may try.

use serde::{Deserialize, Serialize};

use super::draft::{MAX_DEPTH, MAX_WIDTH, MAX_WINDOW};
use crate::options::check_range;
use crate::{Result, SamplingOptions};

/// How many tokens a pass may try. It changes the time that an answer takes, never its tokens.
///
/// Only samplers that are [pure](crate::Sampler::is_pure) try any.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Speculation {
    /// As many as pay, by the measured time of passes.
    #[default]
    Auto,
    /// One token a pass.
    Off,
    /// So many drafts behind the pending token, from 1 to 512. Forced tokens are not counted.
    Window(usize),
    /// So many drafts, some of them alternatives to others: a tree, which needs a pass with a mask.
    Tree {
        /// Drafts in all, from 1 to 512. Forced tokens are not counted.
        window: usize,
        /// Positions behind the pending token that have alternatives, from 1 to 8.
        depth: usize,
        /// Drafts for such a position, from 2 to 8.
        width: usize,
    },
}

impl Speculation {
    /// The most drafts of a pass; none where it is to be measured.
    pub fn window(self) -> Option<usize> {
        match self {
            Self::Auto => None,
            Self::Off => Some(0),
            Self::Window(window) | Self::Tree { window, .. } => Some(window),
        }
    }

    /// Depth and width of the tree, within their ranges: one draft for a position where it is none.
    pub(super) fn shape(self) -> (usize, usize) {
        match self {
            Self::Tree { depth, width, .. } => (depth.min(MAX_DEPTH), width.clamp(1, MAX_WIDTH)),
            Self::Auto | Self::Off | Self::Window(_) => (0, 1),
        }
    }

    /// Checks every range.
    pub(crate) fn validate(self) -> Result<()> {
        let window = self.window().unwrap_or_default();
        let is_off = matches!(self, Self::Auto | Self::Off);
        check_range("speculation", window, is_off || (1..=MAX_WINDOW).contains(&window), "a window from 1 to 512")?;
        if let Self::Tree { depth, width, .. } = self {
            check_range("speculation", depth, (1..=MAX_DEPTH).contains(&depth), "a tree of depth 1 to 8")?;
            check_range("speculation", width, (2..=MAX_WIDTH).contains(&width), "a tree of width 2 to 8")?;
        }
        Ok(())
    }
}

impl SamplingOptions {
    /// Sets [`speculation`](Self#structfield.speculation).
    #[must_use]
    pub fn speculation(self, speculation: Speculation) -> Self {
        Self { speculation, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_stored_and_read_back() {
        let tree = Speculation::Tree { window: 64, depth: 2, width: 4 };
        for (setting, json) in [
            (Speculation::Auto, r#""auto""#),
            (Speculation::Off, r#""off""#),
            (Speculation::Window(16), r#"{"window":16}"#),
            (tree, r#"{"tree":{"window":64,"depth":2,"width":4}}"#),
        ] {
            assert_eq!(serde_json::to_string(&setting).unwrap(), json);
            assert_eq!(serde_json::from_str::<Speculation>(json).unwrap(), setting);
            assert_eq!(SamplingOptions::default().speculation(setting).validate(), Ok(()));
        }
        assert_eq!(serde_json::from_str::<SamplingOptions>("{}").unwrap().speculation, Speculation::Auto);
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        for (setting, part) in [
            (Speculation::Window(0), "is 0, but must be a window"),
            (Speculation::Window(513), "is 513, but must be a window"),
            (Speculation::Tree { window: 8, depth: 0, width: 2 }, "is 0, but must be a tree of depth"),
            (Speculation::Tree { window: 8, depth: 1, width: 1 }, "is 1, but must be a tree of width"),
        ] {
            let error = SamplingOptions::default().speculation(setting).validate().unwrap_err().to_string();
            assert!(error.contains("`speculation`") && error.contains(part), "{error}");
        }
    }
}
