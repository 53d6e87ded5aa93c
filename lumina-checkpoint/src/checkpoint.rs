//! A checkpoint as one or several files.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;

use super::gguf::{self, Metadata};
use super::source::map;
use super::tensor_view::{MappedTensor, Stored, TensorView};
use crate::torch;
use crate::{Error, Result};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const GGUF: &str = "model.gguf";

/// The tensors of a checkpoint, by name. `Send + Sync`; cloning copies no data.
///
/// See the [module](super) for what can be opened, and what it costs.
#[derive(Clone)]
pub struct Checkpoint {
    path: Arc<Path>,
    tensors: Arc<BTreeMap<String, Arc<Stored>>>,
    metadata: Option<Arc<Metadata>>,
    documents: Option<FindDocument>,
}

/// Finds a document by its name, before the folder is looked at.
type FindDocument = Arc<dyn Fn(&str) -> Result<Option<Bytes>> + Send + Sync>;

/// `model.safetensors.index.json`.
#[derive(Deserialize)]
struct Index {
    /// From the name of a tensor to that of its shard.
    weight_map: BTreeMap<String, String>,
}

impl Checkpoint {
    /// Opens a folder or a file.
    ///
    /// In a folder, `model.safetensors` is taken, else the shards that `model.safetensors.index.json` names, else
    /// `model.gguf`. A file with the extension `safetensors` is one; any other file tells by its first bytes what it is.
    ///
    /// # Errors
    /// Where something is missing, cut short, damaged, or holds what is not a tensor; each error names the file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let metadata = std::fs::metadata(path).map_err(|source| Error::Read { file: path.to_owned(), source })?;
        if !metadata.is_dir() {
            return Self::of_file(path, path);
        }
        if let Some(file) = existing(path, SINGLE) {
            return Self::of_file(path, &file);
        }
        if let Some(index) = existing(path, INDEX) {
            let mut tensors = BTreeMap::new();
            read_shards(path, &index, &mut tensors)?;
            return Ok(Self { path: path.into(), tensors: Arc::new(tensors), metadata: None, documents: None });
        }
        if let Some(file) = existing(path, GGUF) {
            return Self::of_file(path, &file);
        }
        let looked_for = format!("`{SINGLE}`, `{INDEX}` and `{GGUF}`");
        Err(Error::NoCheckpoint { folder: path.to_owned(), looked_for })
    }

    /// The checkpoint in one file, which is, or lies in, `path`.
    fn of_file(path: &Path, file: &Path) -> Result<Self> {
        let Contents { tensors: read, metadata } = read_file(file)?;
        let mut tensors = BTreeMap::new();
        insert(&mut tensors, read)?;
        Ok(Self { path: path.into(), tensors: Arc::new(tensors), metadata: metadata.map(Arc::new), documents: None })
    }

    /// The folder or file that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The metadata of a GGUF file; `None` for every other kind.
    pub fn metadata(&self) -> Option<&Metadata> {
        self.metadata.as_deref()
    }

    /// The same tensors as a network knows them: by other names, and with rows in another order. Nothing is read.
    ///
    /// # Errors
    /// Those of `map`, and [`Error::DuplicateTensor`] where it gives two tensors one name.
    pub fn map_tensors(&self, mut map: impl FnMut(&TensorView) -> Result<MappedTensor>) -> Result<Self> {
        let mut tensors = BTreeMap::new();
        for stored in self.tensors.values() {
            let mapped = map(&TensorView::new(stored.clone()))?;
            insert(&mut tensors, vec![stored.mapped(mapped)])?;
        }
        Ok(Self { tensors: Arc::new(tensors), ..self.clone() })
    }

    /// The same with documents that [`Checkpoint::document`] finds before it looks into the folder, such as those in metadata.
    #[must_use]
    pub fn with_documents(self, find: impl Fn(&str) -> Result<Option<Bytes>> + Send + Sync + 'static) -> Self {
        Self { documents: Some(Arc::new(find)), ..self }
    }

    /// A file that belongs to the checkpoint by its name in a Hugging Face folder, `config.json` or `tokenizer.json`: one of
    /// [`Checkpoint::with_documents`], else the one in the folder, or in that of the file.
    ///
    /// # Errors
    /// Where it is there and cannot be read.
    pub fn document(&self, name: &str) -> Result<Option<Bytes>> {
        if let Some(document) = self.own_document(name)? {
            return Ok(Some(document));
        }
        let folder = if self.path.is_dir() { Some(&*self.path) } else { self.path.parent() };
        folder.and_then(|folder| existing(folder, name)).map(|file| map(&file)).transpose()
    }

    /// A document of [`Checkpoint::with_documents`] alone.
    ///
    /// # Errors
    /// As [`Checkpoint::document`].
    pub fn own_document(&self, name: &str) -> Result<Option<Bytes>> {
        self.documents.as_ref().map_or(Ok(None), |find| find(name))
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The tensor of this name.
    pub fn get(&self, name: &str) -> Option<TensorView> {
        self.tensors.get(name).map(|stored| TensorView::new(stored.clone()))
    }

    /// The file that holds the tensor of this name.
    pub fn file_of(&self, name: &str) -> Option<&Path> {
        self.tensors.get(name).map(|stored| &*stored.file)
    }
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkpoint").field("path", &self.path).field("tensors", &self.tensors.len()).finish()
    }
}

fn existing(folder: &Path, name: &str) -> Option<PathBuf> {
    Some(folder.join(name)).filter(|file| file.exists())
}

/// What is in one file.
struct Contents {
    tensors: Vec<Stored>,
    metadata: Option<Metadata>,
}

impl From<Vec<Stored>> for Contents {
    fn from(tensors: Vec<Stored>) -> Self {
        Self { tensors, metadata: None }
    }
}

/// Reads one file of any kind.
fn read_file(file: &Path) -> Result<Contents> {
    let bytes = map(file)?;
    let not_a_checkpoint = |reason: String| Error::NotACheckpoint { file: file.to_owned(), reason };
    if bytes.starts_with(b"version https://git-lfs") {
        let reason = "this is a Git LFS pointer, and `git lfs pull` fetches the file it stands for";
        Err(not_a_checkpoint(reason.to_owned()))
    } else if bytes.starts_with(gguf::MAGIC) {
        // Before the next one: a GGUF file may have `{` there, and a header of safetensors is never so long.
        let (tensors, metadata) = gguf::read(file, &bytes)?;
        Ok(Contents { tensors, metadata: Some(metadata) })
    } else if file.extension().is_some_and(|extension| extension == "safetensors") || bytes.get(8) == Some(&b'{') {
        crate::safetensors::read(file, &bytes).map(Into::into)
    } else if bytes.starts_with(b"PK\x03\x04") {
        torch::read_zip(file, &bytes).map(Into::into)
    } else if bytes.starts_with(b"\x80") {
        torch::read_legacy(file, &bytes).map(Into::into)
    } else {
        let start = &bytes[..bytes.len().min(8)];
        Err(not_a_checkpoint(format!("neither safetensors, GGUF nor saved by torch; it begins with {start:02x?}")))
    }
}

/// Reads all shards that an index names, and checks that each tensor is where the index says.
fn read_shards(folder: &Path, file: &Path, tensors: &mut BTreeMap<String, Arc<Stored>>) -> Result<()> {
    let index: Index = serde_json::from_slice(&map(file)?).map_err(|error| Error::Damaged {
        file: file.to_owned(),
        reason: format!("not an index of shards: {error}"),
    })?;
    let mut shards: BTreeMap<&str, PathBuf> = BTreeMap::new();
    for shard in index.weight_map.values() {
        if shards.contains_key(shard.as_str()) {
            continue;
        }
        // An index from elsewhere has no business outside of its folder.
        if Path::new(shard).file_name().is_none_or(|name| name != shard.as_str()) {
            let reason = format!("the shard `{shard}` is not the plain name of a file");
            return Err(Error::Damaged { file: file.to_owned(), reason });
        }
        let path = existing(folder, shard)
            .ok_or_else(|| Error::MissingShard { index: file.to_owned(), shard: shard.clone() })?;
        insert(tensors, read_file(&path)?.tensors)?;
        shards.insert(shard, path);
    }
    for (tensor, shard) in &index.weight_map {
        let found = tensors
            .get(tensor)
            .is_some_and(|stored| shards.get(shard.as_str()).is_some_and(|path| **path == *stored.file));
        if !found {
            return Err(Error::MissingFromShard {
                index: file.to_owned(),
                shard: shard.clone(),
                tensor: tensor.clone(),
            });
        }
    }
    Ok(())
}

/// Adds the tensors of one file to those of the others.
fn insert(tensors: &mut BTreeMap<String, Arc<Stored>>, read: Vec<Stored>) -> Result<()> {
    for stored in read {
        match tensors.entry(stored.name.clone()) {
            Entry::Vacant(place) => {
                place.insert(Arc::new(stored));
            }
            Entry::Occupied(other) => {
                return Err(Error::DuplicateTensor {
                    tensor: stored.name,
                    first: other.get().file.to_path_buf(),
                    second: stored.file.to_path_buf(),
                });
            }
        }
    }
    Ok(())
}
