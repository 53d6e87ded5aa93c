//! Drafting and verifying.

use lumina_core::layout::{ImageProgress, Phase, Slot};

use super::draft::{Draft, DraftKind, MAX_DEPTH, MAX_WIDTH, MAX_WINDOW, accepted_path};
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

/// Drafts the next tokens of one stream, and finds out which of them are right. It has all buffers: once they have
/// grown, nothing is allocated.
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

/// The alternatives in an image: so many positions from the first on have so many drafts.
struct Shape {
    image: ImageProgress,
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
        let places = self.setting.window().unwrap_or(MAX_WINDOW).min(places).min(MAX_WINDOW);
        if places == 0 || !sampler.is_pure() {
            return &self.drafts;
        }
        self.memory.begin_pass();
        self.reserve(state, places, room);
        let (depth, width) = self.setting.shape();
        let has_tree = width > 1 && matches!(state.phase(), Phase::Rows(_));
        // Alternatives get a third of the places, but for the first ones: a chain that is too short never gets better.
        let trunk = if has_tree { places - places.saturating_sub(CHAIN_ONLY) / 3 } else { places };
        let start = state.snapshot();
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
        if let Phase::Rows(image) = state.phase()
            && has_tree
            && !self.drafts.is_empty()
        {
            self.grow_tree(sampler, state, Shape { image, depth, width }, places - n_placed, room);
        }
        &self.drafts
    }

    /// Takes the memory that a pass may need.
    fn reserve(&mut self, state: &StreamState, places: usize, room: usize) {
        let row = match state.phase() {
            Phase::Rows(image) => image.size().latent_columns() as usize + 1,
            _ => 0,
        };
        // The row above, and the drafts with the ends of rows among them: one at most after each draft.
        let most = 2 * places + 1;
        self.memory.reserve(if row > MAX_ROW { 0 } else { row } + most + ADDED);
        let most = most.min(room);
        if self.setting.shape().1 > 1 {
            self.tree.reserve(most);
        }
        self.drafts.reserve(most);
        self.drafted.reserve(most);
        for rows in [&mut self.path, &mut self.behind] {
            rows.clear();
            rows.reserve(most);
        }
    }

    /// Adds alternatives to the chain of drafts after `state`.
    fn grow_tree(&mut self, sampler: &Sampler, state: &StreamState, shape: Shape, places: usize, room: usize) {
        let Shape { image, depth, width } = shape;
        let (first, vocabulary) = (state.len(), state.vocabulary());
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
                (choice.tokens[0], choice.n_tokens, choice.kind) = (vocabulary.row_end(), 1, DraftKind::Forced);
                return choice;
            }
            let width = if position < first + depth { width } else { 1 };
            let mut draws = [0; MAX_WIDTH];
            let (n_draws, matches) = memory.draws(position, before(drafts, parent, last), &mut draws[..width]);
            choice.matches = matches;
            let near = near.get(position - first).into_iter().flatten().flatten();
            for &token in draws[..n_draws].iter().chain(near) {
                let known = &choice.tokens[..choice.n_tokens];
                if known.len() < width && !known.contains(&token) && vocabulary.code_of_token(token).is_some() {
                    choice.tokens[choice.n_tokens] = token;
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

    /// How many tokens a pass may try.
    pub fn setting(&self) -> Speculation {
        self.setting
    }

    /// Takes the drafts back: the pass runs the pending token alone.
    pub fn drop_drafts(&mut self) {
        self.drafts.clear();
    }

    /// The drafts of the pass.
    pub fn drafts(&self) -> &[Draft] {
        &self.drafts
    }

    /// The indices of the drafts that the last pass accepted: [`Verified::path`].
    pub fn path(&self) -> &[usize] {
        &self.path
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
    /// branch and, where [`Sampler::unconditional`] names a range, of the other, which runs the same drafts. They are
    /// for the ids of [`Sampler::candidate_range`] of `state`, and not asked for where the next token is forced.
    /// `accept` returns whether the stream goes on. `state` is as it was afterwards.
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
    /// `draws[i + 1]` from those after draft `i`, with the noise of the position after [`Draft::position`]. What it
    /// drew where the next token is forced is not read.
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
                let before = before(&self.drafts, row.checked_sub(1), self.last);
                memory.learn(state.len(), before, token);
                memory.note(state.len(), before, token);
                if let (Some(_), Some(candidates)) = (row_of_code(state), draws.candidates()) {
                    memory.note_candidates(state.len(), candidates);
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
        let tip = state.len() + self.path.len();
        self.find_behind(tip);
        let end = self.drafts.iter().map(|draft| draft.position + 1).max().unwrap_or(0);
        let (depth, _) = self.setting.shape();
        let mut reached = None;
        for index in 0..self.behind.len() {
            let row = self.behind[index];
            let draft = self.drafts[row - 1];
            if reached != Some(draft.row()) {
                state.rollback(start);
                self.push_before(state, row - 1);
            }
            state.push(draft.token);
            reached = Some(row);
            // Plain decoding never sees these logits: what is wrong with them is no error.
            let Ok(Some(token)) = draws.draw(row, state) else { continue };
            let position = state.len();
            self.memory.note(position, before(&self.drafts, Some(row - 1), self.last), token);
            // Candidates are kept where they may be asked for: at alternatives, and at neighbours of what comes next.
            if let (Some(codes), Some(candidates)) = (row_of_code(state), draws.candidates()) {
                let is_above = (end + 1..=end + ADDED).contains(&(position + codes + 1));
                if position <= tip + depth || position == end || is_above {
                    self.memory.note_candidates(position, candidates);
                }
            }
        }
        state.rollback(start);
    }

    /// Finds the rows that draw behind the token at `tip`, those after the best drafts last: what is noted last counts
    /// most.
    fn find_behind(&mut self, tip: usize) {
        let accepted = self.path.last().map_or(0, |&last| last + 1);
        self.behind.clear();
        for best in [false, true] {
            // Of the drafts after one the first is the best.
            let mut row = accepted;
            for (index, draft) in self.drafts.iter().enumerate() {
                let is_best = draft.row() == row && index >= accepted;
                row = if is_best { index + 1 } else { row };
                if draft.position >= tip && is_best == best {
                    self.behind.push(index + 1);
                }
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

/// The image tokens of a row, where the next token is one of them.
fn row_of_code(state: &StreamState) -> Option<usize> {
    match state.phase() {
        Phase::Rows(image) if matches!(image.expected(), Slot::Code { .. }) => {
            Some(image.size().latent_columns() as usize)
        }
        _ => None,
    }
}

/// The two tokens before the draw after a draft, or after the pending token: the nearer one first.
fn before(drafts: &[Draft], draft: Option<usize>, last: [u32; 2]) -> [u32; 2] {
    let Some(draft) = draft.and_then(|draft| drafts.get(draft)) else { return last };
    [draft.token, draft.parent.and_then(|parent| drafts.get(parent)).map_or(last[0], |parent| parent.token)]
}
