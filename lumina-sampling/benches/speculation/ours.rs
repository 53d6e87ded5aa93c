//! The speculator of this crate on the process.

use std::sync::Arc;
use std::time::Instant;

use lumina_sampling::speculation::{Draft, DraftContext, DraftKind, DraftSource, Neighbours, Speculator, Stale};
use lumina_sampling::{ImageSize, LogitsRow, Modality, Sampler, SamplingOptions, Speculation, StreamState, Vocabulary};

use crate::Run;
use crate::process::{FIRST_ID, HEADER, N_TOKENS, Process, TOP_K};

/// What drafts come from.
#[derive(Clone, Copy)]
pub(crate) struct Method {
    pub(crate) name: &'static str,
    first_drafts: FirstDrafts,
    next_drafts: NextDrafts,
    /// Depth and width.
    tree: Option<(usize, usize)>,
    /// Whether a device draws: the host has no logits.
    on_device: bool,
}

/// Those of positions that no pass has reached.
#[derive(Clone, Copy, PartialEq)]
enum FirstDrafts {
    Random,
    Neighbours,
}

/// Those of other positions.
#[derive(Clone, Copy, PartialEq)]
enum NextDrafts {
    /// The last draw.
    Last,
    /// The last draw after the same tokens.
    AfterTheSame,
}

impl Method {
    pub(crate) const ALL: [Self; 8] = {
        use {FirstDrafts::*, NextDrafts::*};
        const fn of(
            name: &'static str,
            first_drafts: FirstDrafts,
            next_drafts: NextDrafts,
            tree: Option<(usize, usize)>,
            on_device: bool,
        ) -> Method {
            Method { name, first_drafts, next_drafts, tree, on_device }
        }
        [
            of("last draws; first drafts random", Random, Last, None, false),
            of("last draws; first drafts of neighbours", Neighbours, Last, None, false),
            of("draws after the same tokens; first drafts random", Random, AfterTheSame, None, false),
            of("draws after the same tokens; first drafts of neighbours", Neighbours, AfterTheSame, None, false),
            of("the same and a tree, depth 1, width 4", Neighbours, AfterTheSame, Some((1, 4)), false),
            of("the same and a tree, depth 3, width 8", Neighbours, AfterTheSame, Some((3, 8)), false),
            of("drawn on a device", Neighbours, AfterTheSame, None, true),
            of("drawn on a device, tree, depth 3, width 8", Neighbours, AfterTheSame, Some((3, 8)), true),
        ]
    };
}

/// The last draw at the position.
#[derive(Debug)]
struct LastDraw;

impl DraftSource for LastDraw {
    fn kind(&self) -> DraftKind {
        DraftKind::Stale
    }

    fn draft(&mut self, context: &DraftContext<'_>) -> Option<u32> {
        context.last_draw()
    }
}

/// Any image token.
#[derive(Debug)]
struct Random(u32);

impl DraftSource for Random {
    fn kind(&self) -> DraftKind {
        DraftKind::Neighbours
    }

    fn draft(&mut self, _: &DraftContext<'_>) -> Option<u32> {
        self.0 = lumina_testing::lcg(self.0).next()?;
        Some(FIRST_ID + (self.0 >> 16) % N_TOKENS as u32)
    }
}

/// An image, with passes of so many tokens.
pub(crate) fn run(process: &Process, vocabulary: &Arc<Vocabulary>, window: usize, method: Method, seed: u64) -> Run {
    let places = window - 1;
    let speculation = match method.tree {
        Some((depth, width)) => Speculation::Tree { window: places, depth, width },
        None => Speculation::Window(places),
    };
    let size = ImageSize::new(768, 768).expect("multiples of 32");
    let options = SamplingOptions::default()
        .seed(seed)
        .guidance_scale(1.0)
        .image_top_k(TOP_K)
        .modality(Modality::Image)
        .image_size(size);
    let mut sampler = Sampler::new(vocabulary, &options).expect("in range");
    let next: Box<dyn DraftSource> = match method.next_drafts {
        NextDrafts::Last => Box::new(LastDraw),
        NextDrafts::AfterTheSame => Box::new(Stale),
    };
    let first: Box<dyn DraftSource> = match method.first_drafts {
        FirstDrafts::Random => Box::new(Random(seed as u32)),
        FirstDrafts::Neighbours => Box::new(Neighbours),
    };
    let mut speculator = Speculator::with_sources(speculation, vec![next, first]);

    let mut tokens = vec![vocabulary.bos()];
    let mut state = StreamState::new(vocabulary.clone(), &tokens);
    let mut run = Run::default();
    let mut rows: Vec<Vec<f32>> = Vec::new();
    loop {
        while let Some(token) = sampler.forced(&state) {
            if tokens.len() > HEADER {
                run.picture.push('\n');
            }
            tokens.push(token);
            state.push(token);
        }
        if tokens.len() >= HEADER + process.n_places() {
            return run;
        }
        let started = Instant::now();
        speculator.draft(&sampler, &mut state, &tokens, places, usize::MAX);
        run.times[0].push(started.elapsed());
        run.passes += 1;
        pass(process, &tokens, speculator.drafts(), &mut rows);

        let mut accepted = Vec::new();
        let accept = |token| {
            accepted.push(token);
            true
        };
        if method.on_device {
            let draws = draw(&mut sampler, &tokens, speculator.drafts(), &rows, vocabulary);
            let started = Instant::now();
            speculator.verify_drawn(&sampler, &mut state, &draws, accept);
            run.times[1].push(started.elapsed());
        } else {
            let started = Instant::now();
            let row = |row: usize| (LogitsRow { first_id: FIRST_ID, logits: &rows[row] }, None);
            speculator.verify(&mut sampler, &mut state, row, accept).expect("finite logits");
            run.times[1].push(started.elapsed());
        }
        let last = accepted.len() - 1;
        for (index, token) in accepted.into_iter().enumerate() {
            let is_code = vocabulary.code_of_token(token).is_some();
            run.tokens += usize::from(is_code);
            run.picture.push(match (is_code, index == last) {
                (false, _) => '\n',
                (true, true) => '#',
                (true, false) => '·',
            });
            tokens.push(token);
            state.push(token);
        }
    }
}

/// The logits after the last token and after each draft.
fn pass(process: &Process, tokens: &[u32], drafts: &[Draft], rows: &mut Vec<Vec<f32>>) {
    rows.resize_with(rows.len().max(drafts.len() + 1), Vec::new);
    for (row, logits) in rows.iter_mut().enumerate().take(drafts.len() + 1) {
        let place = row.checked_sub(1).map_or(tokens.len(), |draft| drafts[draft].position + 1) - HEADER;
        if process.is_row_end(place) {
            continue;
        }
        let before = |back: usize| {
            let mut row = row;
            for _ in 1..back {
                row = row.checked_sub(1).map_or(0, |draft| drafts[draft].row());
            }
            let token = row.checked_sub(1).map_or_else(|| tokens[HEADER + place - back], |draft| drafts[draft].token);
            let index = token.checked_sub(FIRST_ID)? as usize;
            (index < N_TOKENS).then_some(index)
        };
        process.logits(place, before, logits);
    }
}

/// What a device draws from these logits.
fn draw(
    sampler: &mut Sampler,
    tokens: &[u32],
    drafts: &[Draft],
    rows: &[Vec<f32>],
    vocabulary: &Arc<Vocabulary>,
) -> Vec<u32> {
    let code = vocabulary.image_tokens()[0];
    let mut state = StreamState::new(vocabulary.clone(), tokens);
    let start = state.snapshot();
    (0..=drafts.len())
        .map(|row| {
            let position = row.checked_sub(1).map_or(tokens.len(), |draft| drafts[draft].position + 1);
            state.rollback(start);
            // In the rows only their number counts.
            (tokens.len()..position).for_each(|_| state.push(code));
            if sampler.forced(&state).is_some() {
                return 0;
            }
            let logits = LogitsRow { first_id: FIRST_ID, logits: &rows[row] };
            sampler.sample(logits, None, &state).expect("finite logits")
        })
        .collect()
}
