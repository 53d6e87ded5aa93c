//! A checkpoint: the tensors of one or several files, by name.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;

use crate::format::{self, Contents};
use crate::gguf::Metadata;
use crate::source::Source;
use crate::tensor_view::{MappedTensor, Stored, TensorView};
use crate::{Error, Result};

/// The tensors of a checkpoint, by name. `Send + Sync`. Cloning copies no data.
///
/// The [crate's page](crate) says what can be opened, and how much memory it takes.
#[derive(Clone)]
pub struct Checkpoint {
    source: Arc<Source>,
    tensors: Arc<BTreeMap<String, Arc<Stored>>>,
    metadata: Option<Arc<Metadata>>,
    documents: Option<FindDocument>,
}

/// Finds a document by its name.
type FindDocument = Arc<dyn Fn(&str) -> Result<Option<Bytes>> + Send + Sync>;

/// `model.safetensors.index.json`.
#[derive(Deserialize)]
struct Index {
    /// From the name of a tensor to that of its shard.
    weight_map: BTreeMap<String, String>,
}

impl Checkpoint {
    /// The index of a Hugging Face folder of several files.
    pub const INDEX: &str = "model.safetensors.index.json";

    /// Opens a folder or a file on disk.
    ///
    /// In a folder, `model.safetensors` is opened, else the shards that `model.safetensors.index.json` names, else
    /// `model.gguf`. Of a shard only the tensors count that the index assigns to it; the others are passed over. The
    /// format of a file follows from its first bytes, or from the extension `safetensors`.
    ///
    /// # Errors
    /// Where something is missing, cut short, damaged, or not a tensor. Each error names the file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::of_source(Source::open(path.as_ref())?)
    }

    /// The names under which a folder's weights are looked for, the first one first: a file of all weights, the index
    /// of shards, other formats.
    pub fn folder_files() -> impl Iterator<Item = &'static str> {
        // The preferred format, then its form of several files, then the other formats.
        let mut files = format::folder_files();
        files.next().into_iter().chain([Self::INDEX]).chain(files)
    }

    /// Opens one file in memory: safetensors, saved by torch, or GGUF. `name` is what errors call it, and its extension
    /// counts as that of a file on disk.
    ///
    /// ```
    /// use lumina_checkpoint::Checkpoint;
    ///
    /// let header = br#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    /// let file = [&(header.len() as u64).to_le_bytes()[..], header, &1.5f32.to_le_bytes()].concat();
    /// let checkpoint = Checkpoint::from_bytes("model.safetensors", file)?;
    /// assert_eq!(checkpoint.get("w").expect("it is in the file").to_f32()?, [1.5]);
    /// # Ok::<(), lumina_checkpoint::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn from_bytes(name: impl Into<PathBuf>, bytes: impl Into<Bytes>) -> Result<Self> {
        Self::of_source(Source::Bytes(name.into(), bytes.into()))
    }

    /// Opens a folder in memory: weights in one file or in shards with their index, named as on disk, and
    /// [documents](Checkpoint::document) such as `config.json`. `name` is what errors call the folder.
    ///
    /// ```
    /// # use lumina_checkpoint::Checkpoint;
    /// # let shard = |name: &str| {
    /// #     let header = format!(r#"{{"{name}":{{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}}}"#);
    /// #     [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[7]].concat()
    /// # };
    /// let index = br#"{"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}"#;
    /// let checkpoint = Checkpoint::from_files(
    ///     "model",
    ///     [
    ///         ("model.safetensors.index.json", index.to_vec()),
    ///         ("1.safetensors", shard("a")),
    ///         ("2.safetensors", shard("b")),
    ///         ("config.json", b"{}".to_vec()),
    ///     ],
    /// )?;
    /// assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["a", "b"]);
    /// assert_eq!(checkpoint.document("config.json")?.as_deref(), Some(&b"{}"[..]));
    /// # Ok::<(), lumina_checkpoint::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn from_files<N: Into<String>, B: Into<Bytes>>(
        name: impl Into<PathBuf>,
        files: impl IntoIterator<Item = (N, B)>,
    ) -> Result<Self> {
        let files = files.into_iter().map(|(name, bytes)| (name.into(), bytes.into())).collect();
        Self::of_source(Source::Files(name.into(), files))
    }

    fn of_source(source: Source) -> Result<Self> {
        if let Some(bytes) = source.single()? {
            let file = source.path().to_owned();
            return Self::of_file(source, &file, &bytes);
        }
        let mut looked_for = Vec::new();
        for name in Self::folder_files() {
            looked_for.push(format!("`{name}`"));
            let bytes = if name == Self::INDEX { source.document(name)? } else { source.weights(name)? };
            let Some(bytes) = bytes else { continue };
            let file = source.file(name);
            if name != Self::INDEX {
                return Self::of_file(source, &file, &bytes);
            }
            let tensors = Arc::new(read_shards(&source, &file, &bytes)?);
            return Ok(Self { source: Arc::new(source), tensors, metadata: None, documents: None });
        }
        let folder = source.path().to_owned();
        Err(Error::NoCheckpoint { folder, looked_for: looked_for.join(", ") })
    }

    /// The checkpoint in one file, which is the source or in its folder.
    fn of_file(source: Source, file: &Path, bytes: &Bytes) -> Result<Self> {
        let Contents { tensors: read, metadata } = format::read(file, bytes)?;
        let mut tensors = BTreeMap::new();
        insert(&mut tensors, read)?;
        let metadata = metadata.map(Arc::new);
        Ok(Self { source: Arc::new(source), tensors: Arc::new(tensors), metadata, documents: None })
    }

    /// The folder or file that was opened, or the name that was given with bytes.
    pub fn path(&self) -> &Path {
        self.source.path()
    }

    /// The metadata of a GGUF file; `None` for every other format.
    pub fn metadata(&self) -> Option<&Metadata> {
        self.metadata.as_deref()
    }

    /// The same tensors as a network knows them: by other names, and with rows in another order. No tensor is read.
    ///
    /// ```
    /// # use lumina_checkpoint::{Checkpoint, MappedTensor};
    /// # let header = br#"{"old.w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    /// # let file = [&(header.len() as u64).to_le_bytes()[..], header, &1.5f32.to_le_bytes()].concat();
    /// # let checkpoint = Checkpoint::from_bytes("model.safetensors", file)?;
    /// let renamed = checkpoint.map_tensors(|view| {
    ///     Ok(MappedTensor { name: view.name().replace("old", "new"), reorder: None })
    /// })?;
    /// assert!(renamed.contains("new.w"));
    /// # Ok::<(), lumina_checkpoint::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of `map`, and [`Error::DuplicateTensor`] where two tensors get one name.
    pub fn map_tensors(&self, mut map: impl FnMut(&TensorView) -> Result<MappedTensor>) -> Result<Self> {
        let mut tensors = BTreeMap::new();
        for stored in self.tensors.values() {
            let mapped = map(&TensorView::new(stored.clone()))?;
            insert(&mut tensors, vec![stored.mapped(mapped)])?;
        }
        Ok(Self { tensors: Arc::new(tensors), ..self.clone() })
    }

    /// The same with documents, such as those in metadata, that [`Checkpoint::document`] finds before it looks into the
    /// folder.
    #[must_use]
    pub fn with_documents(self, find: impl Fn(&str) -> Result<Option<Bytes>> + Send + Sync + 'static) -> Self {
        Self { documents: Some(Arc::new(find)), ..self }
    }

    /// A file that belongs to the checkpoint, by its name in a Hugging Face folder such as `config.json` or
    /// `tokenizer.json`: one of [`Checkpoint::with_documents`], else the one in the folder, or next to the file.
    ///
    /// # Errors
    /// Where it exists and cannot be read.
    pub fn document(&self, name: &str) -> Result<Option<Bytes>> {
        match self.own_document(name)? {
            Some(document) => Ok(Some(document)),
            None => self.source.document(name),
        }
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

    /// Whether there is a tensor with this name.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The tensor with this name.
    pub fn get(&self, name: &str) -> Option<TensorView> {
        self.tensors.get(name).map(|stored| TensorView::new(stored.clone()))
    }

    /// The file that contains the tensor with this name.
    pub fn file_of(&self, name: &str) -> Option<&Path> {
        self.tensors.get(name).map(|stored| &*stored.file)
    }
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkpoint").field("path", &self.path()).field("tensors", &self.tensors.len()).finish()
    }
}

/// Reads all shards that an index names. A tensor counts only in the shard that the index names for it: a shard that
/// was made for another checkpoint can also contain old copies and tensors that the index leaves out.
fn read_shards(source: &Source, file: &Path, index: &[u8]) -> Result<BTreeMap<String, Arc<Stored>>> {
    lumina_core::file::check_json(file, index)?;
    let Index { weight_map } = serde_json::from_slice(index).map_err(|error| Error::Json {
        file: file.to_owned(),
        problem: "not an index of shards",
        source: error,
    })?;
    let mut tensors = BTreeMap::new();
    for shard in weight_map.values().collect::<BTreeSet<_>>() {
        // A downloaded index must not read files outside of its folder.
        if Path::new(shard).file_name().is_none_or(|name| name != shard.as_str()) {
            let reason = format!("the shard `{shard}` is not the plain name of a file");
            return Err(Error::Damaged { file: file.to_owned(), reason });
        }
        let bytes = source
            .weights(shard)?
            .ok_or_else(|| Error::MissingShard { index: file.to_owned(), shard: shard.clone() })?;
        let mut read = format::read(&source.file(shard), &bytes)?.tensors;
        read.retain(|stored| weight_map.get(&stored.name) == Some(shard));
        insert(&mut tensors, read)?;
    }
    match weight_map.into_iter().find(|(tensor, _)| !tensors.contains_key(tensor)) {
        Some((tensor, shard)) => Err(Error::MissingFromShard { index: file.to_owned(), shard, tensor }),
        None => Ok(tensors),
    }
}

/// Adds the tensors of one file to those of the others.
fn insert(tensors: &mut BTreeMap<String, Arc<Stored>>, read: Vec<Stored>) -> Result<()> {
    for stored in read {
        match tensors.entry(stored.name.clone()) {
            Entry::Vacant(entry) => {
                entry.insert(Arc::new(stored));
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
