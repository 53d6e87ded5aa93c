//! Drafting and verifying.

use lumina_core::layout::{ImageProgress, Phase, Slot};

use super::draft::{Draft, DraftKind, MAX_DEPTH, MAX_WIDTH, accepted_path};
use super::memory::Memory;
use super::setting::Speculation;
use super::source::{DraftContext, DraftSource};
use super::sources::{Lookup, Neighbours, Stale, runner_ups};
use super::statistics::Statistics;
use super::tree::{Choice, Tree};
use crate::{Candidates, LogitsRow, Result, Sampler, Snapshot, StreamState};

/// The widest row of an image whose upper neighbours are kept.
const MAX_ROW: usize = 256;
/// Positions that a pass may add to the window: so many upper neighbours are kept of drafts that are not yet accepted.
const ADDED: usize = 8;

/// Places of a tree that have no alternatives.
const CHAIN_ONLY: usize = 8;

/// Drafts the next tokens of one stream, and finds out which of them are right. It has all buffers: once they have grown,
/// nothing is allocated.
///
/// The [module](crate::speculation) says how it works. It never changes the stream: `state` moves ahead and back within
/// a call, and the caller appends the accepted tokens as it appends a drawn one.
#[derive(Debug)]
pub struct Speculator {
    setting: Speculation,
    /// The first that has a draft gives it.
    sources: Vec<Box<dyn DraftSource>>,
    memory: Memory,
    tree: Tree,
    drafts: Vec<Draft>,
    /// The tokens of the drafts, as long as these are a chain.
    drafted: Vec<u32>,
    /// The last two tokens of the stream, the last one first.
    last: [u32; 2],
    path: Vec<usize>,
    /// The rows behind the path, whose draws are the next drafts.
    behind: Vec<usize>,
    statistics: Statistics,
}

/// What a pass has brought.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified<'a> {
    /// Tokens that `accept` was called with: the accepted drafts and one more.
    pub tokens: usize,
    /// The indices of the accepted drafts, ascending: `0..n` without a tree. Keys and values of these are those of the
    /// stream, and those of all other drafts are to be removed.
    pub path: &'a [usize],
}

/// The alternatives of a pass: so many positions from the first on have so many drafts.
struct Shape {
    image: ImageProgress,
    first: usize,
    depth: usize,
    width: usize,
}

/// What gives the draws of a pass.
trait Draws {
    /// The token after a row; none where there is no draw.
    fn draw(&mut self, row: usize, state: &StreamState) -> Result<Option<u32>>;

    /// What the last draw was from, where that is known.
    fn candidates(&mut self) -> Option<&mut Candidates>;
}

/// Draws from logits.
struct FromLogits<'s, F> {
    sampler: &'s mut Sampler,
    rows: F,
}

impl<'r, F: FnMut(usize) -> (LogitsRow<'r>, Option<LogitsRow<'r>>)> Draws for FromLogits<'_, F> {
    fn draw(&mut self, row: usize, state: &StreamState) -> Result<Option<u32>> {
        if let Some(token) = self.sampler.forced(state) {
            return Ok(Some(token));
        }
        let (conditional, unconditional) = (self.rows)(row);
        self.sampler.sample(conditional, unconditional, state).map(Some)
    }

    fn candidates(&mut self) -> Option<&mut Candidates> {
        Some(self.sampler.last_candidates())
    }
}

/// Draws that a device made.
struct Drawn<'s> {
    sampler: &'s Sampler,
    draws: &'s [u32],
}

impl Draws for Drawn<'_> {
    fn draw(&mut self, row: usize, state: &StreamState) -> Result<Option<u32>> {
        Ok(self.sampler.forced(state).or_else(|| self.draws.get(row).copied()))
    }

    fn candidates(&mut self) -> Option<&mut Candidates> {
        None
    }
}

impl Speculator {
    /// One for a new stream.
    pub fn new(setting: Speculation) -> Self {
        Self::with_sources(setting, vec![Box::new(Lookup::default()), Box::new(Stale), Box::new(Neighbours)])
    }

    /// One with sources of the program's own, the best first.
    pub fn with_sources(setting: Speculation, sources: Vec<Box<dyn DraftSource>>) -> Self {
        Self {
            setting,
            sources,
            memory: Memory::default(),
            tree: Tree::default(),
            drafts: Vec::new(),
            drafted: Vec::new(),
            last: [u32::MAX; 2],
            path: Vec::new(),
            behind: Vec::new(),
            statistics: Statistics::default(),
        }
    }

    /// The drafts to run after the last token of the stream, whose tokens and state are given.
    ///
    /// There are at most `places` of them that are not forced, and at most `room` in all, as keys and values of all of
    /// them have to be stored until they are verified. There are none where the sampler is not
    /// [pure](Sampler::is_pure), where [`Speculation::Off`] was chosen, where the next token is forced, or where no
    /// source has one. They reach over the ends of rows, but not beyond the end of an image or of text.
    ///
    /// `state` is as it was afterwards.
    pub fn draft(
        &mut self,
        sampler: &Sampler,
        state: &mut StreamState,
        tokens: &[u32],
        places: usize,
        room: usize,
    ) -> &[Draft] {
        self.drafted.clear();
        self.drafts.clear();
        self.last = [1, 2].map(|back| tokens.len().checked_sub(back).map_or(u32::MAX, |index| tokens[index]));
        let places = self.setting.window().map_or(places, |window| window.min(places));
        if places == 0 || !sampler.is_pure() {
            return &self.drafts;
        }
        let row = match state.phase() {
            Phase::Rows(image) => image.size().latent_columns() as usize + 1,
            _ => 0,
        };
        // The row above, and the drafts with the ends of rows among them.
        let is_wide = row > MAX_ROW;
        self.memory.reserve(if is_wide { 0 } else { row } + 2 * places + ADDED, row > 0);
        // As much as a pass may need: an end of a row at most after each draft.
        let most = (2 * places + 1).min(room);
        self.drafts.reserve(most);
        self.drafted.reserve(most);
        self.path.clear();
        self.path.reserve(most);
        self.behind.clear();
        self.behind.reserve(most);
        let start = state.snapshot();
        // Alternatives get a third of the places, but for the first ones: a chain that is too short never gets better.
        let trunk = match self.setting {
            Speculation::Tree { .. } if row > 0 => places - places.saturating_sub(CHAIN_ONLY) / 3,
            _ => places,
        };
        let mut n_placed = 0;
        while self.drafts.len() < room {
            let Some((token, kind)) = self.next(sampler, state, tokens, n_placed < trunk) else { break };
            n_placed += usize::from(kind != DraftKind::Forced);
            let parent = self.drafts.len().checked_sub(1);
            self.drafts.push(Draft { token, parent, position: state.len(), kind });
            self.drafted.push(token);
            state.push(token);
        }
        state.rollback(start);
        if let (Speculation::Tree { depth, width, .. }, Phase::Rows(image)) = (self.setting, state.phase()) {
            let shape = Shape { image, first: state.len(), depth, width: width.min(MAX_WIDTH) };
            self.grow_tree(sampler, state.vocabulary().row_end(), shape, places - n_placed, room);
        }
        &self.drafts
    }

    /// Adds alternatives to the chain of drafts.
    fn grow_tree(&mut self, sampler: &Sampler, row_end: u32, shape: Shape, places: usize, room: usize) {
        let Shape { image, first, depth, width } = shape;
        let (memory, last) = (&self.memory, self.last);
        let mut near = [[None; MAX_WIDTH]; MAX_DEPTH];
        for (near, position) in near.iter_mut().zip(first..first + depth) {
            *near = runner_ups(memory, sampler.key(), position);
        }
        let codes = image.size().latent_columns() as usize;
        let choose = |drafts: &[Draft], parent: Option<usize>| {
            let position = parent.map_or(first, |parent| drafts[parent].position + 1);
            let mut choice =
                Choice { position, tokens: [0; MAX_WIDTH], n_tokens: 0, kind: DraftKind::Stale, matches: false };
            if image.remaining().is_none_or(|remaining| position + 2 > first + remaining) {
                // The end of the image.
                return choice;
            }
            if (image.column() + position - first) % (codes + 1) == codes {
                (choice.tokens[0], choice.n_tokens, choice.kind) = (row_end, 1, DraftKind::Forced);
                return choice;
            }
            let width = if position < first + depth { width } else { 1 };
            let tokens = &mut choice.tokens[..width];
            (choice.n_tokens, choice.matches) = memory.draws(position, before(drafts, parent, last), tokens);
            for &token in near.get(position - first).into_iter().flatten().flatten() {
                if choice.n_tokens < width && !tokens[..choice.n_tokens].contains(&token) {
                    tokens[choice.n_tokens] = token;
                    choice.n_tokens += 1;
                }
            }
            choice
        };
        self.tree.grow(places, room, &mut self.drafts, choose);
    }

    /// The draft for the next position, if there is one.
    fn next(
        &mut self,
        sampler: &Sampler,
        state: &StreamState,
        tokens: &[u32],
        has_place: bool,
    ) -> Option<(u32, DraftKind)> {
        let vocabulary = state.vocabulary();
        let fits = |token: &u32| match state.phase() {
            Phase::Rows(_) => vocabulary.code_of_token(*token).is_some(),
            _ => !vocabulary.is_control(*token),
        };
        match (state.phase(), sampler.forced(state)) {
            (Phase::Rows(image), Some(token)) if matches!(image.expected(), Slot::RowEnd { .. }) => {
                // What comes first needs no pass, and is the caller's to append.
                (!self.drafts.is_empty()).then_some((token, DraftKind::Forced))
            }
            (Phase::Rows(_) | Phase::Text, None) if has_place => {
                let context = DraftContext { sampler, state, tokens, drafted: &self.drafted, memory: &self.memory };
                self.sources.iter_mut().find_map(|source| Some((source.draft(&context).filter(fits)?, source.kind())))
            }
            _ => None,
        }
    }

    /// The drafts of the pass.
    pub fn drafts(&self) -> &[Draft] {
        &self.drafts
    }

    /// What the passes brought so far.
    pub fn statistics(&self) -> &Statistics {
        &self.statistics
    }

    /// Draws from the logits of the pass along the drafts that [`Speculator::draft`] gave for this `state`, and calls
    /// `accept` with each token of the stream: those that were drafted and drawn alike, and the first that differs. So
    /// there is one at least. They are exactly the tokens that plain decoding gives.
    ///
    /// `rows(0)` are the logits after the pending token, and `rows(i + 1)` those after draft `i`: of the conditional
    /// branch and, where [`Sampler::unconditional`] names a range, of the other. They are not asked for where the next
    /// token is forced. `accept` returns whether the stream goes on. `state` is as it was afterwards.
    ///
    /// # Errors
    /// Those of [`Sampler::sample`] at a token of the stream. `accept` has had those before.
    pub fn verify<'r>(
        &mut self,
        sampler: &mut Sampler,
        state: &mut StreamState,
        rows: impl FnMut(usize) -> (LogitsRow<'r>, Option<LogitsRow<'r>>),
        accept: impl FnMut(u32) -> bool,
    ) -> Result<Verified<'_>> {
        self.follow(state, FromLogits { sampler, rows }, accept)
    }

    /// As [`Speculator::verify`], where a device has drawn: `draws[0]` from the logits after the pending token, and
    /// `draws[i + 1]` from those after draft `i`. What it drew where the next token is forced is not read.
    ///
    /// Draws that are missing end the path.
    pub fn verify_drawn(
        &mut self,
        sampler: &Sampler,
        state: &mut StreamState,
        draws: &[u32],
        accept: impl FnMut(u32) -> bool,
    ) -> Verified<'_> {
        self.follow(state, Drawn { sampler, draws }, accept).expect("no draw fails")
    }

    /// Follows the drafts with these draws, and notes what is drawn behind them.
    fn follow(
        &mut self,
        state: &mut StreamState,
        mut draws: impl Draws,
        mut accept: impl FnMut(u32) -> bool,
    ) -> Result<Verified<'_>> {
        let start = state.snapshot();
        let (mut n_tokens, mut goes_on, mut error) = (0, true, None);
        let memory = &mut self.memory;
        accepted_path(
            &self.drafts,
            |row| {
                if !goes_on {
                    return None;
                }
                let token = draws.draw(row, state).map_err(|failed| error = Some(failed)).ok()??;
                let position = state.len();
                memory.note(position, before(&self.drafts, row.checked_sub(1), self.last), token);
                if let (Phase::Rows(image), Some(candidates)) = (state.phase(), draws.candidates())
                    && !matches!(image.expected(), Slot::RowEnd { .. } | Slot::ImageEnd)
                {
                    memory.note_candidates(position, candidates);
                }
                n_tokens += 1;
                goes_on = accept(token);
                state.push(token);
                Some(token)
            },
            &mut self.path,
        );
        state.rollback(start);
        if let Some(error) = error {
            return Err(error);
        }
        self.statistics.note(&self.drafts, &self.path, n_tokens);
        self.tree.note(&self.drafts, &self.path);
        if goes_on {
            self.draw_behind(state, start, draws);
        }
        Ok(Verified { tokens: n_tokens, path: &self.path })
    }

    /// Draws behind the path, from streams with a wrong token: the next drafts.
    fn draw_behind(&mut self, state: &mut StreamState, start: Snapshot, mut draws: impl Draws) {
        self.find_behind();
        let Some(first) = self.path.last().map_or(self.drafts.first(), |&last| self.drafts.get(last + 1)) else {
            return;
        };
        let _ = first;
        let tip = state.len() + self.path.len();
        let last = self.drafts.iter().map(|draft| draft.position + 1).max().unwrap_or(0);
        let alternatives = match self.setting {
            Speculation::Tree { depth, .. } => depth,
            _ => 0,
        };
        let mut reached = None;
        for index in 0..self.behind.len() {
            let row = self.behind[index];
            let draft = self.drafts[row - 1];
            if reached.is_none() || draft.parent.map(|parent| parent + 1) != reached {
                state.rollback(start);
                self.push_before(state, row - 1);
            }
            state.push(draft.token);
            reached = Some(row);
            // Plain decoding never sees these logits: what is wrong with them is no error.
            let Ok(Some(token)) = draws.draw(row, state) else { break };
            let at = state.len();
            self.memory.note(at, before(&self.drafts, Some(row - 1), self.last), token);
            // Candidates are kept where they can be asked for: alternatives, and neighbours of what is added.
            if let Phase::Rows(image) = state.phase()
                && let Some(candidates) = draws.candidates()
                && !matches!(image.expected(), Slot::RowEnd { .. } | Slot::ImageEnd)
            {
                let below = (at + image.size().latent_columns() as usize + 1).checked_sub(last);
                if at <= tip + alternatives || at == last || below.is_some_and(|below| (1..=ADDED).contains(&below)) {
                    self.memory.note_candidates(at, candidates);
                }
            }
        }
        state.rollback(start);
    }

    /// Finds the rows behind the path, the best ones last.
    fn find_behind(&mut self) {
        self.behind.clear();
        let tip = self.path.last().map_or(0, |&last| last + 1);
        let from = self.path.last().map_or_else(
            || self.drafts.first().map_or(0, |draft| draft.position),
            |&last| self.drafts[last].position + 1,
        );
        self.behind
            .extend((0..self.drafts.len()).filter(|&index| self.drafts[index].position >= from).map(|index| index + 1));
        let mut row = tip;
        loop {
            // The best child comes first.
            let child = (row..self.drafts.len()).find(|&child| self.drafts[child].row() == row);
            let Some(child) = child else { break };
            row = child + 1;
            if let Some(at) = self.behind.iter().position(|&other| other == row) {
                self.behind.remove(at);
                self.behind.push(row);
            }
        }
    }

    /// Pushes the drafts before this one, from the first on.
    fn push_before(&self, state: &mut StreamState, draft: usize) {
        if let Some(parent) = self.drafts[draft].parent {
            self.push_before(state, parent);
            state.push(self.drafts[parent].token);
        }
    }
}

/// The two tokens before the draw after a draft, or after the pending token: the nearer one first.
fn before(drafts: &[Draft], draft: Option<usize>, last: [u32; 2]) -> [u32; 2] {
    let Some(draft) = draft.and_then(|draft| drafts.get(draft)) else { return last };
    [draft.token, draft.parent.and_then(|parent| drafts.get(parent)).map_or(last[0], |parent| parent.token)]
}
