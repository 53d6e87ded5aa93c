//! Drafting and verifying allocate nothing, once all buffers have grown. In a test binary of its own, as it counts the
//! allocations of a whole process.
#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in test functions, but not in what they share")]

use lumina_sampling::speculation::Speculator;
use lumina_sampling::{ImageSize, Modality, Sampler, SamplingOptions, Speculation, StreamState};
use lumina_testing::Counting;

use crate::model::{Model, vocabulary};

#[allow(dead_code, reason = "the tests of equality use the rest")]
#[path = "speculation/model.rs"]
mod model;

#[global_allocator]
static ALLOCATOR: Counting = Counting::new();

#[test]
fn a_pass_allocates_nothing() {
    let vocabulary = vocabulary();
    let model = Model::new(1, [2.0, 0.7, 1.2, 2.0]);
    let size = ImageSize::from_cells(8, 8).unwrap();
    for speculation in [Speculation::Window(16), Speculation::Tree { window: 24, depth: 3, width: 4 }] {
        let options =
            SamplingOptions::default().modality(Modality::Image).image_size(size).guidance_scale(1.0).image_top_k(40);
        let mut sampler = Sampler::new(&vocabulary, &options).unwrap();
        let mut speculator = Speculator::new(speculation);
        let mut state = StreamState::new(vocabulary.clone(), &[0]);
        let mut tokens = Vec::with_capacity(1000);
        tokens.push(0);
        let mut stream = Vec::with_capacity(1000);
        let mut rows: Vec<Vec<f32>> = (0..200).map(|_| Vec::with_capacity(200)).collect();
        let mut accepted = Vec::with_capacity(200);
        let (mut passes, mut grown) = (0, 0);
        loop {
            while tokens.len() <= size.n_tokens()
                && let Some(token) = sampler.forced(&state)
            {
                tokens.push(token);
                state.push(token);
            }
            if tokens.len() > size.n_tokens() {
                break;
            }
            // After the first rows.
            if tokens.len() > 100 && grown == 0 {
                grown = ALLOCATOR.own_count();
            }
            passes += usize::from(grown > 0);
            speculator.draft(&sampler, &mut state, &tokens, 24, 200);
            for (row, logits) in rows.iter_mut().enumerate().take(speculator.drafts().len() + 1) {
                stream.clear();
                stream.extend_from_slice(&tokens);
                model::push_path(speculator.drafts(), row, &mut stream);
                model.logits(&stream, 17, logits);
            }
            accepted.clear();
            let accept = |token| {
                accepted.push(token);
                true
            };
            speculator.verify(&mut sampler, &mut state, |row| ((&rows[row]).into(), None), accept).unwrap();
            for &token in &accepted {
                tokens.push(token);
                state.push(token);
            }
        }
        assert!(passes > 30, "{passes}");
        assert_eq!(ALLOCATOR.own_count() - grown, 0, "in {passes} passes");
    }
}
