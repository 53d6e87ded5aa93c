//! Prompt lookup.

use lumina_core::layout::Phase;

use crate::speculation::draft::DraftKind;
use crate::speculation::source::{DraftContext, DraftSource};

/// The longest run of tokens that is looked up.
const LONGEST: usize = 4;
/// The shortest.
const SHORTEST: usize = 2;
/// How far back the stream is searched.
const REACH: usize = 4096;

/// In text, drafts what came after the same tokens when they last occurred: prompts are repeated in answers.
///
/// This is known as prompt lookup or n-gram speculation.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lookup {
    /// Where the last draft was for, and where in the stream it was found.
    last: Option<(usize, usize)>,
}

impl DraftSource for Lookup {
    fn kind(&self) -> DraftKind {
        DraftKind::Lookup
    }

    fn draft(&mut self, context: &DraftContext<'_>) -> Option<u32> {
        if context.state.phase() != Phase::Text {
            return None;
        }
        let position = context.state.len();
        // Goes on where it was, if the draft before was its own; or else searches, once a pass.
        let found = match self.last {
            Some((before, found)) if before + 1 == position && !context.drafted.is_empty() => Some(found + 1),
            _ if context.drafted.is_empty() => find(context.tokens),
            _ => None,
        };
        self.last = found.map(|found| (position, found));
        let found = found?;
        // What is copied may reach into the drafts themselves: a repetition.
        let token = context.tokens.get(found).or_else(|| context.drafted.get(found - context.tokens.len()));
        token.copied()
    }
}

/// The place after the last earlier occurrence of the stream's last tokens; the longest run first.
fn find(tokens: &[u32]) -> Option<usize> {
    let first = tokens.len().saturating_sub(REACH);
    (SHORTEST..=LONGEST).rev().find_map(|n| {
        let suffix = tokens.len().checked_sub(n).map(|start| &tokens[start..])?;
        (first..tokens.len() - n).rev().find(|&start| tokens[start..start + n] == *suffix).map(|start| start + n)
    })
}

#[cfg(test)]
mod tests {
    use super::find;

    #[test]
    fn the_longest_run_that_occurred_last_is_found() {
        assert_eq!(find(&[1, 2, 3, 4, 9, 2, 3, 5, 2, 3]), Some(7));
        assert_eq!(find(&[1, 2, 3, 4, 9, 2, 3, 5, 1, 2, 3]), Some(3));
        assert_eq!(find(&[7, 7, 7]), Some(2));
        assert_eq!(find(&[1, 2, 3]), None);
        assert_eq!(find(&[]), None);
    }
}
