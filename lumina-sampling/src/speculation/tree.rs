//! Which alternatives a pass tries.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::draft::{Draft, DraftKind, MAX_WIDTH};

/// Counts are halved at this number, so that what comes later in an image counts more.
const MAX_COUNT: f32 = 256.0;

/// Drafts for one position after given tokens, the best first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Choice {
    pub(super) position: usize,
    pub(super) tokens: [u32; MAX_WIDTH],
    pub(super) n_tokens: usize,
    /// The kind of the first.
    pub(super) kind: DraftKind,
    /// Whether the first was drawn after the same token before.
    pub(super) matches: bool,
}

/// Finds the alternatives that are most probably accepted.
///
/// How probable that is, is counted: by rank (0 is the best draft), and by whether the best draft was drawn after the
/// same token before. The chance of a draft is the product of those on its path.
#[derive(Debug, Clone)]
pub(super) struct Tree {
    /// `[matches][rank]`: accepted and checked.
    counts: [[(f32, f32); MAX_WIDTH]; 2],
    /// What the drafts are in the tree.
    nodes: Vec<Node>,
    open: BinaryHeap<Open>,
}

#[derive(Debug, Clone, Copy)]
struct Node {
    rank: usize,
    matches: bool,
    chance: f32,
}

/// A draft that can be added.
#[derive(Debug, Clone, Copy)]
struct Open {
    node: Node,
    draft: Draft,
}

impl Ord for Open {
    fn cmp(&self, other: &Self) -> Ordering {
        // Of equal chances the first in the tree.
        let place = |open: &Self| (open.draft.parent, open.node.rank);
        self.node.chance.total_cmp(&other.node.chance).then_with(|| place(other).cmp(&place(self)))
    }
}

impl PartialOrd for Open {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Open {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Open {}

impl Default for Tree {
    fn default() -> Self {
        // As in the benchmark's simulation. The first rows of an image replace them.
        let chances = |first| std::array::from_fn(|rank| (if rank == 0 { first } else { 4.0 / rank as f32 }, 32.0));
        Self { counts: [chances(14.0), chances(26.0)], nodes: Vec::new(), open: BinaryHeap::new() }
    }
}

impl Tree {
    /// Takes the memory for so many drafts, and for what can be open at once.
    pub(super) fn reserve(&mut self, drafts: usize) {
        self.nodes.clear();
        self.nodes.reserve(drafts);
        self.open.clear();
        self.open.reserve((drafts + 1) * MAX_WIDTH);
    }

    /// Makes a tree of a chain of drafts: adds `places` drafts that are not forced, up to `room` in all with the chain.
    /// `choose` gives the drafts after a draft, or after the pending token.
    pub(super) fn grow(
        &mut self,
        places: usize,
        room: usize,
        drafts: &mut Vec<Draft>,
        mut choose: impl FnMut(&[Draft], Option<usize>) -> Choice,
    ) {
        self.nodes.clear();
        self.open.clear();
        for index in 0..drafts.len() {
            let draft = drafts[index];
            let choice = choose(drafts, draft.parent);
            let node = self.open_children(draft.parent, &choice, Some(draft.token));
            self.nodes.push(node);
        }
        let last = drafts.len().checked_sub(1);
        let choice = choose(drafts, last);
        self.open_children(last, &choice, None);
        let mut n_placed = 0;
        while drafts.len() < room
            && let Some(Open { node, draft }) = self.open.pop()
        {
            let is_forced = draft.kind == DraftKind::Forced;
            if !is_forced && n_placed == places {
                continue;
            }
            n_placed += usize::from(!is_forced);
            self.nodes.push(node);
            drafts.push(draft);
            let parent = Some(drafts.len() - 1);
            let choice = choose(drafts, parent);
            self.open_children(parent, &choice, None);
        }
    }

    /// Opens the drafts after a parent but for the chain's own, whose place in the tree it returns.
    fn open_children(&mut self, parent: Option<usize>, choice: &Choice, own: Option<u32>) -> Node {
        let chance = parent.map_or(1.0, |parent| self.nodes[parent].chance);
        let node = |matches, rank| {
            let (accepted, checked) = self.counts[usize::from(matches)][rank];
            let share = if choice.kind == DraftKind::Forced { 1.0 } else { accepted / checked };
            Node { rank, matches, chance: chance * share }
        };
        let mut own_node = node(false, 0);
        for (rank, &token) in choice.tokens[..choice.n_tokens].iter().enumerate() {
            let node = node(choice.matches, rank);
            if own == Some(token) {
                own_node = node;
                continue;
            }
            let kind = if rank == 0 { choice.kind } else { DraftKind::RunnerUp };
            self.open.push(Open { node, draft: Draft { token, parent, position: choice.position, kind } });
        }
        own_node
    }

    /// Counts which of the drafts were accepted.
    pub(super) fn note(&mut self, drafts: &[Draft], path: &[usize]) {
        let is_accepted = |index: usize| path.binary_search(&index).is_ok();
        for (index, (draft, node)) in drafts.iter().zip(&self.nodes).enumerate() {
            if draft.kind == DraftKind::Forced || !draft.parent.is_none_or(is_accepted) {
                continue;
            }
            let (accepted, checked) = &mut self.counts[usize::from(node.matches)][node.rank];
            *accepted += f32::from(u8::from(is_accepted(index)));
            *checked += 1.0;
            if *checked >= MAX_COUNT {
                *accepted /= 2.0;
                *checked /= 2.0;
            }
        }
    }
}
