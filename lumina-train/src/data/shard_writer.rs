//! Writing a shard, so that the writing can be ended at any point and continued.
//!
//! A rank writes four files:
//!
//! | file | contents |
//! | --- | --- |
//! | `R-of-S.tokens` | the shard ([`TokenShard`](super::TokenShard)) |
//! | `R-of-S-record.jsonl` | its index: an [`IndexEntry`] an item |
//! | `R-of-S-skipped.jsonl` | `{"index":…,"reason":…}` for each bad record |
//! | `R-of-S-run.json` | the settings of the run, with which alone it is continued |
//!
//! Records are written a window at a time. The tokens of a window are on disk before its lines are written. A window is
//! complete once each of its records has a whole line in one of the two lists; an incomplete one is cut off and made
//! again. So a window's results have to be the same each time, and no record is lost or repeated.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use lumina_checkpoint::save_bytes;
use lumina_core::file;
use lumina_tokenizer::Encoded;

use super::index::{IndexEntry, push_line};
use super::shard::{MAGIC, append_item, item_bytes};
use crate::checkpoint::check_regular;
use crate::{Error, Result};

/// The result of a record: tokens, or why it has none.
pub(super) type Outcome = std::result::Result<Encoded, String>;

/// A bad record, which has no tokens: a line of the list of bad records.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SkippedRecord {
    /// Its index in its file.
    pub index: u64,
    /// What is wrong with it.
    pub reason: String,
}

/// The file with the bad records of a rank.
fn skipped_file(folder: &Path, stem: &str) -> PathBuf {
    folder.join(format!("{stem}-skipped.jsonl"))
}

/// The file with the settings of a rank.
fn settings_file(folder: &Path, stem: &str) -> PathBuf {
    folder.join(format!("{stem}-run.json"))
}

/// The settings that a rank was begun with, and their file. There are none in folders of the original.
pub(super) fn read_settings(folder: &Path, stem: &str) -> Result<Option<(String, PathBuf)>> {
    let file = settings_file(folder, stem);
    match file::read_document_text(&file) {
        Ok(text) => Ok(Some((text, file))),
        Err(lumina_core::Error::Read { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The bad records of a rank, as its files list them.
pub(super) fn read_skipped(folder: &Path, stem: &str) -> Result<Vec<SkippedRecord>> {
    let bytes = file::read(&skipped_file(folder, stem), u64::MAX)?;
    Ok(whole_lines(&bytes).into_iter().map(|(skipped, _)| skipped).collect())
}

/// What a shard has so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) items: u64,
    pub(super) skipped: u64,
    pub(super) tokens: u64,
}

/// The files of one rank.
pub(super) struct ShardWriter {
    /// The shard's name, which the index repeats.
    name: String,
    tokens: GrowingFile,
    index: GrowingFile,
    skipped: GrowingFile,
    written: Written,
}

impl ShardWriter {
    /// Opens the files of a rank for the records of `range`, and cuts off an incomplete window.
    pub(super) fn open(folder: &Path, stem: &str, settings: &str, range: Range<u64>, window: u64) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(|source| Error::Write { file: folder.to_owned(), source })?;
        let name = format!("{stem}.tokens");
        let mut tokens = GrowingFile::open(folder.join(&name))?;
        // Held until the writer is dropped or the process ends, however it ends.
        match tokens.file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::Busy { file: folder.join(&name) }),
            Err(TryLockError::Error(source)) => return Err(Error::Write { file: folder.join(&name), source }),
        }
        let mut index = GrowingFile::open(folder.join(format!("{stem}-record.jsonl")))?;
        let mut skipped = GrowingFile::open(skipped_file(folder, stem))?;
        check_settings(&settings_file(folder, stem), settings, tokens.length()?)?;

        let found = Found::read(&name, &mut tokens, &mut index, &mut skipped)?;
        let (written, lengths) = found.whole_windows(range, window);
        for (file, length) in [&mut tokens, &mut index, &mut skipped].into_iter().zip(lengths) {
            file.cut(length)?;
        }
        if lengths[0] == 0 {
            tokens.append(&MAGIC)?;
        }
        Ok(Self { name, tokens, index, skipped, written })
    }

    /// What the shard has so far.
    pub(super) fn written(&self) -> Written {
        self.written
    }

    /// Writes the next window.
    pub(super) fn append(&mut self, first: u64, outcomes: &[Outcome]) -> Result<()> {
        let mut offset = self.tokens.length()?;
        let (mut bytes, mut lines, mut bad) = (Vec::new(), Vec::new(), Vec::new());
        for (id, outcome) in (first..).zip(outcomes) {
            match outcome {
                Ok(encoded) => {
                    let len = append_item(&mut bytes, id, encoded).ok_or_else(|| Error::Data {
                        file: self.tokens.path.clone(),
                        reason: format!("record {id} has labels that a shard cannot hold"),
                    })?;
                    push_line(&mut lines, &IndexEntry { file: self.name.clone(), len, id, offset: Some(offset) });
                    offset += item_bytes(len);
                    self.written.items += 1;
                    self.written.tokens += u64::from(len);
                }
                Err(reason) => {
                    push_line(&mut bad, &SkippedRecord { index: id, reason: reason.clone() });
                    self.written.skipped += 1;
                }
            }
        }
        self.tokens.append(&bytes)?;
        // A power cut must not leave lines without their tokens.
        self.tokens.sync()?;
        self.skipped.append(&bad)?;
        self.index.append(&lines)
    }

    /// Flushes everything to the disk.
    pub(super) fn finish(self) -> Result<()> {
        self.index.sync()?;
        self.skipped.sync()
    }
}

/// The settings of a run that is continued must be those that it was begun with.
fn check_settings(file: &Path, settings: &str, shard_bytes: u64) -> Result<()> {
    match file::read_document_text(file) {
        Ok(found) if found == settings => Ok(()),
        Ok(found) => Err(Error::OtherRun { file: file.to_owned(), found, wanted: settings.to_owned() }),
        Err(lumina_core::Error::Read { source, .. }) if source.kind() == ErrorKind::NotFound && shard_bytes == 0 => {
            Ok(save_bytes(file, settings.as_bytes())?)
        }
        Err(lumina_core::Error::Read { source, .. }) if source.kind() == ErrorKind::NotFound => {
            let reason = "missing, and the shard is not continued without its settings; use another folder";
            Err(Error::Data { file: file.to_owned(), reason: reason.to_owned() })
        }
        Err(error) => Err(error.into()),
    }
}

/// A file that grows.
struct GrowingFile {
    path: PathBuf,
    file: File,
}

impl GrowingFile {
    fn open(path: PathBuf) -> Result<Self> {
        check_regular(&path)?;
        match OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path) {
            Ok(file) => Ok(Self { path, file }),
            Err(source) => Err(Error::Write { file: path, source }),
        }
    }

    fn failed(&self) -> impl FnOnce(std::io::Error) -> Error + use<> {
        let file = self.path.clone();
        |source| Error::Write { file, source }
    }

    fn length(&self) -> Result<u64> {
        self.file.metadata().map(|metadata| metadata.len()).map_err(self.failed())
    }

    fn start(&mut self, n_bytes: usize) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = self.file.rewind().and_then(|()| (&self.file).take(n_bytes as u64).read_to_end(&mut bytes));
        read.map(|_| bytes).map_err(|source| Error::Read { file: self.path.clone(), source })
    }

    fn cut(&mut self, length: u64) -> Result<()> {
        let cut = self.file.set_len(length).and_then(|()| self.file.seek(SeekFrom::Start(length)));
        cut.map(|_| ()).map_err(self.failed())
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(self.failed())
    }

    fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(self.failed())
    }
}

impl Drop for GrowingFile {
    /// Closing is not enough if a process is being started at that moment, by any thread: until it runs its program it
    /// has a copy of the file, and with it the lock.
    fn drop(&mut self) {
        // A file that was not locked cannot be unlocked.
        let _ = self.file.unlock();
    }
}

/// The whole items and lines that earlier runs have written.
struct Found {
    /// Bytes of the magic.
    magic: u64,
    items: Vec<FoundItem>,
    /// For each bad record its index and the end of its line.
    skipped: Vec<(u64, u64)>,
}

struct FoundItem {
    record: u64,
    len: u32,
    /// The byte of the shard at which the item ends.
    end: u64,
    /// The byte of the index at which its line ends.
    line_end: u64,
}

impl Found {
    fn read(name: &str, tokens: &mut GrowingFile, index: &mut GrowingFile, skipped: &mut GrowingFile) -> Result<Self> {
        let shard_bytes = tokens.length()?;
        let magic = MAGIC.len() as u64;
        let mut found = Self { magic: 0, items: Vec::new(), skipped: Vec::new() };
        let start = tokens.start(MAGIC.len())?;
        if start != MAGIC[..start.len()] {
            let reason = "not a token shard of this version, and it is not overwritten".to_owned();
            return Err(Error::Data { file: tokens.path.clone(), reason });
        }
        if shard_bytes < magic {
            return Ok(found);
        }
        found.magic = magic;
        let mut end = magic;
        for (entry, line_end) in whole_lines::<IndexEntry>(&index.start(usize::MAX)?) {
            let item_end = end + item_bytes(entry.len);
            if entry.file != name || entry.offset != Some(end) || item_end > shard_bytes {
                break;
            }
            end = item_end;
            found.items.push(FoundItem { record: entry.id, len: entry.len, end, line_end });
        }
        let lines = whole_lines::<SkippedRecord>(&skipped.start(usize::MAX)?);
        found.skipped = lines.into_iter().map(|(skipped, line_end)| (skipped.index, line_end)).collect();
        Ok(found)
    }

    /// What there is in whole windows, with the lengths of shard, index and list of bad records up to there.
    fn whole_windows(&self, range: Range<u64>, window: u64) -> (Written, [u64; 3]) {
        let mut lengths = [self.magic, 0, 0];
        let mut written = Written::default();
        let (mut items, mut skipped) = (self.items.iter().peekable(), self.skipped.iter().peekable());
        let (mut now, mut lengths_now) = (written, lengths);
        for record in range.clone() {
            if let Some(item) = items.next_if(|item| item.record == record) {
                now.items += 1;
                now.tokens += u64::from(item.len);
                lengths_now = [item.end, item.line_end, lengths_now[2]];
            } else if let Some(&(_, line_end)) = skipped.next_if(|skipped| skipped.0 == record) {
                now.skipped += 1;
                lengths_now[2] = line_end;
            } else {
                break;
            }
            if (record + 1 - range.start).is_multiple_of(window) || record + 1 == range.end {
                (written, lengths) = (now, lengths_now);
            }
        }
        (written, lengths)
    }
}

/// The values of the lines up to the first that is not whole, each with its end.
fn whole_lines<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Vec<(T, u64)> {
    let mut end = 0;
    let lines = bytes.split_inclusive(|&byte| byte == b'\n').map_while(|line| {
        end += line.len() as u64;
        let value = line.ends_with(b"\n").then(|| serde_json::from_slice(line).ok()).flatten()?;
        Some((value, end))
    });
    lines.collect()
}
