//! Sampling against the original: grammar, guidance, top-k, temperature, softmax, and what the unconditional branch
//! sees.

use std::sync::Arc;

use lumina_sampling::{Allowed, Grammar, Modality, Phase, Sampler, SamplingOptions, StreamState, Vocabulary};
use lumina_testing::{cases, integers, json, lcg, report, sha256_i32};
use serde_json::Value;

/// Of each probability: the original's logits are divided in `f32`, and its numbers have nine digits.
const TOLERANCE: f64 = 1e-5;

fn vocabulary() -> Arc<Vocabulary> {
    let file = json("tokenizer/tokenizer.json");
    let named = file["model"]["vocab"].as_object().expect("names and ids").iter().map(|(name, id)| (name.as_str(), id));
    let added = file["added_tokens"].as_array().into_iter().flatten();
    let added = added.map(|token| (token["content"].as_str().expect("a name"), &token["id"]));
    let tokens = named.chain(added).map(|(name, id)| (name, id.as_u64().expect("an id") as u32));
    Arc::new(Vocabulary::from_tokens(tokens).expect("the vocabulary is complete"))
}

/// Logits as the data's README defines them.
fn logits(generator: &Value, n: usize) -> Vec<f32> {
    let scale = generator["scale"].as_f64().expect("a scale") as f32;
    let levels = generator["levels"].as_i64().expect("levels") as i32;
    let value = |state: u32| {
        let bits = (state >> 8) as i32;
        match levels {
            0 => (bits as f32 / (1 << 24) as f32 - 0.5) * scale,
            _ => (bits % levels - levels.div_euclid(2)) as f32 * scale,
        }
    };
    lcg(generator["seed"].as_u64().expect("a seed") as u32).map(value).take(n).collect()
}

fn number(case: &Value, key: &str) -> f64 {
    case[key].as_f64().expect(key)
}

fn hash(tokens: &[u32]) -> String {
    sha256_i32(tokens.iter().map(|&token| token as i32))
}

#[test]
fn the_generator_is_that_of_the_data() {
    let continuous = logits(&serde_json::json!({"seed": 1, "scale": 20.0, "levels": 0}), 3);
    for (value, expected) in continuous.iter().zip([-5.270_89, -2.6145875, 0.08484006]) {
        assert!((value - expected).abs() < 1e-6, "{value} {expected}");
    }
    let levels = logits(&serde_json::json!({"seed": 1, "scale": 0.5, "levels": 12}), 5);
    assert_eq!(levels, [1.5, 1.5, -0.5, -2.0, -2.5]);
}

#[test]
fn every_case() {
    let vocabulary = vocabulary();
    let n_logits = json("tokenizer/special.json")["n_vocab_model"].as_u64().expect("a size") as usize;
    let grammar = Grammar::new(&vocabulary, Modality::Any, None).expect("no size is fixed");
    let cases = cases("sampling/cases.json");
    for case in &cases {
        let name = case["name"].as_str().expect("a name");
        let ids: Vec<u32> = integers(&case["ids"]);
        let state = StreamState::new(vocabulary.clone(), &ids);
        let options = SamplingOptions::default()
            .guidance_scale(number(case, "guidance") as f32)
            .image_top_k(number(case, "image_top_k") as usize)
            .text_top_k(number(case, "text_top_k") as usize)
            .temperature(number(case, "temperature") as f32);
        let mut sampler = Sampler::new(&vocabulary, &options).expect("the case's options are in range");

        let unconditional = sampler.unconditional(&state).map(|seen| ids[seen].to_vec());
        let expected = (!case["uncond_input"].is_null()).then(|| integers(&case["uncond_input"]));
        assert_eq!(unconditional, expected, "{name}: what the unconditional branch sees");

        let allowed: Vec<u32> = match grammar.allowed(&state) {
            Allowed::One(token) => vec![token],
            Allowed::Only(tokens) => tokens.to_vec(),
            Allowed::AllBut(tokens) => (0..n_logits as u32).filter(|token| !tokens.contains(token)).collect(),
        };
        assert_eq!(allowed.len() as u64, case["n_allowed"], "{name}: n_allowed");
        assert_eq!(hash(&allowed), case["allowed_sha256"], "{name}: allowed");

        let conditional = logits(&case["cond"], n_logits);
        let unconditional = unconditional.map(|_| logits(&case["uncond"], n_logits));
        let candidates = sampler
            .candidates(&conditional, unconditional.as_ref().map(Into::into), &state)
            .expect("all logits are finite");
        assert_eq!(candidates.len() as u64, case["n_kept"], "{name}: n_kept");
        if !case["kept"].is_null() {
            assert_eq!(candidates.tokens(), integers::<u32>(&case["kept"]), "{name}: kept");
        }
        assert_eq!(hash(candidates.tokens()), case["kept_sha256"], "{name}: kept");

        let probabilities = candidates.probabilities().expect("something is left").to_vec();
        let mut best: Vec<_> = candidates.tokens().iter().copied().zip(probabilities).collect();
        best.sort_by(|(_, p), (_, q)| q.total_cmp(p));
        let expected: Vec<u32> = integers(&case["best"]);
        best.truncate(expected.len());
        assert_eq!(best.iter().map(|&(token, _)| token).collect::<Vec<_>>(), expected, "{name}: best");
        for ((token, probability), expected) in best.iter().zip(case["probabilities"].as_array().expect("a list")) {
            let expected = expected.as_f64().expect("a probability");
            let error = (probability / expected - 1.0).abs();
            assert!(error < TOLERANCE, "{name}: probability {probability} of {token}, expected {expected}");
        }

        let most_likely = Sampler::new(&vocabulary, &options.greedy()).expect("in range").sample(
            &conditional,
            unconditional.as_ref().map(Into::into),
            &state,
        );
        assert_eq!(most_likely, Ok(expected[0]), "{name}: greedy");
        if name.starts_with("start_within") || name.starts_with("end_without") {
            assert_eq!(state.phase(), Phase::Malformed, "{name}");
        }
    }
    report("sampling", cases.len());
}

#[test]
fn the_unconditional_branch_is_fed_step_by_step() {
    let vocabulary = vocabulary();
    let data = json("sampling/guidance_steps.json");
    let mut stream: Vec<u32> = integers(&data["prompt"]);
    let mut then = integers::<u32>(&data["then"]).into_iter();
    let options = SamplingOptions::default().guidance_scale(number(&data, "guidance") as f32);
    let sampler = Sampler::new(&vocabulary, &options).expect("in range");
    let mut state = StreamState::new(vocabulary, &stream);

    let steps = data["steps"].as_array().expect("a list of steps");
    let mut fed = 0..0;
    for step in steps {
        while stream.len() < number(step, "length") as usize {
            let token = then.next().expect("a token for each step");
            state.push(token);
            stream.push(token);
        }
        let new = sampler.unconditional(&state).map(|seen| {
            let from = if seen.start == fed.start { fed.end } else { seen.start };
            fed = seen.clone();
            stream[from..seen.end].to_vec()
        });
        let expected = (!step["uncond_new_tokens"].is_null()).then(|| integers(&step["uncond_new_tokens"]));
        assert_eq!(new, expected, "at length {}", step["length"]);
    }
    report("sampling, guidance steps", steps.len());
}
