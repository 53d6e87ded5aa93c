//! Joining the indexes of all ranks.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use lumina_checkpoint::save_bytes;
use serde_json::Value;

use super::index::{IndexEntry, LastLine};
use super::pretokenize::range_of;
use super::records::Records;
use super::shard_writer::{read_settings, read_skipped};
use crate::{Error, Result};

/// The indexes of all ranks, joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Concatenated {
    /// The file that was written, `record.json`.
    pub index: PathBuf,
    /// Items in it.
    pub items: usize,
    /// Their tokens.
    pub tokens: u64,
    /// Repeated entries, as the original can leave them after a kill, which were left out.
    pub repeated: usize,
    /// Ranks whose index ends within a line, which was left out: their processes were ended before they were done. Only
    /// in folders of the original, which do not say how many records there are.
    pub unfinished: Vec<u64>,
}

/// Joins all `R-of-S-record.jsonl` of a folder, in the order of the ranks, to the list `record.json` in the same
/// folder.
///
/// Shards and pickles are not moved. Mirrors `concat_record.py` of the original, and reads its files too. Those of a
/// [`Pretokenizer`](super::Pretokenizer) have to be complete: each record is in an index or in a list of bad records.
///
/// # Errors
/// [`Error::Read`]; [`Error::Data`] where there are no indexes, where their numbers of splits differ, or an entry is
/// broken; [`Error::MissingRanks`], [`Error::UnfinishedRanks`]; [`Error::OtherRun`] where ranks had other options or
/// records than the first; and [`Error::Checkpoint`] where the list cannot be written.
pub fn concatenate(folder: impl AsRef<Path>) -> Result<Concatenated> {
    let folder = folder.as_ref();
    let fault = |reason: String| Error::Data { file: folder.to_owned(), reason };
    let failed = |source| Error::Read { file: folder.to_owned(), source };
    let mut ranks: BTreeMap<u64, PathBuf> = BTreeMap::new();
    let mut found_splits = None;
    for file in std::fs::read_dir(folder).map_err(failed)? {
        let file = file.map_err(failed)?;
        let Some((rank, splits)) = file.file_name().to_str().and_then(rank_of) else { continue };
        let expected = *found_splits.get_or_insert(splits);
        if splits != expected {
            return Err(fault(format!("holds indexes of {expected} splits and of {splits}; give each a folder")));
        }
        ranks.insert(rank, file.path());
    }
    let Some(splits) = found_splits else {
        return Err(fault("holds no index of a rank, such as `0-of-1-record.jsonl`".to_owned()));
    };
    // A broken name may state any number of splits.
    let missing: Vec<u64> = (0..splits).filter(|rank| !ranks.contains_key(rank)).take(20).collect();
    if !missing.is_empty() {
        return Err(Error::MissingRanks { folder: folder.to_owned(), splits, missing });
    }

    let mut entries: Vec<IndexEntry> = Vec::new();
    let mut ids = HashSet::new();
    let mut done =
        Concatenated { index: folder.join("record.json"), items: 0, tokens: 0, repeated: 0, unfinished: Vec::new() };
    let (mut settings_of_first, mut unfinished) = (None, Vec::new());
    for (rank, file) in &ranks {
        let (of_rank, last_line) = IndexEntry::read_all(file)?;
        if let Some(settings) = Settings::read(folder, *rank, splits)? {
            let done = settings.n_done(folder, &of_rank)?;
            if done < settings.n_records() {
                unfinished.push((*rank, done, settings.n_records()));
            }
            settings.check_like(settings_of_first.get_or_insert_with(|| settings.clone()))?;
        }
        if last_line == LastLine::Unfinished {
            done.unfinished.push(*rank);
        }
        for entry in of_rank {
            if ids.insert(entry.id) {
                done.tokens += u64::from(entry.len);
                entries.push(entry);
            } else {
                done.repeated += 1;
            }
        }
    }
    if !unfinished.is_empty() {
        unfinished.truncate(20);
        return Err(Error::UnfinishedRanks { folder: folder.to_owned(), unfinished });
    }
    done.items = entries.len();
    let list = serde_json::to_vec(&entries).expect("numbers and texts have a JSON form");
    save_bytes(&done.index, &list)?;
    Ok(done)
}

/// What a rank was begun with.
#[derive(Clone)]
struct Settings {
    stem: String,
    file: PathBuf,
    /// But for the rank, which is the one thing in which ranks differ.
    values: Value,
    /// Its records.
    range: Range<u64>,
}

impl Settings {
    /// `None` where the rank has none.
    fn read(folder: &Path, rank: u64, splits: u64) -> Result<Option<Self>> {
        let stem = format!("{rank}-of-{splits}");
        let Some((text, file)) = read_settings(folder, &stem)? else { return Ok(None) };
        let fault = || Error::Data { file: file.clone(), reason: "not the settings of a shard".to_owned() };
        let mut values: Value = serde_json::from_str(&text).map_err(|_| fault())?;
        let n_records = values["records"].as_str().and_then(Records::number_in).ok_or_else(fault)?;
        values["options"].as_object_mut().and_then(|options| options.remove("rank")).ok_or_else(fault)?;
        Ok(Some(Self { stem, file, values, range: range_of(rank, splits, n_records) }))
    }

    fn n_records(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// How many of its records have tokens, or are known to be bad.
    fn n_done(&self, folder: &Path, entries: &[IndexEntry]) -> Result<u64> {
        let bad = read_skipped(folder, &self.stem)?.into_iter().map(|skipped| skipped.index);
        let ids = entries.iter().map(|entry| entry.id).chain(bad).filter(|id| self.range.contains(id));
        Ok(ids.collect::<HashSet<_>>().len() as u64)
    }

    fn check_like(&self, first: &Self) -> Result<()> {
        if self.values == first.values {
            return Ok(());
        }
        let (found, wanted) = (self.values.to_string(), first.values.to_string());
        Err(Error::OtherRun { file: self.file.clone(), found, wanted })
    }
}

/// The numbers in `R-of-S-record.jsonl`.
fn rank_of(name: &str) -> Option<(u64, u64)> {
    let (rank, splits) = name.strip_suffix("-record.jsonl")?.split_once("-of-")?;
    let (rank, splits): (u64, u64) = (rank.parse().ok()?, splits.parse().ok()?);
    (rank < splits).then_some((rank, splits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_that_of_the_ranks() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        let line = |id: u64| format!("{{\"file\":\"x.tokens\",\"len\":2,\"id\":{id},\"offset\":8}}\n");
        for rank in 0..11u64 {
            write(&format!("{rank}-of-11-record.jsonl"), &(line(2 * rank) + &line(2 * rank + 1)));
        }
        write("3-of-11-record.jsonl", &(line(6) + &line(7) + &line(7) + "{\"file\":\"x.tok"));
        write("notes.txt", "");
        let done = concatenate(folder.path()).unwrap();
        assert_eq!((done.items, done.tokens, done.repeated, done.unfinished), (22, 44, 1, vec![3]));
        let (entries, _) = IndexEntry::read_all(&done.index).unwrap();
        assert!(entries.iter().map(|entry| entry.id).eq(0..22));
    }

    #[test]
    fn missing_ranks_are_named() {
        let folder = tempfile::tempdir().unwrap();
        assert!(concatenate(folder.path()).unwrap_err().to_string().contains("no index"));
        let write = |name: &str| std::fs::write(folder.path().join(name), "").unwrap();
        write("1-of-4-record.jsonl");
        write("2-of-4-record.jsonl");
        assert!(concatenate(folder.path()).unwrap_err().to_string().contains("[0, 3]"));
        write("0-of-2-record.jsonl");
        assert!(concatenate(folder.path()).unwrap_err().to_string().contains("splits"));
    }
}
