//! The manifest of a rank: a line for each request that it has answered, appended once its images are there.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use lumina_core::shown;
use lumina_mgpt::StopReason;
use serde::{Deserialize, Serialize};

use crate::Rank;

/// What became of a request: a line of a manifest. Nothing in it depends on how long it took, or in which batch it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// The line of the request in its file, from 1.
    pub(super) line: u64,
    /// The request's id. There is none where the line cannot be read.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) id: Option<String>,
    #[serde(flatten)]
    pub(super) outcome: Outcome,
}

/// An answer, or why there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Outcome {
    Answered {
        seed: u64,
        stop: StopReason,
        /// With `<|image|>` in the place of each image.
        text: String,
        images: Vec<ImageFile>,
    },
    Failed {
        error: String,
    },
}

/// An image that was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ImageFile {
    /// Its name in the folder.
    pub(super) file: String,
    /// Width and height in pixels.
    pub(super) size: (u32, u32),
    pub(super) bytes: u64,
    pub(super) sha256: String,
}

impl Entry {
    pub(super) fn is_failed(&self) -> bool {
        matches!(self.outcome, Outcome::Failed { .. })
    }

    pub(super) fn images(&self) -> &[ImageFile] {
        match &self.outcome {
            Outcome::Answered { images, .. } => images,
            Outcome::Failed { .. } => &[],
        }
    }

    /// The entry in a line, if the line is whole and one of the rank's.
    pub(super) fn of_line(line: &[u8], rank: Rank, requests: u64) -> Option<Self> {
        let entry: Self = serde_json::from_slice(line.strip_suffix(b"\n")?).ok()?;
        let is_of_rank = (1..=requests).contains(&entry.line) && rank.has(entry.line - 1);
        is_of_rank.then_some(entry)
    }

    /// The line of the entry.
    pub(super) fn to_line(&self) -> Result<Vec<u8>> {
        let mut line = serde_json::to_vec(self).context("numbers and texts have a JSON form")?;
        line.push(b'\n');
        Ok(line)
    }
}

/// The name of a rank's manifest.
pub(super) fn name(rank: Rank) -> String {
    format!("manifest-{}-of-{}.jsonl", rank.rank(), rank.of())
}

/// Whether a file is the manifest of a rank, of whatever number of ranks.
pub(super) fn is_of_a_rank(file: &str) -> bool {
    let numbers = file.strip_prefix("manifest-").and_then(|rest| rest.strip_suffix(".jsonl"));
    let is_number = |text: &str| text.parse::<u64>().is_ok();
    numbers.and_then(|numbers| numbers.split_once("-of-")).is_some_and(|(rank, of)| is_number(rank) && is_number(of))
}

/// The manifest of a rank, which this process alone writes.
pub(super) struct Manifest {
    path: PathBuf,
    file: File,
    /// Whether each request that it has failed.
    failed: BTreeMap<u64, bool>,
}

impl Manifest {
    /// Opens the manifest of a rank, or begins it. Kept are whole lines, each request once, for which `keep` says so;
    /// what follows a broken line, as a kill or a power cut can leave it, is left out, since it is made again.
    ///
    /// # Errors
    /// The system's, and where another process has the rank.
    pub(super) fn open(folder: &Path, rank: Rank, requests: u64, keep: impl Fn(&Entry) -> bool) -> Result<Self> {
        let path = folder.join(name(rank));
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.with_context(|| format!("{}: cannot be opened", shown(&path)))?;
        // Held until the manifest is dropped, or the process ends in whatever way. Where a file system has no locks,
        // starting a rank once is up to the scheduler.
        if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
            bail!("{}: another process is writing it; start each rank once", shown(&path));
        }
        let mut manifest = Self { path, file, failed: BTreeMap::new() };
        let mut found = Vec::new();
        manifest.file.read_to_end(&mut found).with_context(|| manifest.failure())?;
        let mut kept = Vec::with_capacity(found.len());
        for line in found.split_inclusive(|&byte| byte == b'\n') {
            let Some(entry) = Entry::of_line(line, rank, requests) else { break };
            if !manifest.failed.contains_key(&entry.line) && keep(&entry) {
                manifest.failed.insert(entry.line, entry.is_failed());
                kept.extend_from_slice(line);
            }
        }
        // From the first byte that differs on, so that a kill at this point costs no more than what follows.
        let same = found.iter().zip(&kept).take_while(|(found, kept)| found == kept).count();
        let file = &mut manifest.file;
        let written = file.set_len(same as u64).and_then(|()| file.seek(SeekFrom::Start(same as u64)));
        let written = written.and_then(|_| file.write_all(&kept[same..])).and_then(|()| file.sync_data());
        written.with_context(|| manifest.failure())?;
        Ok(manifest)
    }

    /// Whether a request has its line.
    pub(super) fn has(&self, line: u64) -> bool {
        self.failed.contains_key(&line)
    }

    /// How many requests have failed.
    pub(super) fn n_failed(&self) -> usize {
        self.failed.values().filter(|&&failed| failed).count()
    }

    /// Adds a line, and waits until it is on disk.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn append(&mut self, entry: &Entry) -> Result<()> {
        let line = entry.to_line()?;
        let written = self.file.write_all(&line).and_then(|()| self.file.sync_data());
        written.with_context(|| self.failure())?;
        self.failed.insert(entry.line, entry.is_failed());
        Ok(())
    }

    fn failure(&self) -> String {
        format!("{}: cannot be written; the same command continues it", shown(&self.path))
    }
}

impl Drop for Manifest {
    /// A process that is being started at this moment has a copy of the file, and with it the lock.
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(line: u64, failed: bool) -> Entry {
        let image = ImageFile { file: format!("{line}.png"), size: (32, 64), bytes: 5, sha256: "ab".to_owned() };
        let answer = Outcome::Answered {
            seed: u64::MAX,
            stop: StopReason::TurnEnd,
            text: "<|image|>".to_owned(),
            images: vec![image],
        };
        let outcome = if failed { Outcome::Failed { error: "no\nimage".to_owned() } } else { answer };
        Entry { line, id: (!failed).then(|| line.to_string()), outcome }
    }

    #[test]
    fn a_line_is_an_entry() {
        let rank = Rank::new(1, 3).unwrap();
        for entry in [entry(2, false), entry(5, true)] {
            let line = entry.to_line().unwrap();
            assert_eq!(line.iter().filter(|&&byte| byte == b'\n').count(), 1);
            assert_eq!(Entry::of_line(&line, rank, 5), Some(entry.clone()));
            assert_eq!(Entry::of_line(&line, rank, 1), None);
            assert_eq!(Entry::of_line(&line, Rank::ONLY, 5), Some(entry));
            assert_eq!(Entry::of_line(&line, Rank::new(0, 3).unwrap(), 5), None);
            for cut in 0..line.len() {
                assert_eq!(Entry::of_line(&line[..cut], rank, 5), None, "{cut}");
            }
        }
        let json = String::from_utf8(entry(2, false).to_line().unwrap()).unwrap();
        assert_eq!(
            json,
            "{\"line\":2,\"id\":\"2\",\"seed\":18446744073709551615,\"stop\":\"turn_end\",\"text\":\"<|image|>\",\
             \"images\":[{\"file\":\"2.png\",\"size\":[32,64],\"bytes\":5,\"sha256\":\"ab\"}]}\n"
        );
    }

    /// Wherever the file is cut, the whole lines before that stay, and appending goes on from there.
    #[test]
    fn a_torn_line_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manifest-0-of-1.jsonl");
        let open = |keep: fn(&Entry) -> bool| Manifest::open(folder.path(), Rank::ONLY, 9, keep).unwrap();
        let lines: Vec<_> = (1..=3).map(|line| entry(line, line == 2).to_line().unwrap()).collect();
        let text = lines.concat();
        for cut in 0..=text.len() {
            std::fs::write(&path, &text[..cut]).unwrap();
            let mut manifest = open(|_| true);
            let whole = text[..cut].iter().filter(|&&byte| byte == b'\n').count();
            assert!((1..=9).all(|line| manifest.has(line) == (line <= whole as u64)), "{cut}");
            manifest.append(&entry(9, false)).unwrap();
            drop(manifest);
            let after = [lines[..whole].concat(), entry(9, false).to_line().unwrap()].concat();
            assert_eq!(std::fs::read(&path).unwrap(), after, "{cut}");
        }
        // A broken line in the middle, and one that is there twice.
        for (bad, n) in [(&b"\0\0\n"[..], 1), (&lines[0][..], 3)] {
            std::fs::write(&path, [&lines[0][..], bad, &lines[1], &lines[2]].concat()).unwrap();
            assert_eq!(open(|_| true).failed.len(), n);
            assert_eq!(std::fs::read(&path).unwrap(), lines[..n].concat());
        }
        // Those that are not to be kept are left out wherever they are.
        let manifest = open(|entry| !entry.is_failed());
        assert_eq!((manifest.failed.len(), manifest.n_failed(), manifest.has(2)), (2, 0, false));
        assert_eq!(std::fs::read(&path).unwrap(), [&*lines[0], &lines[2]].concat());
        let second = Manifest::open(folder.path(), Rank::ONLY, 9, |_| true).err().unwrap();
        assert!(format!("{second:#}").contains("start each rank once"));
    }

    #[test]
    fn names_of_ranks() {
        assert_eq!(name(Rank::new(1, 3).unwrap()), "manifest-1-of-3.jsonl");
        assert!(is_of_a_rank("manifest-1-of-3.jsonl") && !is_of_a_rank("manifest.jsonl"));
        assert!(!is_of_a_rank("manifest-a-of-3.jsonl") && !is_of_a_rank("1.png"));
    }
}
