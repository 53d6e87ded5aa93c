//! The draw of an earlier pass.

use crate::speculation::draft::DraftKind;
use crate::speculation::source::{DraftContext, DraftSource};

/// Drafts what an earlier pass drew at the position, from a stream with a wrong token: Jacobi's iteration.
///
/// arXiv 2410.01699. There a draft is drawn anew in each pass. Here noise is by position and token, so a draw changes
/// only where its distribution does, and that depends most on the token before. So of all earlier draws the draft is
/// the last one that came after the same tokens: it costs nothing to remember them, and the token that was found to be
/// right often was a draft some passes ago.
#[derive(Debug, Clone, Copy)]
pub struct Stale;

impl DraftSource for Stale {
    fn kind(&self) -> DraftKind {
        DraftKind::Stale
    }

    fn draft(&mut self, context: &DraftContext<'_>) -> Option<u32> {
        context.likely_draw()
    }
}
