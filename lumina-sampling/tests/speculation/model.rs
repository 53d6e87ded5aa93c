//! A model of tables, and generating with it.

use std::sync::Arc;

use lumina_core::layout::Phase;
use lumina_core::{TokenRole, reserved_token_name};
use lumina_sampling::speculation::{Draft, DraftKind, Speculator};
use lumina_sampling::{LogitsRow, Sampler, SamplingOptions, StreamState, Vocabulary};

pub(crate) const N_CODES: u32 = 64;
const N_SIZES: u32 = 8;
const N_WORDS: u32 = 24;
const FIRST_CODE: u32 = 4;
/// As many logits as there are tokens.
const N_LOGITS: usize = (FIRST_CODE + N_CODES + 6 + N_SIZES + N_WORDS) as usize;
/// The longest answer.
pub(crate) const LIMIT: usize = 2000;

pub(crate) fn vocabulary() -> Arc<Vocabulary> {
    let mut names: Vec<String> = ["<s>", "<pad>", "<unk>", "</s>"].map(String::from).to_vec();
    names.extend((0..N_CODES).map(|code| TokenRole::Code(code).name().unwrap().into_owned()));
    names.extend(["<eoss>", "<racm3:break>"].map(String::from));
    names.extend([8706, 8799, 8197, 8000].map(reserved_token_name));
    names.extend((1..=N_SIZES).map(|cells| reserved_token_name(8800 + cells)));
    names.extend((0..N_WORDS).map(|word| format!("word{word}")));
    assert_eq!(names.len(), N_LOGITS);
    Arc::new(Vocabulary::from_tokens(names.iter().map(String::as_str).zip(0..)).unwrap())
}

/// Tables of logits by the token before, the one before that, and the upper neighbour; a pure function of the prefix.
pub(crate) struct Model {
    tables: [Vec<f32>; 4],
}

impl Model {
    /// `scales` are those of the tables: the token before, the one before that, the upper neighbour, and no token.
    pub(crate) fn new(seed: u32, scales: [f32; 4]) -> Self {
        let table = |index: usize| {
            let random = lumina_testing::lcg(seed.wrapping_mul(31).wrapping_add(index as u32));
            let values = random.map(|state| ((state >> 8) as f32 / (1 << 23) as f32 - 1.0) * scales[index]);
            values.take(N_LOGITS * N_LOGITS).collect()
        };
        Self { tables: [0, 1, 2, 3].map(table) }
    }

    /// Adds up the logits after a stream, whose image has rows of so many tokens: `[tokens]`.
    pub(crate) fn logits(&self, stream: &[u32], row_tokens: usize, logits: &mut Vec<f32>) {
        let back = |n: usize| stream.len().checked_sub(n).map_or(0, |at| stream[at] as usize);
        let row = |table: usize, token: usize| &self.tables[table][token * N_LOGITS..][..N_LOGITS];
        logits.clear();
        logits.extend_from_slice(row(3, 0));
        for part in [row(0, back(1)), row(1, back(2)), row(2, back(row_tokens))] {
            logits.iter_mut().zip(part).for_each(|(logit, part)| *logit += part);
        }
    }
}

/// How tokens are verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    Logits,
    /// The draws of a device.
    Draws,
}

/// An answer by plain decoding.
pub(crate) fn plain(options: &SamplingOptions, models: &[Model; 2], prompt: &[u32]) -> Vec<u32> {
    let vocabulary = vocabulary();
    let mut sampler = Sampler::new(&vocabulary, options).unwrap();
    let mut state = StreamState::new(vocabulary.clone(), prompt);
    let mut tokens = prompt.to_vec();
    let mut rows = [Vec::new(), Vec::new()];
    while goes_on(&vocabulary, &tokens, prompt) {
        for (model, row) in models.iter().zip(&mut rows) {
            model.logits(&tokens, row_tokens(&state), row);
        }
        let token = sampler.sample(&rows[0], Some((&rows[1]).into()), &state).unwrap();
        tokens.push(token);
        state.push(token);
    }
    tokens
}

fn goes_on(vocabulary: &Vocabulary, tokens: &[u32], prompt: &[u32]) -> bool {
    tokens.len() < prompt.len() + LIMIT
        && (tokens.len() == prompt.len() || tokens.last() != Some(&vocabulary.turn_end()))
}

fn row_tokens(state: &StreamState) -> usize {
    match state.phase() {
        Phase::Rows(image) => image.size().latent_columns() as usize + 1,
        _ => 3,
    }
}

/// What several tokens a pass gave.
pub(crate) struct Answer {
    pub(crate) tokens: Vec<u32>,
    pub(crate) passes: usize,
    pub(crate) speculator: Speculator,
}

/// The same answer with so many drafts a pass, with checks of all that is promised on the way.
pub(crate) fn speculative(
    options: &SamplingOptions,
    models: &[Model; 2],
    prompt: &[u32],
    places: usize,
    by: By,
) -> Answer {
    let vocabulary = vocabulary();
    let mut sampler = Sampler::new(&vocabulary, options).unwrap();
    let mut speculator = Speculator::new(options.speculation);
    let mut state = StreamState::new(vocabulary.clone(), prompt);
    let (mut tokens, mut passes) = (prompt.to_vec(), 0);
    let mut rows: Vec<[Vec<f32>; 2]> = Vec::new();
    let mut stream = Vec::new();
    let mut accepted = Vec::new();
    // Some of the passes have little room.
    let mut rooms = lumina_testing::lcg(options.seed as u32).map(|state| if state >> 29 == 0 { 3 } else { 1000 });
    while goes_on(&vocabulary, &tokens, prompt) {
        if let Some(token) = sampler.forced(&state) {
            tokens.push(token);
            state.push(token);
            continue;
        }
        passes += 1;
        let start = state.snapshot();
        let room = rooms.next().unwrap();
        speculator.draft(&sampler, &mut state, &tokens, places, room);
        assert_eq!(state.snapshot(), start);
        check_drafts(speculator.drafts(), &state, tokens.len(), places, room);

        let drafts = speculator.drafts();
        rows.resize_with(rows.len().max(drafts.len() + 1), Default::default);
        let mut draws = Vec::new();
        for (row, both) in rows.iter_mut().enumerate().take(drafts.len() + 1) {
            stream.clear();
            stream.extend_from_slice(&tokens);
            let path = push_path(drafts, row, &mut stream);
            for (model, logits) in models.iter().zip(&mut *both) {
                model.logits(&stream, row_tokens(&state), logits);
            }
            if by == By::Draws {
                state.rollback(start);
                stream[stream.len() - path..].iter().for_each(|&token| state.push(token));
                draws.push(sampler.sample(&both[0], Some((&both[1]).into()), &state).unwrap());
                state.rollback(start);
            }
        }
        accepted.clear();
        let accept = |token| {
            accepted.push(token);
            true
        };
        let verified = match by {
            By::Draws => speculator.verify_drawn(&sampler, &mut state, &draws, accept),
            By::Logits => {
                let rows =
                    |row: usize| -> (LogitsRow<'_>, _) { ((&rows[row][0]).into(), Some((&rows[row][1]).into())) };
                speculator.verify(&mut sampler, &mut state, rows, accept).unwrap()
            }
        };
        let path = verified.path.to_vec();
        assert_eq!((verified.tokens, path.len() + 1), (accepted.len(), accepted.len()));
        assert!(path.iter().map(|&index| speculator.drafts()[index].token).eq(accepted[..path.len()].iter().copied()));
        assert_eq!(state.snapshot(), start);
        for &token in &accepted {
            if goes_on(&vocabulary, &tokens, prompt) {
                tokens.push(token);
                state.push(token);
            }
        }
    }
    Answer { tokens, passes, speculator }
}

/// Appends the drafts that lead to a row, and gives their number.
pub(crate) fn push_path(drafts: &[Draft], row: usize, stream: &mut Vec<u32>) -> usize {
    let Some(index) = row.checked_sub(1) else { return 0 };
    let before = push_path(drafts, drafts[index].row(), stream);
    stream.push(drafts[index].token);
    before + 1
}

/// What holds for the drafts of any pass.
fn check_drafts(drafts: &[Draft], state: &StreamState, len: usize, places: usize, room: usize) {
    let n_placed = drafts.iter().filter(|draft| draft.kind != DraftKind::Forced).count();
    assert!(n_placed <= places && drafts.len() <= room);
    for (index, draft) in drafts.iter().enumerate() {
        assert!(draft.parent.is_none_or(|parent| parent < index), "topological order");
        assert_eq!(draft.position, draft.parent.map_or(len, |parent| drafts[parent].position + 1));
        let is_twin = |other: &Draft| other.parent == draft.parent && other.token == draft.token;
        assert!(!drafts[..index].iter().any(is_twin), "a draft is there twice");
        if let Phase::Rows(image) = state.phase() {
            // Up to the end of the last row.
            assert!(draft.position + 2 <= len + image.remaining().unwrap());
            let is_row_end = draft.token == state.vocabulary().row_end();
            assert_eq!(is_row_end, draft.kind == DraftKind::Forced);
        } else {
            assert!(!state.vocabulary().is_control(draft.token));
        }
    }
}
