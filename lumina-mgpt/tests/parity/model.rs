//! Logits and hidden states of single passes, of chunks, and token by token.

use std::path::{Path, PathBuf};

use lumina_checkpoint::Checkpoint;
use lumina_mgpt::{KvCache, ModelConfig, Row, Transformer};
use lumina_testing::{integers, part, report};
use serde_json::Value;

use super::{targets, targets_of};

/// Of the largest finite magnitude: the reference's own tolerance.
const TOLERANCE: f32 = 1e-4;

pub(crate) fn folders() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> =
        std::fs::read_dir(part("model")).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    assert!(!folders.is_empty(), "no model in the reference data");
    folders
}

pub(crate) fn cases(folder: &Path) -> Vec<Value> {
    serde_json::from_slice(&std::fs::read(folder.join("cases.json")).unwrap()).unwrap()
}

pub(crate) fn largest(values: &[f32]) -> f32 {
    values.iter().filter(|value| value.abs() < 1e30).fold(0.0, |largest, value| value.abs().max(largest))
}

fn assert_close(what: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0f32, f32::max);
    assert!(worst <= TOLERANCE * largest(expected), "{what}: differs by {worst} of {}", largest(expected));
}

/// Whether rotary positions depend on the length of the sequence, which llama.cpp has no name for.
pub(crate) fn scaled_dynamically(folder: &Path) -> bool {
    let config = lumina_testing::json_file(&folder.join("config.json"));
    let places = ["rope_scaling", "rope_parameters"].map(|place| &config[place]);
    places.into_iter().any(|place| place["type"] == "dynamic" || place["rope_type"] == "dynamic")
}

#[test]
fn single_passes() {
    for folder in folders() {
        for compute in targets_of(&folder) {
            let mut ran = 0;
            let model = Transformer::open(&folder, &compute).unwrap();
            let arrays = Checkpoint::open(folder.join("cases.safetensors")).unwrap();
            for case in cases(&folder) {
                let name = case["name"].as_str().unwrap();
                let what = format!("{}/{name} on {compute}", folder.display());
                let tokens: Vec<u32> = integers(&case["tokens"]);
                let hidden_at: Vec<usize> = integers(&case["hidden_at"]);
                let mut hidden = Vec::new();
                let final_hidden = model
                    .forward_with(&mut [Row::whole(&tokens)], &mut |x| {
                        let values = x.to_vec().unwrap();
                        let width = values.len() / tokens.len();
                        hidden.extend(hidden_at.iter().flat_map(|at| values[at * width..(at + 1) * width].to_vec()));
                    })
                    .unwrap();
                let expected = arrays.get(&format!("{name}.hidden")).unwrap();
                let per_layer = expected.shape()[1] * expected.shape()[2];
                let expected = expected.to_f32().unwrap();
                for (layer, (found, expected)) in hidden.chunks(per_layer).zip(expected.chunks(per_layer)).enumerate() {
                    assert_close(&format!("{what}: hidden states before layer {layer}"), found, expected);
                }
                assert_eq!(hidden.len(), expected.len(), "{what}: number of layers");

                let at: Vec<usize> = integers(&case["at"]);
                let logits = model.logits_at(&final_hidden, &at).unwrap();
                let expected_last = arrays.get(&format!("{name}.logits_last")).unwrap().to_f32().unwrap();
                if at.last() == Some(&(tokens.len() - 1)) {
                    assert_close(&format!("{what}: last logits"), logits.rows().last().unwrap(), &expected_last);
                }
                for (logits, expected) in logits.rows().zip(case["positions"].as_array().unwrap()) {
                    let ids: Vec<usize> = integers(&expected["ids"]);
                    let values: Vec<f32> = expected["values"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .map(|value| value.as_f64().unwrap() as f32)
                        .collect();
                    let found: Vec<f32> = ids.iter().map(|&id| logits[id]).collect();
                    assert_close(&format!("{what}: best logits"), &found, &values);
                    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                    let sum: f64 = logits.iter().map(|value| f64::from(value - max).exp()).sum();
                    let logsumexp = f64::from(max) + sum.ln();
                    let expected = expected["logsumexp"].as_f64().unwrap();
                    assert!((logsumexp - expected).abs() <= 1e-4 * expected.abs(), "{what}: {logsumexp} {expected}");
                }
                ran += 1;
            }
            report(&format!("model on {compute}"), ran);
        }
    }
}

/// Token by token, in chunks, and as a row among others of different lengths: the same logits.
#[test]
fn caches_chunks_and_batches() {
    for folder in folders() {
        for compute in targets_of(&folder) {
            let mut ran = 0;
            let model = Transformer::open(&folder, &compute).unwrap();
            for case in cases(&folder) {
                let tokens: Vec<u32> = integers(&case["tokens"]);
                let what = format!("{}/{} on {compute}", folder.display(), case["name"]);
                let last = tokens.len() - 1;
                // Rotary scaling may depend on the length, which is the whole one in every pass.
                let planned_len = tokens.len();
                let whole = model.forward(&mut [Row::whole(&tokens)]).unwrap();
                let whole = model.logits_at(&whole, &[last]).unwrap();

                for chunk in [1, 7, tokens.len()] {
                    let mut cache = model.new_cache(tokens.len());
                    let mut hidden = None;
                    for chunk in tokens.chunks(chunk) {
                        hidden = Some((
                            chunk.len(),
                            model.forward(&mut [Row { planned_len, ..Row::cached(chunk, &mut cache) }]).unwrap(),
                        ));
                    }
                    let (len, hidden) = hidden.unwrap();
                    assert_eq!(cache.len(), tokens.len());
                    let found = model.logits_at(&hidden, &[len - 1]).unwrap();
                    assert_close(&format!("{what}: chunks of {chunk}"), found.row(0), whole.row(0));
                }

                let (short, mut first, mut second) =
                    (&tokens[..tokens.len() / 2 + 1], model.new_cache(tokens.len()), model.new_cache(tokens.len()));
                model.forward(&mut [Row { planned_len, ..Row::cached(&tokens[..last], &mut second) }]).unwrap();
                let mut rows = [
                    Row::cached(short, &mut first),
                    Row { planned_len, ..Row::cached(&tokens[last..], &mut second) },
                    Row::whole(&tokens[..1]),
                ];
                let hidden = model.forward(&mut rows).unwrap();
                let found = model.logits_at(&hidden, &[short.len()]).unwrap();
                assert_close(&format!("{what}: in a batch"), found.row(0), whole.row(0));
                ran += 1;
            }
            report(&format!("caches on {compute}"), ran);
        }
    }
}

/// The kernel that reads mapped weights gives a row the same bits in any batch.
#[test]
fn mapped_rows_do_not_depend_on_the_batch() {
    let compute = lumina_mgpt::Compute::cpu();
    for folder in folders() {
        let model = Transformer::open(&folder, &compute).unwrap();
        let case = cases(&folder).pop().unwrap();
        let tokens: Vec<u32> = integers(&case["tokens"]);
        let run = |rows: &mut [Row<'_>], at: usize| {
            model.logits_at(&model.forward(rows).unwrap(), &[at]).unwrap().row(0).to_vec()
        };
        let filled = || {
            let mut cache: KvCache = model.new_cache(tokens.len() + 1);
            model.forward(&mut [Row::cached(&tokens, &mut cache)]).unwrap();
            cache
        };
        let next = &tokens[..1];
        let alone = run(&mut [Row::cached(next, &mut filled())], 0);
        let (mut a, mut b) = (filled(), model.new_cache(8));
        let together = run(&mut [Row::cached(&tokens[..3], &mut b), Row::cached(next, &mut a)], 3);
        assert_eq!(alone, together, "{}", folder.display());
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let folder = folders().remove(0);
    let model = Transformer::open(&folder, &targets()[0]).unwrap();
    let vocab_size = ModelConfig::open(&folder.join("config.json")).unwrap().vocab_size as u32;
    let beyond = model.forward(&mut [Row::whole(&[0, vocab_size])]).unwrap_err().to_string();
    assert!(beyond.contains(&vocab_size.to_string()), "{beyond}");
    let full = model.forward(&mut [Row::cached(&[0, 0, 0], &mut model.new_cache(2))]).unwrap_err().to_string();
    assert!(full.contains('3') && full.contains('2'), "{full}");
    let hidden = model.forward(&mut [Row::whole(&[0, 0])]).unwrap();
    let nowhere = model.logits_at(&hidden, &[1, 2]).unwrap_err().to_string();
    assert!(nowhere.contains('2'), "{nowhere}");
    assert!(model.forward(&mut []).is_err());
    assert!(model.forward(&mut [Row::whole(&[])]).is_err());
}
