//! The draw of an earlier pass.

use crate::speculation::draft::DraftKind;
use crate::speculation::source::{DraftContext, DraftSource};

/// Drafts what an earlier pass drew at the position, from a stream with a wrong token: Jacobi's iteration.
///
/// arXiv 2410.01699. There drafts are drawn anew in each pass; here noise is by position and token, so a draw changes
/// only where its distribution does.
#[derive(Debug, Clone, Copy)]
pub struct Stale;

impl DraftSource for Stale {
    fn kind(&self) -> DraftKind {
        DraftKind::Stale
    }

    fn draft(&mut self, context: &DraftContext<'_>) -> Option<u32> {
        context.memory.draw(context.state.len(), context.before())
    }
}
