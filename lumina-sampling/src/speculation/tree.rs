//! Which alternatives a pass tries.

use std::collections::BinaryHeap;

use super::draft::{Draft, DraftKind, MAX_WIDTH};

/// Counts are halved at this number, so that the image's later parts count more than its beginning.
const MAX_COUNT: f32 = 256.0;

/// Drafts for one position after given tokens, the best first.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Choice {
    pub(super) position: usize,
    pub(super) tokens: [u32; MAX_WIDTH],
    pub(super) n_tokens: usize,
    /// The kind of the first.
    pub(super) kind: Option<DraftKind>,
    /// Whether the first was drawn after the same token before.
    pub(super) matches: bool,
}

/// Finds the alternatives that are most probably accepted.
///
/// How probable that is, is counted: by rank (0 is the best draft), and by whether the best draft was drawn after the
/// same token before.
#[derive(Debug, Clone)]
pub(super) struct Tree {
    /// `[matches][rank]`: accepted and checked.
    counts: [[(f32, f32); MAX_WIDTH]; 2],
    nodes: Vec<Node>,
    open: BinaryHeap<Open>,
}

/// What a draft is in the tree.
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
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let key = |open: &Self| (open.draft.parent, open.node.rank);
        self.node.chance.total_cmp(&other.node.chance).then_with(|| key(other).cmp(&key(self)))
    }
}

impl PartialOrd for Open {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
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
        // As in the simulation of the benchmark; the counts of the first rows of an image replace them.
        let rank = |first: f32| move |rank: usize| (if rank == 0 { first } else { 4.0 / rank as f32 }, 32.0);
        Self {
            counts: [std::array::from_fn(rank(14.0)), std::array::from_fn(rank(26.0))],
            nodes: Vec::new(),
            open: BinaryHeap::new(),
        }
    }
}

impl Tree {
    /// Makes a tree of a chain of drafts: adds `places` that are not forced, and up to `room` in all, where they are most
    /// probably accepted. `choose` gives the drafts after a draft, or after the pending token.
    pub(super) fn grow(
        &mut self,
        places: usize,
        room: usize,
        drafts: &mut Vec<Draft>,
        mut choose: impl FnMut(&[Draft], Option<usize>) -> Choice,
    ) {
        self.nodes.clear();
        self.open.clear();
        let trunk = drafts.len();
        let mut open_children =
            |drafts: &[Draft], nodes: &[Node], open: &mut BinaryHeap<Open>, parent: Option<usize>| {
                let choice = choose(drafts, parent);
                let chance = parent.map_or(1.0, |parent| nodes[parent].chance);
                let forced = choice.kind == Some(DraftKind::Forced);
                for (rank, &token) in choice.tokens[..choice.n_tokens].iter().enumerate() {
                    let (accepted, checked) = self.counts[usize::from(choice.matches)][rank];
                    let chance = if forced { chance } else { chance * accepted / checked };
                    let node = Node { rank, matches: choice.matches, chance };
                    let kind = if rank == 0 { choice.kind.unwrap_or(DraftKind::RunnerUp) } else { DraftKind::RunnerUp };
                    open.push(Open { node, draft: Draft { token, parent, position: choice.position, kind } });
                }
            };
        // The chain's own drafts are there already.
        open_children(drafts, &self.nodes, &mut self.open, None);
        for index in 0..trunk {
            let own = self
                .open
                .iter()
                .find(|open| open.draft.parent == drafts[index].parent && open.draft.token == drafts[index].token);
            let node = own.map_or(Node { rank: 0, matches: false, chance: 0.0 }, |open| open.node);
            self.nodes.push(node);
            open_children(drafts, &self.nodes, &mut self.open, Some(index));
        }
        let mut n_placed = 0;
        while drafts.len() < room
            && let Some(Open { node, draft }) = self.open.pop()
        {
            let is_forced = draft.kind == DraftKind::Forced;
            let is_there = drafts[..trunk]
                .get(draft.row())
                .is_some_and(|own| own.row() == draft.row() && own.token == draft.token);
            if is_there || !is_forced && n_placed == places {
                continue;
            }
            n_placed += usize::from(!is_forced);
            drafts.push(draft);
            self.nodes.push(node);
            open_children(drafts, &self.nodes, &mut self.open, Some(drafts.len() - 1));
        }
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
