//! The draw of an earlier pass.

use crate::speculation::draft::DraftKind;
use crate::speculation::source::{DraftContext, DraftSource};

/// Positions from the first draft on whose draws are chosen by the tokens before. Further on these change too often.
const NEAR: usize = 8;

/// Drafts what an earlier pass drew at the position, from a stream with a wrong token: Jacobi's iteration.
///
/// arXiv 2410.01699. There a draft is drawn anew in each pass. Here noise is by position and token, so a draw changes
/// only where its distribution does, and that depends most on the token before. So at the first positions the draft is,
/// of all earlier draws, the last one that came after the same tokens, unless the very last one was right more often:
/// it costs nothing to remember them, and the token that was found to be right often was a draft some passes ago.
#[derive(Debug, Clone, Copy)]
pub struct Stale;

impl DraftSource for Stale {
    fn kind(&self) -> DraftKind {
        DraftKind::Stale
    }

    fn draft(&mut self, context: &DraftContext<'_>) -> Option<u32> {
        if context.drafted.len() < NEAR { context.likely_draw() } else { context.last_draw() }
    }
}
