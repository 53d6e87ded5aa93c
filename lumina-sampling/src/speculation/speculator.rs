//! Drafting and verifying.

use lumina_core::layout::{Phase, Slot};

use super::draft::{Draft, DraftKind, accepted_path};
use super::memory::Memory;
use super::setting::Speculation;
use super::source::{DraftContext, DraftSource};
use super::sources::{Lookup, Stale};
use crate::{LogitsRow, Result, Sampler, StreamState};

/// Drafts the next tokens of one stream, and finds out which of them are right. It has all buffers: once they have grown,
/// nothing is allocated.
///
/// The [module](crate::speculation) says how it works. It never changes the stream: `state` moves ahead and back within a call, and
/// the caller appends the accepted tokens as it appends a drawn one.
#[derive(Debug)]
pub struct Speculator {
    setting: Speculation,
    sources: Vec<Box<dyn DraftSource>>,
    memory: Memory,
    drafts: Vec<Draft>,
    /// The tokens of the path that is being drafted.
    drafted: Vec<u32>,
    path: Vec<usize>,
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

impl Speculator {
    /// One for a new stream.
    pub fn new(setting: Speculation) -> Self {
        Self {
            setting,
            sources: vec![Box::new(Lookup::default()), Box::new(Stale)],
            memory: Memory::default(),
            drafts: Vec::new(),
            drafted: Vec::new(),
            path: Vec::new(),
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
        self.drafts.clear();
        self.drafted.clear();
        let places = self.setting.window().map_or(places, |window| window.min(places));
        if places == 0 || !sampler.is_pure() {
            return &self.drafts;
        }
        self.memory.reserve(places + 1);
        let start = state.snapshot();
        let mut n_placed = 0;
        while self.drafts.len() < room {
            let Some((token, kind)) = self.next(sampler, state, tokens, n_placed < places) else { break };
            n_placed += usize::from(kind != DraftKind::Forced);
            let parent = self.drafts.len().checked_sub(1);
            self.drafts.push(Draft { token, parent, position: state.len(), kind });
            self.drafted.push(token);
            state.push(token);
        }
        state.rollback(start);
        &self.drafts
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

    /// The drafts of the pass.
    pub fn drafts(&self) -> &[Draft] {
        &self.drafts
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
        mut rows: impl FnMut(usize) -> (LogitsRow<'r>, Option<LogitsRow<'r>>),
        accept: impl FnMut(u32) -> bool,
    ) -> Result<Verified<'_>> {
        self.follow(
            state,
            |row, state| {
                if let Some(token) = sampler.forced(state) {
                    return Ok(Some(token));
                }
                let (conditional, unconditional) = rows(row);
                sampler.sample(conditional, unconditional, state).map(Some)
            },
            accept,
        )
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
        let draw = |row, state: &StreamState| Ok(sampler.forced(state).or_else(|| draws.get(row).copied()));
        self.follow(state, draw, accept).expect("no draw fails")
    }

    /// Follows the drafts with these draws, and notes what is drawn behind them.
    fn follow(
        &mut self,
        state: &mut StreamState,
        mut draw: impl FnMut(usize, &StreamState) -> Result<Option<u32>>,
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
                let token = draw(row, state).map_err(|failed| error = Some(failed)).ok()??;
                memory.note(state.len(), token);
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
        // The draws behind, from a stream with a wrong token: the next drafts.
        if goes_on {
            for (index, draft) in self.drafts.iter().enumerate() {
                state.push(draft.token);
                if index >= self.path.len() {
                    // Plain decoding never sees these logits: what is wrong with them is no error.
                    let Ok(Some(token)) = draw(index + 1, state) else { break };
                    memory.note(state.len(), token);
                }
            }
            state.rollback(start);
        }
        Ok(Verified { tokens: n_tokens, path: &self.path })
    }
}
