//! Several tokens a pass give the tokens of plain decoding.
#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in test functions, but not in what they share")]

use std::sync::Arc;

use lumina_sampling::speculation::Speculator;
use lumina_sampling::{ImageSize, LogitsRow, Modality, Sampler, SamplingOptions, Speculation, StreamState, Vocabulary};

/// As many as the small vocabulary has tokens.
const N_LOGITS: usize = 32;

fn vocabulary() -> Arc<Vocabulary> {
    Arc::new(include!("support/small_vocabulary.rs"))
}

/// A model: logits that look random and depend on the last tokens.
fn logits(seed: u32, tokens: &[u32]) -> Vec<f32> {
    let recent = tokens.iter().rev().take(2).fold(seed, |hash, &token| hash.wrapping_mul(0x9e37_79b9) ^ token);
    lumina_testing::lcg(recent).map(|state| (state >> 16) as f32 / 8192.0 - 4.0).take(N_LOGITS).collect()
}

/// The answer, and the passes that it took.
fn generate(options: &SamplingOptions, model: u32, prompt: &[u32], limit: usize, places: usize) -> (Vec<u32>, usize) {
    let vocabulary = vocabulary();
    let mut sampler = Sampler::new(&vocabulary, options).unwrap();
    let mut speculator = Speculator::new(options.speculation);
    let mut state = StreamState::new(vocabulary.clone(), prompt);
    let mut tokens = prompt.to_vec();
    let mut n_passes = 0;
    let turn_end = vocabulary.turn_end();
    let goes_on = |tokens: &[u32]| tokens.len() < prompt.len() + limit && tokens.last() != Some(&turn_end);
    while goes_on(&tokens) {
        if let Some(token) = sampler.forced(&state) {
            tokens.push(token);
            state.push(token);
            continue;
        }
        n_passes += 1;
        let before = state.clone();
        let drafts = speculator.draft(&sampler, &mut state, &tokens, places, 100).to_vec();
        assert_eq!(state, before);
        // The pass: the logits after each path.
        let mut streams = vec![tokens.clone()];
        for draft in &drafts {
            streams.push([&streams[draft.row()][..], &[draft.token]].concat());
        }
        let rows: Vec<_> = streams.iter().map(|stream| (logits(model, stream), logits(!model, stream))).collect();
        let mut accepted = Vec::new();
        let row = |index: usize| -> (LogitsRow<'_>, _) { ((&rows[index].0).into(), Some((&rows[index].1).into())) };
        speculator
            .verify(&mut sampler, &mut state, row, |token| {
                accepted.push(token);
                token != turn_end
            })
            .unwrap();
        assert_eq!(state, before);
        for token in accepted {
            if goes_on(&tokens) {
                tokens.push(token);
                state.push(token);
            }
        }
    }
    (tokens, n_passes)
}

#[test]
fn a_window_gives_the_tokens_of_plain_decoding() {
    let size = ImageSize::new(96, 96).unwrap();
    for modality in [Modality::Image, Modality::Text, Modality::Any] {
        for model in 0..200 {
            let mut options = SamplingOptions::default().seed(model.into()).modality(modality);
            options.image_size = (modality == Modality::Image).then_some(size);
            let plain = generate(&options, model, &[0, 20, 21, 22, 20], 200, 0);
            let window = generate(&options, model, &[0, 20, 21, 22, 20], 200, 8);
            assert_eq!(plain.0, window.0);
            assert!(window.1 <= plain.1);
            let off = options.speculation(Speculation::Off);
            assert_eq!(generate(&off, model, &[0, 20, 21, 22, 20], 200, 8), plain);
        }
    }
}
