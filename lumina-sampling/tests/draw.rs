//! The draw follows the probabilities, and is the race that its rule says.
#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in test functions, but not in what they share")]

use std::sync::Arc;

use lumina_sampling::{Candidates, DrawKey, Sampler, SamplingOptions, StreamState, Vocabulary, race};
use proptest::prelude::*;

/// As many as the small vocabulary has tokens.
const N_LOGITS: usize = 32;

fn vocabulary() -> Arc<Vocabulary> {
    Arc::new(include!("support/small_vocabulary.rs"))
}

/// Logits that look random, from -8 to 8.
fn logits(seed: u32) -> Vec<f32> {
    lumina_testing::lcg(seed).map(|state| (state >> 16) as f32 / 4096.0 - 8.0).take(N_LOGITS).collect()
}

proptest! {
    /// The draw passes over candidates that cannot win. The rule takes them all.
    #[test]
    fn the_draw_is_the_first_of_the_race(
        row in proptest::collection::vec(
            prop_oneof![9 => -30f32..30.0, 1 => Just(2.0), 1 => proptest::num::f32::ANY],
            1..900,
        ),
        scale in 0f32..1.0,
        seed: u64,
        branch: u64,
    ) {
        let row: Vec<f32> = row.iter().map(|logit| if logit.is_nan() { 0.0 } else { logit * scale }).collect();
        let candidates = Candidates::from_row(&row).unwrap();
        let highest = candidates.highest();
        let time = |(token, logit)| {
            (race::depth(highest, logit) + race::arrival(race::noise(seed, branch, 0, token)), token)
        };
        let first = candidates.iter().map(time).min().map(|(_, token)| token);
        prop_assert_eq!(candidates.draw(DrawKey { seed, branch }).ok(), first);
    }
}

/// Pearson's statistic of counts against probabilities.
fn chi_squared(counts: &[u32], probabilities: &[f64]) -> f64 {
    assert_eq!(counts.len(), probabilities.len());
    let n_draws = f64::from(counts.iter().sum::<u32>());
    let term = |(&count, probability): (&u32, &f64)| {
        let expected = probability * n_draws;
        (f64::from(count) - expected).powi(2) / expected
    };
    counts.iter().zip(probabilities).map(term).sum()
}

/// How often each candidate is drawn by these keys at these positions, in the order of the tokens.
fn count_draws(row: &[f32], draws: impl Iterator<Item = (DrawKey, usize)>) -> (Vec<u32>, Vec<f64>) {
    let vocabulary = vocabulary();
    let options = SamplingOptions::default().text_top_k(usize::MAX);
    let mut sampler = Sampler::new(&vocabulary, &options).unwrap();
    let mut state = StreamState::new(vocabulary.clone(), &[]);
    let mut counts = vec![0; row.len()];
    for (key, position) in draws {
        while state.len() < position {
            state.push(vocabulary.pad());
        }
        let token = sampler.candidates(row, None, &state).unwrap().draw(key).unwrap();
        counts[token as usize] += 1;
    }
    let candidates = sampler.candidates(row, None, &state).unwrap();
    let counts = candidates.tokens().iter().map(|&token| counts[token as usize]).collect();
    (counts, candidates.probabilities().unwrap().to_vec())
}

/// Draws at successive positions of five seeds; of successive seeds and of successive branches at one position. Seeds
/// are fixed, and so is the outcome.
#[test]
fn draws_follow_the_probabilities() {
    const N_DRAWS: usize = 100_000;
    // From equal logits to differences of 12, where the least likely are expected five times or more.
    let row = |seed: u32, scale: f32| -> Vec<f32> { logits(seed).iter().map(|logit| logit / 8.0 * scale).collect() };
    let key = |seed, branch| DrawKey { seed, branch };
    for (index, scale) in [0.0, 0.5, 1.0, 2.5, 4.0].into_iter().enumerate() {
        let row = row(index as u32, scale);
        let seed = index as u64;
        let of_positions = count_draws(&row, (0..N_DRAWS).map(|position| (key(seed, 0), position)));
        let of_seeds = count_draws(&row, (0..N_DRAWS as u64).map(|seed| (key(seed << 20, 1), 7)));
        let of_branches = count_draws(&row, (0..N_DRAWS as u64).map(|branch| (key(seed, branch), 7)));
        for (counts, probabilities) in [of_positions, of_seeds, of_branches] {
            assert!(probabilities.iter().all(|probability| probability * N_DRAWS as f64 > 5.0), "{probabilities:?}");
            let statistic = chi_squared(&counts, &probabilities);
            // 99.99 % of chi-squared with 31 degrees of freedom lie below 69.
            assert_eq!(counts.len(), N_LOGITS);
            assert!(statistic < 69.0, "{scale}: {statistic}");
        }
    }
}

/// Probabilities from 0.4 to 10⁻⁶, in groups of 1, 2, 4 … tokens from the most to the least likely.
#[test]
fn rare_tokens_follow_the_probabilities() {
    const N_DRAWS: usize = 100_000;
    const N_TOKENS: usize = 8192;
    let row: Vec<f32> = (0..N_TOKENS).map(|token| ((token * 2731 % N_TOKENS) as f32).ln() * -1.5).collect();
    let mut candidates = Candidates::from_row(&row[1..]).unwrap();
    let probabilities = candidates.probabilities().unwrap().to_vec();
    let mut by_probability: Vec<usize> = (0..probabilities.len()).collect();
    by_probability.sort_by(|&a, &b| probabilities[b].total_cmp(&probabilities[a]));
    let mut group_of = vec![0; probabilities.len()];
    for (rank, &token) in by_probability.iter().enumerate() {
        group_of[token] = (rank + 1).ilog2() as usize;
    }
    let n_groups = group_of.iter().max().unwrap() + 1;
    let (mut counts, mut expected) = (vec![0; n_groups], vec![0.0; n_groups]);
    for (group, probability) in group_of.iter().zip(&probabilities) {
        expected[*group] += probability;
    }
    for seed in 0..N_DRAWS as u64 {
        counts[group_of[candidates.draw(DrawKey { seed, branch: 0 }).unwrap() as usize]] += 1;
    }
    let statistic = chi_squared(&counts, &expected);
    // 99.99 % of chi-squared with 12 degrees of freedom lie below 39.1.
    assert_eq!(n_groups, 13);
    assert!(statistic < 39.1, "{statistic}: {counts:?}");
}

/// The noise is by token, so two distributions that differ little draw different tokens as seldom as they must: the
/// Gumbel coupling agrees with probability (1 − d) / (1 + d) at least, with d their total variation distance.
#[test]
fn similar_distributions_draw_the_same_tokens() {
    const N_DRAWS: u64 = 20_000;
    let row = logits(1);
    let near: Vec<f32> = row.iter().zip(logits(2)).map(|(a, b)| a + b / 20.0).collect();
    let [mut one, mut other] = [&row, &near].map(|row| Candidates::from_row(row).unwrap());
    let (p, q) = (one.probabilities().unwrap().to_vec(), other.probabilities().unwrap().to_vec());
    let distance = p.iter().zip(&q).map(|(p, q)| (p - q).abs()).sum::<f64>() / 2.0;
    let keys = (0..N_DRAWS).map(|seed| DrawKey { seed, branch: 9 });
    let n_same = keys.filter(|&key| one.draw(key) == other.draw(key)).count();
    let least = (1.0 - distance) / (1.0 + distance);
    assert!(distance > 0.03, "{distance}");
    // Four standard deviations of a count.
    let slack = 4.0 * (least * (1.0 - least) / N_DRAWS as f64).sqrt();
    assert!(n_same as f64 / N_DRAWS as f64 > least - slack, "{n_same}, {distance}");
}

/// A few seeds have a pair of tokens that arrive at once, among many tokens.
#[test]
fn of_ties_the_lower_token_wins() {
    let mut n_ties = 0;
    for seed in 0..24 {
        let time = |token| (race::arrival(race::noise(seed, 0, 0, token)), token);
        let mut times: Vec<(u32, u32)> = (0..8192).map(time).collect();
        times.sort_unstable();
        for pair in times.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
            let mut row = vec![f32::NEG_INFINITY; 8192];
            pair.iter().for_each(|&(_, token)| row[token as usize] = 1.5);
            let candidates = Candidates::from_row(&row).unwrap();
            assert_eq!(candidates.draw(DrawKey { seed, branch: 0 }), Ok(pair[0].1));
            n_ties += 1;
        }
    }
    assert!(n_ties > 4, "{n_ties} ties");
}

#[test]
fn infinite_logits_win_evenly() {
    let mut row = [f32::MAX; N_LOGITS];
    (row[3], row[20], row[21]) = (f32::INFINITY, f32::INFINITY, f32::NEG_INFINITY);
    let candidates = Candidates::from_row(&row).unwrap();
    let tokens: Vec<u32> = (0..10_000).map(|seed| candidates.draw(DrawKey { seed, branch: 0 }).unwrap()).collect();
    let n_first = tokens.iter().filter(|&&token| token == 3).count();
    assert!(tokens.iter().all(|&token| token == 3 || token == 20));
    // Four standard deviations.
    assert!(n_first.abs_diff(5000) < 200, "{n_first}");
}

#[test]
fn seeds_branches_positions_and_tokens_have_their_own_noise() {
    let numbers = |seed, branch| {
        (0..50).flat_map(move |position| {
            [0, 1, 16, 8191, u32::MAX].map(|token| race::noise(seed, branch, position, token))
        })
    };
    let all: Vec<_> = [(0, 0), (1, 0), (0, 1), (1 << 32, 0), (0, 1 << 32), (u64::MAX, u64::MAX)]
        .into_iter()
        .flat_map(|(s, b)| numbers(s, b))
        .collect();
    let distinct: std::collections::HashSet<_> = all.iter().collect();
    assert_eq!(distinct.len(), all.len());
}
