//! The pre-tokenised items of a data config.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::collate::Batch;
use super::index::resolve;
use super::items::TokenItems;
use super::sampler::ItemGroup;
use super::shard::Item;
use crate::{Error, Result};

/// A data config, YAML:
///
/// ```
/// let yaml = "
/// META:
///   - path: images/record.json
///     type: image
///   - path: chats/record.json
///     type: text
///     ratio: 0.5
/// ";
/// let config = lumina_train::data::DataConfig::from_yaml(yaml, "data.yaml".as_ref())?;
/// assert_eq!(config.meta[1].ratio, 0.5);
/// # Ok::<(), lumina_train::Error>(())
/// ```
///
/// As in the original. Other keys are ignored.
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
pub struct DataConfig {
    /// The sources.
    #[serde(rename = "META")]
    pub meta: Vec<DataMeta>,
}

/// A source of a [`DataConfig`].
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
pub struct DataMeta {
    /// An index that [`TokenItems::open`] reads, a path from the config's folder, or else from the working directory.
    pub path: PathBuf,
    /// The kind of the items. A batch has items of one kind.
    #[serde(rename = "type", default = "default_kind")]
    pub kind: String,
    /// How many times each item is drawn per epoch.
    #[serde(default = "default_ratio")]
    pub ratio: f64,
}

fn default_kind() -> String {
    "default".to_owned()
}

fn default_ratio() -> f64 {
    1.0
}

impl DataConfig {
    /// Reads a config. `file` is its name in errors.
    ///
    /// # Errors
    /// [`Error::Data`] where it is not a data config.
    pub fn from_yaml(yaml: &str, file: &Path) -> Result<Self> {
        let fault =
            |reason: String| Error::Data { file: file.to_owned(), reason: format!("not a data config: {reason}") };
        serde_saphyr::from_str(yaml).map_err(|error| fault(error.to_string()))
    }
}

/// Limit on the sources of a config: each has a list of the lengths of its items when batches are made.
const MAX_SOURCES: usize = 1 << 12;

/// The items of all sources of a config, with one index for all.
#[derive(Debug, Clone)]
pub struct Dataset {
    sources: Vec<(DataMeta, Arc<TokenItems>)>,
}

impl Dataset {
    /// Opens a data config and the indexes it names. Shards are mapped; items are read by [`Dataset::get`].
    ///
    /// # Errors
    /// [`Error::Core`] where it cannot be read, and those of [`DataConfig::from_yaml`] and [`TokenItems::open`].
    pub fn open(config: impl AsRef<Path>) -> Result<Self> {
        Self::open_in(config.as_ref(), None)
    }

    /// [`Dataset::open`] of a config that somebody else wrote: it and all files that it leads to lie inside a folder,
    /// which they cannot leave by `..`, as absolute paths or through symbolic links.
    ///
    /// # Errors
    /// Those of [`Dataset::open`], and [`Error::Core`] where a file lies outside.
    pub fn open_inside(root: impl AsRef<Path>, config: impl AsRef<Path>) -> Result<Self> {
        Self::open_in(config.as_ref(), Some(root.as_ref()))
    }

    fn open_in(file: &Path, root: Option<&Path>) -> Result<Self> {
        let yaml = lumina_core::file::read_document_text(file)?;
        let config = DataConfig::from_yaml(&yaml, file)?;
        if config.meta.len() > MAX_SOURCES {
            let reason = format!("{} sources, more than {MAX_SOURCES}; is it the right file?", config.meta.len());
            return Err(Error::Data { file: file.to_owned(), reason });
        }
        // An index that is named many times is in memory once.
        let mut opened: BTreeMap<PathBuf, Arc<TokenItems>> = BTreeMap::new();
        let open = |meta: DataMeta| {
            let path = resolve(file, &meta.path, root)?;
            let items = match opened.entry(path) {
                Entry::Occupied(items) => items.get().clone(),
                Entry::Vacant(place) => {
                    let items = TokenItems::open_in(place.key(), root)?;
                    place.insert(Arc::new(items)).clone()
                }
            };
            Ok((meta, items))
        };
        Ok(Self { sources: config.meta.into_iter().map(open).collect::<Result<_>>()? })
    }

    /// The items of one index, without a config.
    pub fn of(items: TokenItems) -> Self {
        let meta = DataMeta { path: PathBuf::new(), kind: default_kind(), ratio: default_ratio() };
        Self { sources: vec![(meta, Arc::new(items))] }
    }

    /// Number of items, whatever their ratio.
    pub fn len(&self) -> usize {
        self.sources.iter().map(|(_, items)| items.len()).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The items as a [`BatchSampler`](super::BatchSampler) sees them.
    pub fn groups(&self) -> Vec<ItemGroup> {
        let group = |(meta, items): &(DataMeta, Arc<TokenItems>)| ItemGroup {
            kind: meta.kind.clone(),
            ratio: meta.ratio,
            lens: items.lens().collect(),
        };
        self.sources.iter().map(group).collect()
    }

    /// Tells this data set from others: the number of items and tokens, and a checksum of kinds, ratios, ids and
    /// lengths and of samples of what the items hold. Where the files lie does not matter.
    pub fn fingerprint(&self) -> String {
        let mut crc32 = crc32fast::Hasher::new();
        let mut n_tokens = 0u64;
        for (meta, items) in &self.sources {
            crc32.update(&(meta.kind.len() as u64).to_le_bytes());
            crc32.update(meta.kind.as_bytes());
            crc32.update(&meta.ratio.to_bits().to_le_bytes());
            items.fingerprint(&mut crc32);
            n_tokens += items.lens().map(u64::from).sum::<u64>();
        }
        format!("{} items of {n_tokens} tokens, CRC-32 {:08x}", self.len(), crc32.finalize())
    }

    /// The item of an index, counted over all sources.
    ///
    /// # Errors
    /// [`Error::NoItem`], and those of [`TokenItems::get`].
    pub fn get(&self, index: usize) -> Result<Item> {
        let mut place = index;
        for (_, items) in &self.sources {
            match place.checked_sub(items.len()) {
                Some(left) => place = left,
                None => return items.get(place),
            }
        }
        Err(Error::NoItem { index, len: self.len() })
    }

    /// The items of these indices as a batch, each cut to `max_len` tokens.
    ///
    /// # Errors
    /// Those of [`Dataset::get`] and [`Batch::collate`].
    pub fn batch(&self, indices: &[usize], max_len: usize) -> Result<Batch> {
        Batch::collate(indices.iter().map(|&index| self.get(index)).collect::<Result<Vec<_>>>()?, max_len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_is_checked() {
        let read = |yaml: &str| DataConfig::from_yaml(yaml, Path::new("data.yaml"));
        let config = read("META:\n  - path: 'record.json'\n    note: x\nseed: 1\n").unwrap();
        let expected = DataMeta { path: "record.json".into(), kind: "default".to_owned(), ratio: 1.0 };
        assert_eq!(config.meta, [expected]);
        for bad in
            ["", "META: 1", "META:\n  - type: image\n", "META:\n  - path: a\n    ratio: much\n", "- path: a", "{"]
        {
            assert!(read(bad).unwrap_err().to_string().starts_with("data.yaml: "), "{bad:?}");
        }
    }

    #[test]
    fn missing_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("data.yaml");
        assert!(Dataset::open(&config).unwrap_err().to_string().contains("data.yaml"));
        std::fs::write(&config, "META: [{path: nowhere/record.json}]").unwrap();
        assert!(Dataset::open(&config).unwrap_err().to_string().contains("nowhere"));
        std::fs::write(&config, "META: []").unwrap();
        let dataset = Dataset::open(&config).unwrap();
        assert!(dataset.is_empty() && dataset.get(0).is_err());
    }
}
