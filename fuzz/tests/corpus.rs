//! The kept corpus, and changes of it, through every target: what stays of fuzzing where there is no fuzzer.
#![allow(clippy::unwrap_used, reason = "helpers of tests: a panic is the failure")]

use std::path::{Path, PathBuf};

use lumina_fuzz::TARGETS;

/// Changes of each file.
const CHANGES: u32 = 40;

fn files(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let entries = std::fs::read_dir(&folder).expect(target);
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|file| (file.clone(), std::fs::read(file).unwrap())).collect()
}

/// One of the changes that a fuzzer makes.
fn changed(bytes: &[u8], other: &[u8], random: &mut impl Iterator<Item = u32>) -> Vec<u8> {
    let mut below = |n: usize| random.next().unwrap() as usize % n.max(1);
    let mut result = bytes.to_vec();
    for _ in 0..=below(3) {
        let at = below(result.len());
        match below(5) {
            0 => result.truncate(at),
            1 => result.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << below(8)),
            2 => result.iter_mut().skip(at).take(4).for_each(|byte| *byte = 0xff),
            3 => result.splice(at..at, other[below(other.len())..].iter().copied().take(64)).for_each(drop),
            _ => result.drain(at..result.len().min(at + 8)).for_each(drop),
        }
    }
    result
}

#[test]
fn the_corpus_and_its_changes_end_in_values_or_errors() {
    let mut random = lumina_testing::lcg(1);
    for (name, target) in TARGETS {
        let files = files(name);
        assert!(!files.is_empty(), "`{name}` has no corpus");
        for (index, (file, bytes)) in files.iter().enumerate() {
            // The output of a failing test says which file it was.
            println!("{}", file.display());
            target(bytes);
            let other = &files[(index + 1) % files.len()].1;
            (0..CHANGES).for_each(|_| target(&changed(bytes, other, &mut random)));
        }
    }
}

#[test]
fn the_corpus_is_small() {
    let bytes: usize = TARGETS.iter().flat_map(|(name, _)| files(name)).map(|(_, bytes)| bytes.len()).sum();
    assert!(bytes <= 2 << 20, "{bytes} bytes of corpus");
}
