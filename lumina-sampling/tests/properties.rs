//! What holds for any logits, sizes and seeds.
#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in test functions, but not in what they share")]

use std::sync::Arc;

use lumina_sampling::{
    Allowed, Candidates, Error, ImageSize, LogitsRow, MinP, Modality, Phase, Sampler, SamplingOptions, Slot, Step,
    StreamState, TopK, TopP, Vocabulary,
};
use proptest::prelude::*;

/// As many as the small vocabulary has tokens.
const N_LOGITS: usize = 32;

fn vocabulary() -> Arc<Vocabulary> {
    Arc::new(include!("support/small_vocabulary.rs"))
}

/// Logits that look random and depend on the position.
fn logits(seed: u32, position: usize) -> Vec<f32> {
    let seed = seed.wrapping_add((position as u32).wrapping_mul(0x9e37_79b9));
    lumina_testing::lcg(seed).map(|state| (state >> 16) as f32 / 4096.0 - 8.0).take(N_LOGITS).collect()
}

/// Goes on with a stream until its turn ends, or for a number of tokens.
fn generate(options: &SamplingOptions, prompt: &[u32], logits_seed: u32, limit: usize) -> Vec<u32> {
    let vocabulary = vocabulary();
    let mut sampler = Sampler::new(&vocabulary, options).unwrap();
    let mut state = StreamState::new(vocabulary.clone(), prompt);
    let mut answer = Vec::new();
    while answer.len() < limit && answer.last() != Some(&vocabulary.turn_end()) {
        let unconditional = sampler.unconditional(&state).map(|_| logits(!logits_seed, state.len()));
        let token =
            sampler.sample(&logits(logits_seed, state.len()), unconditional.as_ref().map(Into::into), &state).unwrap();
        assert!(sampler.forced(&state).is_none_or(|forced| forced == token));
        answer.push(token);
        state.push(token);
    }
    answer
}

/// Reads an image as the layout says, with no help of the state, and gives its size.
fn read_image(tokens: &[u32]) -> Option<ImageSize> {
    let vocabulary = vocabulary();
    let [start, height, width, rows @ .., end] = tokens else { return None };
    let (height, width) = (vocabulary.cells_of_token(*height)?, vocabulary.cells_of_token(*width)?);
    let size = ImageSize::from_cells(width, height).ok()?;
    let is_row = |row: &[u32]| {
        let (last, codes) = row.split_last().unwrap();
        *last == vocabulary.row_end() && codes.iter().all(|&token| vocabulary.code_of_token(token).is_some())
    };
    let well_formed = *start == vocabulary.image_start()
        && *end == vocabulary.image_end()
        && tokens.len() == size.n_tokens()
        && rows.chunks(size.latent_columns() as usize + 1).all(is_row);
    well_formed.then_some(size)
}

fn options() -> impl Strategy<Value = SamplingOptions> {
    (
        any::<u64>(),
        0.0..8f32,
        1..40usize,
        0.1..3f32,
        proptest::option::of(0.05..=1f32),
        proptest::option::of(0.0..0.9f32),
    )
        .prop_map(|(seed, scale, k, temperature, top_p, min_p)| {
            let mut options = SamplingOptions::default().seed(seed).guidance_scale(scale).temperature(temperature);
            (options.top_p, options.min_p) = (top_p, min_p);
            options.image_top_k(k).text_top_k(k)
        })
}

/// Sizes that the small vocabulary has size tokens for.
fn size() -> impl Strategy<Value = ImageSize> {
    (1..=3u32, 1..=3u32).prop_map(|(width, height)| ImageSize::from_cells(width, height).unwrap())
}

proptest! {
    #[test]
    fn an_image_of_free_size_is_well_formed(options in options(), seed: u32) {
        let answer = generate(&options.modality(Modality::Image), &[0], seed, usize::MAX);
        let (turn_end, image) = answer.split_last().unwrap();
        prop_assert_eq!(*turn_end, vocabulary().turn_end());
        prop_assert!(read_image(image).is_some(), "{:?}", answer);
    }

    #[test]
    fn an_image_of_fixed_size_is_well_formed(options in options(), size in size(), seed: u32, greedy: bool) {
        let mut options = options.image_size(size);
        options.greedy = greedy;
        let answer = generate(&options, &[0], seed, size.n_tokens());
        prop_assert_eq!(read_image(&answer), Some(size));
    }

    #[test]
    fn the_longest_answer_is_that_of_an_image_of_fixed_size(options in options(), size in size(), seed: u32) {
        let vocabulary = vocabulary();
        let options = options.modality(Modality::Image).image_size(size);
        let answer = generate(&options, &[0], seed, usize::MAX);
        let sampler = Sampler::new(&vocabulary, &options).unwrap();
        let mut state = StreamState::new(vocabulary.clone(), &[0]);
        prop_assert_eq!(sampler.longest_answer(&state), Some(size.n_tokens() + 1));
        for (index, &token) in answer.iter().enumerate() {
            prop_assert!(sampler.longest_answer(&state).is_none_or(|longest| longest == answer.len() - index));
            prop_assert!(sampler.candidate_range(&state, N_LOGITS).contains(&(token as usize)));
            state.push(token);
        }
        let any = Sampler::new(&vocabulary, &SamplingOptions::default()).unwrap();
        prop_assert_eq!(any.longest_answer(&StreamState::new(vocabulary, &[0])), None);
    }

    #[test]
    fn an_image_whose_sizes_are_drawn_is_well_formed(options in options(), size in size(), seed: u32) {
        let vocabulary = vocabulary();
        let size_token = |cells| vocabulary.size_token(cells).unwrap();
        let begun =
            [vocabulary.image_start(), size_token(size.height_cells()), size_token(size.width_cells())];
        let rest = generate(&options, &[&[0], &begun[..]].concat(), seed, size.n_tokens() - begun.len());
        prop_assert_eq!(read_image(&[&begun[..], &rest].concat()), Some(size));
    }

    #[test]
    fn text_alone_holds_no_image(options in options(), seed: u32) {
        let vocabulary = vocabulary();
        let answer = generate(&options.modality(Modality::Text), &[0], seed, 50);
        prop_assert!(answer.iter().all(|&token| token == vocabulary.turn_end() || !vocabulary.is_control(token)));
    }

    #[test]
    fn any_tokens_and_logits_give_a_token_or_an_error(
        options in options(),
        prompt in proptest::collection::vec(0..40u32, 0..40),
        row in proptest::collection::vec(proptest::num::f32::ANY, 0..40),
        other in proptest::option::of(proptest::collection::vec(proptest::num::f32::ANY, 0..40)),
    ) {
        let vocabulary = vocabulary();
        let state = StreamState::new(vocabulary.clone(), &prompt);
        for modality in [Modality::Any, Modality::Text, Modality::Image, Modality::TextThenImage] {
            let mut sampler = Sampler::new(&vocabulary, &options.clone().modality(modality)).unwrap();
            let result = sampler.sample(&row, other.as_ref().map(Into::into), &state);
            if let Ok(token) = result {
                prop_assert!(sampler.forced(&state) == Some(token) || (token as usize) < row.len());
            }
        }
    }

    #[test]
    fn a_token_does_not_depend_on_other_calls(options in options(), seed: u32, length in 1..60usize) {
        let vocabulary = vocabulary();
        let stream = [vec![0], generate(&options.clone().modality(Modality::Image), &[0], seed, length)].concat();
        let mut used = Sampler::new(&vocabulary, &options).unwrap();
        let sample = |sampler: &mut Sampler, length: usize| {
            let state = StreamState::new(vocabulary.clone(), &stream[..length]);
            sampler.sample(&logits(seed, length), Some((&logits(!seed, length)).into()), &state)
        };
        let forwards: Vec<_> = (0..=stream.len()).map(|length| sample(&mut used, length)).collect();
        let backwards: Vec<_> = (0..=stream.len()).rev().map(|length| sample(&mut used, length)).collect();
        prop_assert!(forwards.iter().eq(backwards.iter().rev()));
        let fresh = |length| sample(&mut Sampler::new(&vocabulary, &options).unwrap(), length);
        prop_assert_eq!(&forwards, &(0..=stream.len()).map(fresh).collect::<Vec<_>>());
    }

    #[test]
    fn a_state_that_is_rolled_back_is_what_it_was(
        prompt in proptest::collection::vec(0..40u32, 0..30),
        answer in proptest::collection::vec(0..40u32, 0..60),
        points in proptest::collection::vec((any::<proptest::sample::Index>(), any::<proptest::sample::Index>()), 0..6),
    ) {
        let vocabulary = vocabulary();
        let fresh = |n_answer: usize| {
            let mut state = StreamState::new(vocabulary.clone(), &prompt);
            answer[..n_answer].iter().for_each(|&token| state.push(token));
            state
        };
        let mut state = fresh(0);
        let mut snapshots = vec![state.snapshot()];
        for (ahead, back) in points {
            // On from where it is, with a snapshot after each token, then back to any of them.
            let to = ahead.index(answer.len() + 1);
            for &token in answer.get(state.answer_len()..to).unwrap_or_default() {
                state.push(token);
                snapshots.push(state.snapshot());
            }
            let n_answer = back.index(snapshots.len());
            state.rollback(snapshots[n_answer]);
            snapshots.truncate(n_answer + 1);
            let expected = fresh(n_answer);
            prop_assert_eq!(&state, &expected);
            let sorted = |state: &StreamState| {
                let mut tokens: Vec<_> = state.text_tokens().collect();
                tokens.sort_unstable();
                tokens
            };
            prop_assert_eq!(sorted(&state), sorted(&expected));
            prop_assert_eq!((state.len(), state.answer_len()), (prompt.len() + n_answer, n_answer));
        }
    }

    #[test]
    fn a_row_of_a_range_of_ids_gives_what_the_whole_row_gives(
        options in options(),
        seed: u32,
        length in 0..40usize,
        first_id in 0..12u32,
        end in 0..=N_LOGITS,
        text_alone: bool,
    ) {
        let vocabulary = vocabulary();
        let modality = if text_alone { Modality::Text } else { Modality::Image };
        let stream = [vec![0], generate(&options.clone().modality(Modality::Image), &[0], seed, length)].concat();
        let state = StreamState::new(vocabulary.clone(), &stream);
        let (conditional, unconditional) = (logits(seed, length), logits(!seed, length));
        let mut sampler = Sampler::new(&vocabulary, &options.modality(modality)).unwrap();
        prop_assume!(sampler.forced(&state).is_none());
        let (needed, end) = match sampler.allowed(&state) {
            Allowed::Only(tokens) => (tokens[0]..=*tokens.last().unwrap(), end.max(first_id as usize)),
            // In text the token 0 is excluded, 1 is not, and the end of the row is that of the vocabulary.
            Allowed::AllBut(_) => (1..=1, N_LOGITS),
            Allowed::One(_) => unreachable!("forced"),
        };

        let whole = sampler.candidates(&conditional, Some((&unconditional).into()), &state).unwrap();
        let whole: Vec<_> = whole.iter().collect();
        let [conditional, unconditional] =
            [&conditional, &unconditional].map(|row| LogitsRow { first_id, logits: &row[first_id as usize..end] });
        let ranged = sampler.candidates(conditional, Some(unconditional), &state);
        if first_id > *needed.start() || end as u32 <= *needed.end() {
            let Err(Error::ShortRow { ids, token }) = ranged else { panic!("{ranged:?}") };
            prop_assert_eq!(&ids, &(first_id..end as u32));
            prop_assert!(needed.contains(&token) && !ids.contains(&token));
        } else {
            prop_assert!(ranged.unwrap().iter().eq(whole));
        }
    }

    #[test]
    fn top_k_keeps_the_k_highest_and_their_ties(
        row in proptest::collection::vec((-4..4i8).prop_map(f32::from), 1..500),
        k in 1..600usize,
    ) {
        let state = StreamState::new(vocabulary(), &[]);
        let mut candidates = Candidates::from_row(&row).unwrap();
        TopK { image: 1, text: k }.apply(&mut candidates, &state);
        let mut sorted = row.clone();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let kth = sorted[k.min(row.len()) - 1];
        let expected = (0..row.len() as u32).filter(|&token| row[token as usize] >= kth);
        prop_assert_eq!(candidates.tokens(), expected.collect::<Vec<_>>());
        prop_assert!(candidates.len() >= k.min(row.len()));
        prop_assert!(candidates.iter().all(|(token, logit)| row[token as usize] == logit));
    }

    #[test]
    fn top_p_and_min_p_keep_the_likeliest(row in proptest::collection::vec(-6f32..6.0, 1..200), p in 0.01f32..=1.0) {
        let state = StreamState::new(vocabulary(), &[]);
        let mut all = Candidates::from_row(&row).unwrap();
        let probabilities = all.probabilities().unwrap().to_vec();
        let highest = probabilities.iter().copied().fold(0.0, f64::max);
        let lowest = |candidates: &Candidates| {
            candidates.tokens().iter().map(|&token| probabilities[token as usize]).fold(1.0, f64::min)
        };
        let sum = |candidates: &Candidates| -> f64 {
            candidates.tokens().iter().map(|&token| probabilities[token as usize]).sum()
        };

        let mut kept = all.clone();
        TopP(p).apply(&mut kept, &state);
        prop_assert!(sum(&kept) >= f64::from(p) - 1e-9);
        let without_last = probabilities.iter().filter(|&&q| q > lowest(&kept)).sum::<f64>();
        prop_assert!(without_last < f64::from(p) + 1e-9);

        let mut kept = all.clone();
        MinP(p).apply(&mut kept, &state);
        let n_likely = probabilities.iter().filter(|&&q| q >= f64::from(p) * highest * (1.0 + 1e-9)).count();
        prop_assert!(kept.len() >= n_likely && lowest(&kept) >= f64::from(p) * highest * (1.0 - 1e-9));
    }
}

#[test]
fn bad_rows_are_named() {
    let vocabulary = vocabulary();
    let mut sampler = Sampler::new(&vocabulary, &SamplingOptions::default()).unwrap();
    let text = StreamState::new(vocabulary.clone(), &[0]);
    let size = vocabulary.size_token(1).unwrap();
    let image = StreamState::new(vocabulary.clone(), &[0, vocabulary.image_start(), size, size]);
    let (Phase::Rows(rows), row) = (image.phase(), [0.0; N_LOGITS]) else { panic!("in the rows") };
    assert_eq!(rows.expected(), Slot::Code { row: 0, column: 0 });

    let mut nan = row;
    nan[5] = f32::NAN;
    for (state, row, other, part) in [
        (&text, &nan[..], None, "token 5 is NaN"),
        (&image, &nan[..], Some(&row[..]), "token 5 is NaN"),
        (&image, &row[..], Some(&nan[..]), "token 5 is NaN"),
        (&image, &row[..], None, "guidance applies at position 4"),
        (&image, &row[..], Some(&row[..3]), "32 logits and the unconditional one 3"),
        (&image, &row[..6], Some(&row[..6]), "6 logits has none for token 7"),
        (&text, &[][..], None, "no token is left to draw at position 1"),
        (&text, &[f32::NEG_INFINITY; 40][..], None, "no token is left to draw at position 1"),
    ] {
        let message = sampler.sample(row, other.map(Into::into), state).unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn infinite_logits_share_the_draw() {
    let mut row = [0.0; N_LOGITS];
    (row[3], row[20], row[21]) = (f32::INFINITY, f32::INFINITY, f32::NEG_INFINITY);
    let vocabulary = vocabulary();
    let options = SamplingOptions::default().top_p(0.9).min_p(0.1).temperature(0.5);
    let mut sampler = Sampler::new(&vocabulary, &options).unwrap();
    let candidates = sampler.candidates(&row, None, &StreamState::new(vocabulary, &[0])).unwrap();
    assert_eq!(candidates.tokens(), [3, 20]);
    assert_eq!(candidates.probabilities().unwrap(), [0.5, 0.5]);
}

#[test]
fn greedy_takes_the_first_of_the_highest() {
    let mut row = [0.0; N_LOGITS];
    (row[25], row[17]) = (1.0, 1.0);
    let vocabulary = vocabulary();
    let mut sampler = Sampler::new(&vocabulary, &SamplingOptions::default().greedy()).unwrap();
    assert_eq!(sampler.sample(&row, None, &StreamState::new(vocabulary, &[0])), Ok(17));
}

#[test]
fn repetition_is_penalised_in_text_alone() {
    let vocabulary = vocabulary();
    let mut row = [-4.0; N_LOGITS];
    (row[17], row[18], row[vocabulary.turn_end() as usize]) = (2.0, -2.0, 1.0);
    let prompt = [0, 17, 17, 18, vocabulary.turn_end()];
    let options = SamplingOptions::default().repetition_penalty(2.0).text_top_k(3).guidance_scale(1.0);
    let mut sampler = Sampler::new(&vocabulary, &options).unwrap();

    let state = StreamState::new(vocabulary.clone(), &prompt);
    let candidates = sampler.candidates(&row, None, &state).unwrap();
    let kept = |token| candidates.iter().find(|&(kept, _)| kept == token).map(|(_, logit)| logit);
    assert_eq!((kept(17), kept(18), kept(vocabulary.turn_end())), (Some(1.0), Some(-4.0), Some(1.0)));

    let state = StreamState::new(vocabulary.clone(), &[&prompt[..], &[vocabulary.image_start()]].concat());
    let candidates = sampler.candidates(&row, None, &state).unwrap();
    assert!(candidates.iter().all(|(token, logit)| row[token as usize] == logit));
}

#[test]
fn a_step_that_drops_everything_is_an_error() {
    #[derive(Debug)]
    struct Nothing;
    impl Step for Nothing {
        fn apply(&self, candidates: &mut Candidates, _: &StreamState) {
            candidates.retain(|_, _| false);
        }
    }
    let vocabulary = vocabulary();
    let state = StreamState::new(vocabulary.clone(), &[0]);
    for options in [SamplingOptions::default().top_p(0.5).min_p(0.1), SamplingOptions::default().greedy()] {
        let sampler = Sampler::new(&vocabulary, &options).unwrap();
        for mut sampler in [sampler.clone().step_before(Nothing), sampler.step_after(Nothing)] {
            let error = sampler.sample(&[0.0; N_LOGITS], None, &state);
            assert_eq!(error, Err(Error::NothingLeft { position: 1 }));
        }
    }
}
