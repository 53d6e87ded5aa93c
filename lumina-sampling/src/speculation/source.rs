//! What a source of drafts is.

use std::fmt::Debug;

use super::draft::DraftKind;
use super::memory::Memory;
use crate::{Sampler, StreamState};

/// What a source knows when it drafts a token.
#[derive(Clone, Copy)]
pub struct DraftContext<'a> {
    /// The sampler of the stream.
    pub sampler: &'a Sampler,
    /// The state before the token: after the stream and the drafts before it.
    pub state: &'a StreamState,
    /// The tokens of the stream.
    pub tokens: &'a [u32],
    /// The drafts before this one, all on one path.
    pub drafted: &'a [u32],
    /// What earlier passes drew.
    pub(super) memory: &'a Memory,
}

impl DraftContext<'_> {
    /// The token at a position: of the stream, or of the drafts before this one.
    pub fn token(&self, position: usize) -> Option<u32> {
        let drafted = position.checked_sub(self.tokens.len());
        drafted.map_or_else(|| self.tokens.get(position), |index| self.drafted.get(index)).copied()
    }

    /// What earlier passes drew at the position: after the same two tokens or the same one, if they did and such draws
    /// are right more often, or else last.
    pub fn likely_draw(&self) -> Option<u32> {
        self.memory.draw(self.state.len(), self.before())
    }

    /// What the last pass drew at the position.
    pub fn last_draw(&self) -> Option<u32> {
        self.memory.last_draw(self.state.len())
    }

    /// The likeliest candidates of the last draw at a position, ascending by token, with their
    /// [depths](crate::race::depth). Empty where a device drew; kept for the positions of the stream's last row, for
    /// the first and last of the window, and some others.
    pub fn candidates(&self, position: usize) -> &[(u32, u32)] {
        self.memory.candidates(position)
    }

    /// The last position whose candidates are known.
    pub fn last_with_candidates(&self) -> Option<usize> {
        self.memory.last_listed()
    }

    /// The two tokens before, the nearer one first.
    fn before(&self) -> [u32; 2] {
        let position = self.state.len();
        [1, 2].map(|back| position.checked_sub(back).and_then(|position| self.token(position)).unwrap_or(u32::MAX))
    }
}

/// A source of drafts: one file each. The first source that has a draft for a position gives it.
///
/// A bad draft costs a place in a pass. It never changes a token.
pub trait DraftSource: Debug + Send + Sync {
    /// The kind of its drafts.
    fn kind(&self) -> DraftKind;

    /// A draft for the position [`StreamState::len`] of the context's state, if it has one.
    fn draft(&mut self, context: &DraftContext<'_>) -> Option<u32>;
}
