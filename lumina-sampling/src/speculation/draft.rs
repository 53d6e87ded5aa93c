//! Drafts, and which of them the draws confirm.

use serde::{Deserialize, Serialize};

/// The most drafts of a pass that are not forced.
pub(super) const MAX_WINDOW: usize = 512;
/// The most drafts for one position.
pub(super) const MAX_WIDTH: usize = 8;
/// The most positions of a pass that have several drafts.
pub(super) const MAX_DEPTH: usize = 8;

/// Where a draft comes from.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DraftKind {
    /// The grammar leaves no choice: the end of a row. It takes no place in the window.
    Forced,
    /// The draw of an earlier pass at the same position.
    Stale,
    /// A draw from the distributions of the neighbours in the image, with the position's own noise.
    Neighbours,
    /// What came after the same tokens earlier in the stream.
    Lookup,
    /// An alternative: nearly the draw of an earlier pass.
    RunnerUp,
}

impl DraftKind {
    /// All kinds, in the order of their indices.
    pub const ALL: [Self; 5] = [Self::Forced, Self::Stale, Self::Neighbours, Self::Lookup, Self::RunnerUp];
}

/// A token that a pass tries.
///
/// The drafts of a pass are a tree in topological order: a draft comes after its parent. Without alternatives each
/// one's parent is the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draft {
    /// The token.
    pub token: u32,
    /// Index of the draft that it follows; none where it follows the pending token.
    pub parent: Option<usize>,
    /// Index in the stream that the token would have.
    pub position: usize,
    /// Where it comes from.
    pub kind: DraftKind,
}

impl Draft {
    /// The row of logits that this draft is checked with: that of its parent.
    pub fn row(&self) -> usize {
        self.parent.map_or(0, |parent| parent + 1)
    }
}

/// Follows the drafts as far as the draws confirm them, and gives the indices of those on the way, ascending, in
/// `path`.
///
/// `draw` is given a row, 0 for that after the pending token and `i + 1` for that after draft `i`, and gives the token
/// drawn there, or none to stop. It is asked once for each draft on the path and once more, for the first that differs.
pub fn accepted_path(drafts: &[Draft], mut draw: impl FnMut(usize) -> Option<u32>, path: &mut Vec<usize>) {
    path.clear();
    let mut row = 0;
    while let Some(token) = draw(row) {
        // Children come after their parents.
        let child = (row..drafts.len()).find(|&child| drafts[child].row() == row && drafts[child].token == token);
        let Some(child) = child else { break };
        path.push(child);
        row = child + 1;
    }
}
