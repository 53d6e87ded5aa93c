//! One manifest of those of all ranks, once each request is answered.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use lumina_checkpoint::save_bytes;
use lumina_core::{file, shown};
use rayon::prelude::*;

use super::manifest::{self, Entry};
use super::settings::Settings;
use crate::Rank;
use crate::files::sha256_of;

/// The most lines or files that a message names.
const MAX_NAMED: usize = 20;

/// What was merged.
pub(super) struct Merged {
    /// The file that was written, `manifest.jsonl`.
    pub(super) manifest: PathBuf,
    pub(super) requests: usize,
    pub(super) images: usize,
    /// How many requests have an error in the place of an answer.
    pub(super) failed: usize,
}

/// Checks that each request has one line and each image its file, and writes `manifest.jsonl`, in the order of the
/// requests.
///
/// # Errors
/// Which requests are missing, or there twice, and which files are missing or damaged.
pub(super) fn merge(folder: &Path) -> Result<Merged> {
    let Some(settings) = Settings::read(folder)? else {
        bail!("{}: has no run.json; name the output folder of `lumina generate-many`", shown(folder));
    };
    let entries = collect(folder, &settings)?;
    check_files(folder, &entries)?;
    let mut lines = Vec::new();
    for entry in &entries {
        lines.append(&mut entry.to_line()?);
    }
    let manifest = folder.join("manifest.jsonl");
    save_bytes(&manifest, &lines)?;
    let images = entries.iter().map(|entry| entry.images().len()).sum();
    let failed = entries.iter().filter(|entry| entry.is_failed()).count();
    Ok(Merged { manifest, requests: entries.len(), images, failed })
}

/// The entries of all ranks, in the order of the requests.
fn collect(folder: &Path, settings: &Settings) -> Result<Vec<Entry>> {
    let (requests, ranks) = (settings.requests, settings.ranks);
    let mut entries: Vec<Entry> = Vec::new();
    let mut problems = Vec::new();
    // No more ranks than requests have any.
    for number in 0..ranks.min(requests) {
        let rank = Rank::new(number, ranks)?;
        let path = folder.join(manifest::name(rank));
        for (index, line) in lines_of(&path)?.split_inclusive(|&byte| byte == b'\n').enumerate() {
            match Entry::of_line(line, rank, requests) {
                Some(entry) => entries.push(entry),
                // A line that is cut off is that of a request which is missing.
                None if !line.ends_with(b"\n") => {}
                None => problems.push(format!("{} has a broken line {}", manifest::name(rank), index + 1)),
            }
        }
    }
    entries.sort_by_key(|entry| entry.line);
    let doubled: BTreeSet<u64> =
        entries.windows(2).filter(|pair| pair[0].line == pair[1].line).map(|pair| pair[0].line).collect();
    let found: BTreeSet<u64> = entries.iter().map(|entry| entry.line).collect();
    let missing: Vec<u64> = (1..=requests).filter(|line| !found.contains(line)).collect();
    if !missing.is_empty() {
        let of_ranks: BTreeSet<u64> = missing.iter().map(|line| (line - 1) % ranks).collect();
        let (n, lines) = (missing.len(), ranges(missing));
        problems.push(format!("{n} of {requests} requests are missing, lines {lines}, of ranks {}", ranges(of_ranks)));
    }
    if !doubled.is_empty() {
        problems.push(format!("requests are there twice, lines {}", ranges(doubled)));
    }
    let what = problems.iter().take(MAX_NAMED).cloned().collect::<Vec<_>>().join("; ");
    ensure!(problems.is_empty(), "{}: {what}; run these ranks again, which continues them", shown(folder));
    Ok(entries)
}

/// What is in the manifest of a rank; nothing where it has not begun.
fn lines_of(path: &Path) -> Result<Vec<u8>> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        file => file.with_context(|| format!("{}: cannot be read", shown(path)))?,
    };
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).with_context(|| format!("{}: cannot be read", shown(path)))?;
    Ok(bytes)
}

/// Checks that each image is what its entry says.
fn check_files(folder: &Path, entries: &[Entry]) -> Result<()> {
    let images: Vec<_> =
        entries.iter().flat_map(|entry| entry.images().iter().map(|image| (entry.line, image))).collect();
    let check = |&(line, image): &(u64, &manifest::ImageFile)| {
        let name = &image.file;
        let bytes = file::inside(folder, Path::new(name)).and_then(|path| file::read(&path, image.bytes));
        let problem = match bytes {
            Ok(bytes) if bytes.len() as u64 == image.bytes && sha256_of(&bytes) == image.sha256 => return None,
            Ok(_) | Err(lumina_core::Error::FileTooLarge { .. }) => "is damaged",
            Err(lumina_core::Error::Read { source, .. }) if source.kind() == ErrorKind::NotFound => "is missing",
            Err(_) => "cannot be read",
        };
        Some(format!("{} of line {line} {problem}", lumina_core::quoted(name)))
    };
    let problems: Vec<String> = images.par_iter().filter_map(check).collect();
    let more = problems.len().saturating_sub(MAX_NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let named = problems.iter().take(MAX_NAMED).cloned().collect::<Vec<_>>().join(", ");
    ensure!(
        problems.is_empty(),
        "{}: {named}{more}; remove what is damaged, and run the ranks of these lines again, which draw them again",
        shown(folder)
    );
    Ok(())
}

/// Numbers in order, as `3, 7–9 and 40 more`.
fn ranges(numbers: impl IntoIterator<Item = u64>) -> String {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    let more: u64 = ranges.iter().skip(MAX_NAMED).map(|(first, last)| last - first + 1).sum();
    let named = ranges.iter().take(MAX_NAMED);
    let named = named.map(|(first, last)| if first == last { first.to_string() } else { format!("{first}–{last}") });
    let named = named.collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{named} and {more} more") } else { named }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_ranges() {
        assert_eq!(ranges([3, 7, 8, 9, 11]), "3, 7–9, 11");
        assert!(ranges((0..100).map(|index| 2 * index)).ends_with("36, 38 and 80 more"));
        assert_eq!(ranges([]), "");
    }
}
