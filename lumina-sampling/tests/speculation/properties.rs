//! What holds for any drafts and draws.

use std::sync::atomic::{AtomicUsize, Ordering};

use lumina_sampling::speculation::{Draft, DraftContext, DraftKind, DraftSource, Speculator, accepted_path};
use lumina_sampling::{
    Candidates, Error, ImageSize, LogitsRow, Modality, Sampler, SamplingOptions, Speculation, Step, StreamState,
};
use proptest::prelude::*;

use crate::model::{N_CODES, vocabulary};

/// A tree of drafts of few different tokens, each after any of those before it or the pending token.
fn tree() -> impl Strategy<Value = Vec<Draft>> {
    proptest::collection::vec((any::<proptest::sample::Index>(), 0..3u32), 0..40).prop_map(|nodes| {
        let mut drafts: Vec<Draft> = Vec::new();
        for (parent, token) in nodes {
            let parent = parent.index(drafts.len() + 1).checked_sub(1);
            let position = parent.map_or(10, |parent| drafts[parent].position + 1);
            drafts.push(Draft { token, parent, position, kind: DraftKind::Stale });
        }
        drafts
    })
}

proptest! {
    #[test]
    fn the_path_is_what_drafts_and_draws_agree_on(
        drafts in tree(),
        draws in proptest::collection::vec(0..3u32, 41),
        limit in 0..41usize,
    ) {
        let mut asked = Vec::new();
        let mut path = vec![7];
        let draw = |row: usize| {
            asked.push(row);
            (asked.len() <= limit).then(|| draws[row])
        };
        accepted_path(&drafts, draw, &mut path);

        // One way down the tree, from the pending token on.
        let parents: Vec<_> = path.iter().map(|&index| drafts[index].parent).collect();
        let expected: Vec<_> = std::iter::once(None).chain(path.iter().copied().map(Some)).take(path.len()).collect();
        prop_assert_eq!(parents, expected);
        prop_assert!(path.is_sorted());
        // None was accepted that was not drawn, and the draws were asked for once each, along the path.
        prop_assert!(path.iter().all(|&index| drafts[index].token == draws[drafts[index].row()]));
        let rows: Vec<_> = std::iter::once(0).chain(path.iter().map(|&index| index + 1)).collect();
        prop_assert_eq!(&asked, &rows);
        // It ends where no draft is what was drawn, or where the draws end.
        let last = *rows.last().unwrap();
        let goes_on = drafts.iter().any(|draft| draft.row() == last && draft.token == draws[last]);
        prop_assert!(!goes_on || path.len() == limit);
    }

    #[test]
    fn a_chain_is_accepted_up_to_the_first_that_differs(
        tokens in proptest::collection::vec(0..4u32, 0..50),
        wrong in proptest::option::of(any::<proptest::sample::Index>()),
    ) {
        let draft = |(index, &token): (usize, &u32)| {
            Draft { token, parent: index.checked_sub(1), position: index, kind: DraftKind::Lookup }
        };
        let drafts: Vec<_> = tokens.iter().enumerate().map(draft).collect();
        let wrong = wrong.filter(|_| !tokens.is_empty()).map(|index| index.index(tokens.len()));
        let draw = |row: usize| {
            let token = tokens.get(row).copied().unwrap_or(9);
            Some(if Some(row) == wrong { token + 1 } else { token })
        };
        let mut path = Vec::new();
        accepted_path(&drafts, draw, &mut path);
        prop_assert_eq!(path, (0..wrong.unwrap_or(tokens.len())).collect::<Vec<_>>());
    }
}

/// Drafts one token everywhere.
#[derive(Debug)]
struct Always(u32);

impl DraftSource for Always {
    fn kind(&self) -> DraftKind {
        DraftKind::Lookup
    }

    fn draft(&mut self, _: &DraftContext<'_>) -> Option<u32> {
        Some(self.0)
    }
}

fn text_options() -> SamplingOptions {
    SamplingOptions::default().modality(Modality::Text).greedy().speculation(Speculation::Window(4))
}

/// A row whose likeliest token is this one.
fn row_of(token: u32) -> Vec<f32> {
    let mut row = vec![0.0; 106];
    row[token as usize] = 1.0;
    row
}

#[test]
fn what_is_wrong_behind_a_rejected_draft_is_no_error() {
    let vocabulary = vocabulary();
    let mut sampler = Sampler::new(&vocabulary, &text_options()).unwrap();
    let word = 4 + N_CODES + 20;
    let mut speculator = Speculator::with_sources(Speculation::Window(4), vec![Box::new(Always(word))]);
    let mut state = StreamState::new(vocabulary, &[0]);
    assert_eq!(speculator.draft(&sampler, &mut state, &[0], 9, 9).len(), 4);
    let nan = vec![f32::NAN; 106];
    let rows = [row_of(word), row_of(word), row_of(word + 1), nan.clone(), nan.clone()];
    let mut accepted = Vec::new();
    let accept = |token| {
        accepted.push(token);
        true
    };
    let verified = speculator.verify(&mut sampler, &mut state, |row| ((&rows[row]).into(), None), accept).unwrap();
    assert_eq!((verified.tokens, verified.path), (3, &[0, 1][..]));
    assert_eq!(accepted, [word, word, word + 1]);
    let counts = speculator.statistics().drafts(DraftKind::Lookup);
    assert_eq!((counts.run, counts.checked, counts.accepted), (4, 3, 2));

    // On the path it is the error of plain decoding, after the tokens before it.
    let rows = [row_of(word), nan, row_of(word), row_of(word), row_of(word)];
    let mut accepted = Vec::new();
    let accept = |token| {
        accepted.push(token);
        true
    };
    speculator.draft(&sampler, &mut state, &[0], 9, 9);
    let error = speculator.verify(&mut sampler, &mut state, |row| ((&rows[row]).into(), None), accept);
    assert!(matches!(error, Err(Error::NanLogit { .. })), "{error:?}");
    assert_eq!((accepted, state.len()), (vec![word], 1));
}

#[test]
fn the_caller_can_stop() {
    let vocabulary = vocabulary();
    let mut sampler = Sampler::new(&vocabulary, &text_options()).unwrap();
    let word = 4 + N_CODES + 20;
    let mut speculator = Speculator::with_sources(Speculation::Window(4), vec![Box::new(Always(word))]);
    let mut state = StreamState::new(vocabulary, &[0]);
    speculator.draft(&sampler, &mut state, &[0], 9, 9);
    let (row, mut n_asked) = (row_of(word), 0);
    let rows = |_| {
        n_asked += 1;
        ((&row).into(), None)
    };
    let mut left = 2;
    let accept = |_| {
        left -= 1;
        left > 0
    };
    let verified = speculator.verify(&mut sampler, &mut state, rows, accept).unwrap();
    assert_eq!((verified.tokens, n_asked), (2, 2));
}

#[test]
fn draws_that_are_missing_end_the_path() {
    let vocabulary = vocabulary();
    let sampler = Sampler::new(&vocabulary, &text_options()).unwrap();
    let word = 4 + N_CODES + 20;
    let mut speculator = Speculator::with_sources(Speculation::Window(4), vec![Box::new(Always(word))]);
    let mut state = StreamState::new(vocabulary, &[0]);
    for (draws, tokens) in [(&[][..], 0), (&[word], 1), (&[word, word + 1], 2), (&[word; 5], 5), (&[word; 9], 5)] {
        speculator.draft(&sampler, &mut state, &[0], 9, 9);
        assert_eq!(speculator.verify_drawn(&sampler, &mut state, draws, |_| true).tokens, tokens);
    }
}

/// A step that counts its calls.
#[derive(Debug, Default)]
struct Counting(AtomicUsize);

impl Step for Counting {
    fn apply(&self, _: &mut Candidates, _: &StreamState) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn is_pure(&self) -> bool {
        false
    }
}

#[test]
fn steps_that_are_not_pure_draw_one_token_a_pass() {
    let vocabulary = vocabulary();
    let sampler = Sampler::new(&vocabulary, &text_options()).unwrap();
    assert!(sampler.is_pure());
    let mut state = StreamState::new(vocabulary, &[0]);
    for sampler in [sampler.clone().step_before(Counting::default()), sampler.step_after(Counting::default())] {
        assert!(!sampler.is_pure());
        let mut speculator = Speculator::with_sources(Speculation::Window(4), vec![Box::new(Always(90))]);
        assert!(speculator.draft(&sampler, &mut state, &[0], 9, 9).is_empty());
        let draws = speculator.verify_drawn(&sampler, &mut state, &[91], |_| true);
        assert_eq!((draws.tokens, draws.path), (1, &[][..]));
    }
}

#[test]
fn drafts_fit_their_place() {
    let vocabulary = vocabulary();
    let size = ImageSize::new(64, 64).unwrap();
    let options = SamplingOptions::default().modality(Modality::Any).image_size(size);
    let sampler = Sampler::new(&vocabulary, &options).unwrap();
    let (start, cells, code) = (vocabulary.image_start(), vocabulary.size_token(2).unwrap(), 4);
    let image = [0, start, cells, cells];
    let turn_end = vocabulary.turn_end();
    // The stream, the token that the source has, and the drafts.
    let cases: [(&[u32], u32, usize); 7] = [
        // The next token is forced: no pass.
        (&[0], code, 0),
        (&[0, start], code, 0),
        // Four codes a row, and its end; up to the end of the last row.
        (&image, code, 9 + 2),
        (&[&image[..], &[4; 10]].concat(), code, 8 + 2),
        // Neither words in an image nor image tokens in text, and no end of the turn.
        (&image, 100, 0),
        (&[0, start, cells, cells, 1], 100, 0),
        (&[0, start, cells, cells, 1], turn_end, 0),
    ];
    for (stream, token, n_drafts) in cases {
        let mut state = StreamState::new(vocabulary.clone(), &[]);
        stream.iter().for_each(|&token| state.push(token));
        let mut speculator = Speculator::with_sources(Speculation::Window(9), vec![Box::new(Always(token))]);
        let drafts = speculator.draft(&sampler, &mut state, stream, 100, 100);
        assert_eq!(drafts.len(), n_drafts, "{stream:?} {token}: {drafts:?}");
        assert_eq!(speculator.draft(&sampler, &mut state, stream, 100, 5).len(), n_drafts.min(5));
        assert!(speculator.draft(&sampler, &mut state, stream, 0, 5).is_empty());
    }
}

/// Whatever a program says, no call panics.
#[test]
fn calls_out_of_order_are_no_panic() {
    let vocabulary = vocabulary();
    let size = ImageSize::new(64, 64).unwrap();
    let options = SamplingOptions::default().image_size(size).guidance_scale(1.0);
    let mut sampler = Sampler::new(&vocabulary, &options).unwrap();
    let cells = vocabulary.size_token(2).unwrap();
    let most = Speculation::Tree { window: usize::MAX, depth: usize::MAX, width: usize::MAX };
    let least = Speculation::Tree { window: 30, depth: 0, width: 0 };
    let mut speculators = [most, least, Speculation::Window(usize::MAX), Speculation::Auto].map(Speculator::new);
    let row = row_of(5);
    let mut states: Vec<_> = (0..30usize)
        .map(|n| {
            let mut tokens = vec![0, vocabulary.image_start(), cells, cells];
            tokens.resize(4 + n, 4 + n as u32);
            StreamState::new(vocabulary.clone(), &tokens)
        })
        .collect();
    for seed in 0..2000usize {
        let state = &mut states[seed * 7919 % 30];
        let speculator = &mut speculators[seed / 3 % 4];
        if seed % 3 == 0 {
            // The tokens are not those of the state.
            let (places, room) = if seed % 99 == 0 { (usize::MAX, usize::MAX) } else { (seed % 50, seed % 60) };
            speculator.draft(&sampler, state, &vec![4; seed % 40], places, room);
        }
        let row = |_| -> (LogitsRow<'_>, _) { ((&row).into(), None) };
        let verified = speculator.verify(&mut sampler, state, row, |_| true).unwrap();
        assert!(verified.tokens > 0);
    }
}
