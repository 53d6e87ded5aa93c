//! The pre-tokenised items of an index, in shards or pickled.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::index::{IndexEntry, resolve};
use super::pickled::read_pickled;
use super::shard::{Item, TokenShard};
use crate::{Error, Result};

/// The items that an index names. Opening maps the shards and reads no item.
#[derive(Debug, Clone)]
pub struct TokenItems {
    index: PathBuf,
    files: Vec<ItemFile>,
    entries: Vec<Entry>,
}

#[derive(Debug, Clone)]
enum ItemFile {
    Shard(TokenShard),
    Pickle(PathBuf),
}

#[derive(Debug, Clone)]
struct Entry {
    /// The place in the list of files.
    file: u32,
    len: u32,
    offset: u64,
    id: u64,
}

impl TokenItems {
    /// Opens an index: one rank's `…-record.jsonl`, or the `record.json` of all, of this crate or of the original.
    ///
    /// # Errors
    /// Those of [`IndexEntry::read_all`] and [`TokenShard::open`].
    pub fn open(index: impl AsRef<Path>) -> Result<Self> {
        Self::open_in(index.as_ref(), None)
    }

    /// [`TokenItems::open`] of an index that somebody else wrote: it and the files that it names lie inside a folder,
    /// which they cannot leave by `..`, as absolute paths or through symbolic links.
    ///
    /// # Errors
    /// Those of [`TokenItems::open`], and [`Error::Core`] where a file lies outside.
    pub fn open_inside(root: impl AsRef<Path>, index: impl AsRef<Path>) -> Result<Self> {
        Self::open_in(index.as_ref(), Some(root.as_ref()))
    }

    pub(super) fn open_in(index: &Path, root: Option<&Path>) -> Result<Self> {
        let mut shards: HashMap<String, usize> = HashMap::new();
        let mut files = Vec::new();
        let mut entries = Vec::new();
        IndexEntry::read_each(index, |IndexEntry { file, len, id, offset }| {
            let file = match (offset, shards.get(&file)) {
                (Some(_), Some(&shard)) => shard,
                (Some(_), None) => {
                    files.push(ItemFile::Shard(TokenShard::open(resolve(index, Path::new(&file), root)?)?));
                    shards.insert(file, files.len() - 1);
                    files.len() - 1
                }
                (None, _) => {
                    files.push(ItemFile::Pickle(resolve(index, Path::new(&file), root)?));
                    files.len() - 1
                }
            };
            let file = u32::try_from(file).map_err(|_| Error::Data {
                file: index.to_owned(),
                reason: "more files than can be counted".to_owned(),
            })?;
            entries.push(Entry { file, len, offset: offset.unwrap_or(0), id });
            Ok(())
        })?;
        Ok(Self { index: index.to_owned(), files, entries })
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Number of tokens of each item, as the index says.
    pub fn lens(&self) -> impl ExactSizeIterator<Item = u32> + '_ {
        self.entries.iter().map(|entry| entry.len)
    }

    /// Adds what tells these items from others: ids and lengths of all, and of samples what the items hold.
    pub(super) fn fingerprint(&self, crc32: &mut crc32fast::Hasher) {
        const SAMPLES: usize = 256;
        crc32.update(&(self.len() as u64).to_le_bytes());
        let every = self.len().div_ceil(SAMPLES).max(1);
        for (place, entry) in self.entries.iter().enumerate() {
            crc32.update(&entry.id.to_le_bytes());
            crc32.update(&entry.len.to_le_bytes());
            if place.is_multiple_of(every) {
                let sample = match &self.files[entry.file as usize] {
                    ItemFile::Shard(shard) => shard.checksum_at(entry.offset).map_or(0, u64::from),
                    ItemFile::Pickle(file) => std::fs::metadata(file).map_or(0, |metadata| metadata.len()),
                };
                crc32.update(&sample.to_le_bytes());
            }
        }
    }

    /// The item of an entry of the index.
    ///
    /// # Errors
    /// [`Error::Data`] where there is no such entry, or the item is not what the index says; those of
    /// [`read_pickled`].
    pub fn get(&self, place: usize) -> Result<Item> {
        let fault = |reason: String| Error::Data { file: self.index.clone(), reason };
        let n_items = self.len();
        let entry = self.entries.get(place).ok_or_else(|| fault(format!("has {n_items} items, no item {place}")))?;
        let item = match &self.files[entry.file as usize] {
            ItemFile::Shard(shard) => shard.item(entry.offset, entry.len)?,
            ItemFile::Pickle(file) => read_pickled(file)?,
        };
        if item.id != entry.id || item.tokens.len() != entry.len as usize {
            return Err(fault(format!(
                "item {place} should have id {} and {} tokens, it has id {} and {}; its file is of another run",
                entry.id,
                entry.len,
                item.id,
                item.tokens.len()
            )));
        }
        Ok(item)
    }
}

#[cfg(test)]
mod tests {
    use lumina_tokenizer::Encoded;

    use super::super::shard::{MAGIC, append_item};
    use super::*;

    fn open(lines: &str) -> Result<TokenItems> {
        let folder = tempfile::tempdir().unwrap();
        let mut bytes = MAGIC.to_vec();
        for id in [4, 5] {
            append_item(&mut bytes, id, &Encoded { tokens: vec![1, 2, 3], labels: vec![-100, 2, 3] }).unwrap();
        }
        std::fs::write(folder.path().join("0-of-1.tokens"), bytes).unwrap();
        std::fs::write(folder.path().join("0-of-1-record.jsonl"), lines).unwrap();
        TokenItems::open(folder.path().join("0-of-1-record.jsonl"))
    }

    fn line(file: &str, len: u32, id: u64, offset: u64) -> String {
        format!("{{\"file\":\"{file}\",\"len\":{len},\"id\":{id},\"offset\":{offset}}}\n")
    }

    #[test]
    fn items_can_be_read_after_their_files_are_removed() {
        let items = open(&(line("0-of-1.tokens", 3, 4, 8) + &line("0-of-1.tokens", 3, 5, 40))).unwrap();
        assert_eq!((items.get(0).unwrap().id, items.get(1).unwrap().id), (4, 5));
        assert_eq!(items.get(1).unwrap().labels, [-100, 2, 3]);
        assert!(items.lens().eq([3, 3]) && items.get(2).is_err());
    }

    #[test]
    fn an_index_that_does_not_fit_is_an_error() {
        for (len, id, offset) in
            [(3, 6, 8), (2, 4, 8), (3, 4, 12), (3, 4, u64::MAX), (u32::MAX, 4, 8), (3, 4, 72), (0, 4, 72)]
        {
            let items = open(&line("0-of-1.tokens", len, id, offset)).unwrap();
            assert!(matches!(items.get(0), Err(Error::Data { .. })), "{len} {id} {offset}");
        }
        assert!(open(&line("nowhere.tokens", 3, 4, 8)).is_err());
        assert!(open(&line("0-of-1-record.jsonl", 3, 4, 8)).is_err());
        let pickle = open("{\"file\":\"0-of-1.tokens\",\"len\":3,\"id\":4}\n").unwrap();
        assert!(pickle.get(0).is_err());
    }
}
