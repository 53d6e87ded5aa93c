//! Reference data of the original implementation, and what the parity tests share.
//!
//! The data lies in `tests/reference`; the environment variable `LUMINA_REFERENCE` names another folder of the
//! same layout. A part that is absent fails its test: a suite that runs nothing must not pass.
#![allow(
    clippy::panic,
    clippy::print_stderr,
    reason = "a test helper: its panic is the test's failure, its print the test's report"
)]

mod allocation;
pub mod hub_server;
pub mod mpi;
pub mod programs;
mod small_model;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;
use sha2::{Digest, Sha256};

pub use allocation::Counting;
pub use small_model::model_of_small_images;

/// Waits for what another thread does.
#[track_caller]
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < Duration::from_secs(60), "{what} has not happened");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The folder of the reference data.
pub fn reference() -> PathBuf {
    match std::env::var_os("LUMINA_REFERENCE") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("reference"),
    }
}

/// The message of an error and of all its sources, as programs print them.
pub fn whole_message(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |message, cause| format!("{message}: {cause}"))
}

/// A file or folder of the reference data, by its path from [`reference()`]. Panics where it is absent.
pub fn part(path: &str) -> PathBuf {
    let part = reference().join(path);
    assert!(part.exists(), "{}: this part of the reference layout is absent", part.display());
    part
}

/// A file or folder of the project's own reference data, whatever `LUMINA_REFERENCE` names: for tests of one model by
/// its name, which other data need not have.
pub fn own(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("reference").join(path)
}

/// The JSON in a file of the reference data.
pub fn json(path: &str) -> Value {
    json_file(&part(path))
}

/// The JSON in a file.
pub fn json_file(file: &Path) -> Value {
    let text = std::fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// The cases in a JSON list. Panics where there are none.
pub fn cases(path: &str) -> Vec<Value> {
    match json(path) {
        Value::Array(cases) if !cases.is_empty() => cases,
        other => panic!("{path}: expected a list of cases, found {other:.60}"),
    }
}

/// Says how many cases a subject ran (`cargo test -- --nocapture` shows it). Panics at zero.
pub fn report(subject: &str, ran: usize) {
    assert!(ran > 0, "{subject}: no case ran");
    eprintln!("{subject}: {ran} cases against {}", reference().display());
}

/// A list of integers in a case.
pub fn integers<T: TryFrom<i64>>(value: &Value) -> Vec<T> {
    let list = value.as_array().unwrap_or_else(|| panic!("expected a list of integers, found {value:.60}"));
    list.iter()
        .map(|item| {
            let integer = item.as_i64().unwrap_or_else(|| panic!("expected an integer, found {item}"));
            T::try_from(integer).unwrap_or_else(|_| panic!("{integer} is out of range"))
        })
        .collect()
}

/// SHA-256 in hex.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256 in hex of integers as little-endian `i32`.
pub fn sha256_i32(values: impl IntoIterator<Item = i32>) -> String {
    sha256(&values.into_iter().flat_map(i32::to_le_bytes).collect::<Vec<_>>())
}

/// `n` values of the reference's linear congruential generator (its READMEs): the states after each step.
pub fn lcg(seed: u32) -> impl Iterator<Item = u32> {
    std::iter::successors(Some(seed), |state| Some(state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223))).skip(1)
}

/// `n` numbers from −1 to 1.
pub fn numbers(n: usize, seed: u32) -> Vec<f32> {
    lcg(seed).take(n).map(|state| (state >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
}

/// The worst difference, as a share of the largest expected number.
pub fn worst_difference(found: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let scale = expected.iter().fold(1e-30, |most: f64, value| most.max(value.abs()));
    let difference = |(found, expected): (&f32, &f64)| {
        let difference = (f64::from(*found) - expected).abs() / scale;
        if difference.is_nan() { f64::INFINITY } else { difference }
    };
    found.iter().zip(expected).map(difference).fold(0.0, f64::max)
}

/// Writes the reference's tokenizer into a folder, with its first `codes` image tokens only, and ids without gaps: a
/// vocabulary for small models, of 1,424 tokens besides.
pub fn small_tokenizer(codes: u32, folder: &Path) {
    let kept = |name: &str| image_code(name).is_none_or(|code| code < codes);
    let mut tokenizer = json("tokenizer/tokenizer.json");
    let mut ids: Vec<(u64, String)> = Vec::new();
    for (name, id) in tokenizer["model"]["vocab"].as_object().into_iter().flatten() {
        ids.extend(id.as_u64().map(|id| (id, name.clone())));
    }
    for token in tokenizer["added_tokens"].as_array().into_iter().flatten() {
        ids.extend(token["id"].as_u64().zip(token["content"].as_str().map(str::to_owned)));
    }
    ids.sort();
    ids.dedup();
    ids.retain(|(_, name)| kept(name));
    let ids: BTreeMap<String, usize> = ids.into_iter().enumerate().map(|(id, (_, name))| (name, id)).collect();
    if let Some(vocabulary) = tokenizer["model"]["vocab"].as_object_mut() {
        vocabulary.retain(|name, _| kept(name));
        vocabulary.iter_mut().for_each(|(name, id)| *id = ids[name].into());
    }
    if let Some(added) = tokenizer["added_tokens"].as_array_mut() {
        added.retain(|token| token["content"].as_str().is_some_and(kept));
        for token in added {
            token["id"] = ids[token["content"].as_str().unwrap_or_default()].into();
        }
    }
    let failed = |error: std::io::Error| panic!("{}: {error}", folder.display());
    std::fs::create_dir_all(folder).unwrap_or_else(failed);
    std::fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap_or_else(failed);
    for name in ["tokenizer_config.json", "special_tokens_map.json"] {
        let copied = std::fs::copy(part("tokenizer").join(name), folder.join(name));
        copied.map(|_| ()).unwrap_or_else(failed);
    }
}

/// The code of an image token's name: letters for digits.
fn image_code(name: &str) -> Option<u32> {
    let letters = name.strip_prefix("IMGIMG")?.strip_suffix('Z')?;
    letters.bytes().try_fold(0, |code, letter| Some(code * 10 + u32::from(letter.checked_sub(b'A')?)))
}

fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|value| f64::from(value - max).exp()).sum();
    logits.iter().map(|value| f64::from(value - max) - sum.ln()).collect()
}

/// Kullback-Leibler divergence of the distribution by `found` from that by `expected`, in nats.
pub fn divergence(expected: &[f32], found: &[f32]) -> f64 {
    let pairs = log_softmax(expected).into_iter().zip(log_softmax(found));
    pairs.map(|(expected, found)| expected.exp() * (expected - found)).sum()
}
