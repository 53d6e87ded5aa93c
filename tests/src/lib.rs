//! Reference data of the original implementation, and what the parity tests share.
//!
//! The data lies in `tests/reference`; the environment variable `LUMINA_REFERENCE` names another folder of the
//! same layout. A part that is absent fails its test: a suite that runs nothing must not pass.
#![allow(
    clippy::panic,
    clippy::print_stderr,
    reason = "a test helper: its panic is the test's failure, its print the test's report"
)]

use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest, Sha256};

/// The folder of the reference data.
pub fn reference() -> PathBuf {
    match std::env::var_os("LUMINA_REFERENCE") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("reference"),
    }
}

/// A file or folder of the reference data, by its path from [`reference()`]. Panics where it is absent.
pub fn part(path: &str) -> PathBuf {
    let part = reference().join(path);
    assert!(part.exists(), "{}: this part of the reference layout is absent", part.display());
    part
}

/// The JSON in a file of the reference data.
pub fn json(path: &str) -> Value {
    let file = part(path);
    let text = std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
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
