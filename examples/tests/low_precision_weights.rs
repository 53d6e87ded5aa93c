//! The divergence of the next-token distribution when the weights of the small model are cast down or quantised, on
//! test scenes that are drawn from their caption and captioned. `-- --nocapture` prints the figures of the book.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test's panic is its failure, and it prints figures")]

use lumina_examples::small_model;
use lumina_mgpt::{Compute, Lumina, Row, Task, TaskInput, Transformer, Weights};
use lumina_scenes::{DEFAULT_TARGET_PX, Scenes, Split};
use lumina_testing::divergence;
use lumina_tokenizer::Conversation;

const SCENES: u64 = 16;
// Upper bounds of the mean divergence, in nats.
const BF16_ACTIVATIONS: f64 = 3e-5;
const F16: f64 = 1e-6;
const Q8: f64 = 5e-4;
const Q4: f64 = 4e-2;

/// The logits at the positions that predict the answer.
fn answer_logits(model: &Transformer, streams: &[(Vec<u32>, Vec<usize>)]) -> Vec<Vec<f32>> {
    let logits_of = |(tokens, positions): &(Vec<u32>, Vec<usize>)| {
        let hidden = model.forward(&mut [Row::whole(tokens)]).unwrap();
        let logits = model.logits_at(&hidden, positions).unwrap();
        logits.rows().map(<[f32]>::to_vec).collect::<Vec<_>>()
    };
    streams.iter().flat_map(logits_of).collect()
}

#[test]
fn low_precision_weights_barely_change_the_distributions() {
    let lumina = Lumina::from_pretrained(small_model()).load().unwrap();
    let scenes = Scenes::new(2000, Split::Test, DEFAULT_TARGET_PX).unwrap();
    let mut streams = Vec::new();
    for index in 0..SCENES {
        let scene = scenes.scene(index);
        let (text, codes) =
            (scene.caption().to_string(), lumina.image_tokenizer().unwrap().encode(&scene.image()).unwrap());
        let draw = TaskInput::new().text(text.as_str()).size(scene.size());
        let caption = TaskInput::new().image(codes.clone());
        for conversation in [
            Conversation::new().human(Task::TextToImage.prompt(draw).unwrap()).assistant(codes),
            Conversation::new().human(Task::Captioning.prompt(caption).unwrap()).assistant(text.as_str()),
        ] {
            let encoded = lumina.tokenizer().encode(&conversation).unwrap();
            let predicted = (1..encoded.tokens.len()).filter(|&at| encoded.labels[at] >= 0).map(|at| at - 1).collect();
            streams.push((encoded.tokens, predicted));
        }
    }
    let exact = answer_logits(lumina.transformer(), &streams);
    let compute_with = |weights| Compute::cpu().weights(weights);
    for (name, compute, largest_mean) in [
        ("bf16, bf16 activations", compute_with(Weights::AsStored).bf16_activations(), BF16_ACTIVATIONS),
        ("bf16", compute_with(Weights::BF16), 0.0),
        ("f16", compute_with(Weights::F16), F16),
        ("q8", compute_with(Weights::Q8), Q8),
        ("q4", compute_with(Weights::Q4), Q4),
    ] {
        let found = answer_logits(&Transformer::open(small_model(), &compute).unwrap(), &streams);
        let most_likely = |logits: &[f32]| (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
        let (mut mean, mut same) = (0.0, 0);
        for (exact, found) in exact.iter().zip(&found) {
            mean += divergence(exact, found);
            same += usize::from(most_likely(exact) == most_likely(found));
        }
        mean /= exact.len() as f64;
        let percent = 100.0 * same as f64 / exact.len() as f64;
        println!("{name}: {mean:.2e} nats, the same most likely token at {percent:.2} % of {}", exact.len());
        assert!(mean <= largest_mean, "{name}: diverges by {mean} nats");
    }
}
