//! How far the next token's distribution moves when the weights of the small model are narrowed: on scenes that it was not
//! trained on, drawn from their description and captioned. `-- --nocapture` prints the figures that the book gives.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test's panic is its failure, and its figures are for people"
)]

use lumina_examples::small_model;
use lumina_mgpt::{Compute, Lumina, Row, Task, TaskInput, Transformer, Weights};
use lumina_scenes::{DEFAULT_TARGET_PX, Scenes, Split};
use lumina_testing::divergence;
use lumina_tokenizer::Conversation;

const SCENES: u64 = 16;
// The largest mean divergence, in nats.
const BF16_COMPACT: f64 = 3e-6;
const F16: f64 = 1e-6;
const Q8: f64 = 3e-5;
const Q4: f64 = 5e-4;

/// Logits at each position that an answer is predicted from.
fn answers(model: &Transformer, streams: &[(Vec<u32>, Vec<usize>)]) -> Vec<Vec<f32>> {
    let of = |(tokens, positions): &(Vec<u32>, Vec<usize>)| {
        let hidden = model.forward(&mut [Row::whole(tokens)]).unwrap();
        let logits = model.logits_at(&hidden, positions).unwrap();
        logits.rows().map(<[f32]>::to_vec).collect::<Vec<_>>()
    };
    streams.iter().flat_map(of).collect()
}

#[test]
fn narrow_weights_hardly_move_the_distributions() {
    let lumina = Lumina::from_pretrained(small_model()).load().unwrap();
    let scenes = Scenes::new(2000, Split::Test, DEFAULT_TARGET_PX).unwrap();
    let mut streams = Vec::new();
    for index in 0..SCENES {
        let scene = scenes.scene(index);
        let (text, codes) =
            (scene.description().to_string(), lumina.image_tokenizer().unwrap().encode(&scene.picture()).unwrap());
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
    let exact = answers(lumina.transformer(), &streams);
    let of = |weights| Compute::cpu().weights(weights);
    for (name, compute, largest_mean) in [
        ("bf16, compact", of(Weights::AsStored).bf16_activations(), BF16_COMPACT),
        ("bf16", of(Weights::BF16), 0.0),
        ("f16", of(Weights::F16), F16),
        ("q8", of(Weights::Q8), Q8),
        ("q4", of(Weights::Q4), Q4),
    ] {
        let found = answers(&Transformer::open(small_model(), &compute).unwrap(), &streams);
        let likeliest = |logits: &[f32]| (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
        let (mut mean, mut same) = (0.0, 0);
        for (exact, found) in exact.iter().zip(&found) {
            mean += divergence(exact, found);
            same += usize::from(likeliest(exact) == likeliest(found));
        }
        mean /= exact.len() as f64;
        let share = 100.0 * same as f64 / exact.len() as f64;
        println!("{name}: {mean:.2e} nats, the same likeliest token at {share:.2} % of {}", exact.len());
        assert!(mean <= largest_mean, "{name}: diverges by {mean} nats");
    }
}
