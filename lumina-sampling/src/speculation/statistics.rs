//! What drafts brought.

use super::draft::{Draft, DraftKind};

/// Drafts of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DraftCounts {
    /// Those that a pass ran.
    pub run: usize,
    /// Those of them that a draw of the true stream was compared with: the draft before was accepted.
    pub checked: usize,
    /// Those of them that were right.
    pub accepted: usize,
}

/// What a speculator's passes brought so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Passes that were verified.
    pub passes: usize,
    /// Their tokens: the accepted drafts, and one more each.
    pub tokens: usize,
    counts: [DraftCounts; DraftKind::ALL.len()],
}

impl Statistics {
    /// The drafts of a kind.
    pub fn drafts(&self, kind: DraftKind) -> DraftCounts {
        self.counts[kind as usize]
    }

    /// Counts a pass.
    pub(super) fn note(&mut self, drafts: &[Draft], path: &[usize], tokens: usize) {
        self.passes += 1;
        self.tokens += tokens;
        let is_accepted = |index: usize| path.binary_search(&index).is_ok();
        for (index, draft) in drafts.iter().enumerate() {
            let counts = &mut self.counts[draft.kind as usize];
            counts.run += 1;
            counts.checked += usize::from(draft.parent.is_none_or(is_accepted));
            counts.accepted += usize::from(is_accepted(index));
        }
    }
}
