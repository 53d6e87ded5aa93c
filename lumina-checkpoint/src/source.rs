//! Where the bytes of files come from: disk or memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::{Error, Result};

/// A file or a folder, on disk or in memory. Every file has a path, which is how errors name it.
pub(crate) enum Source {
    /// A file on disk.
    File(PathBuf),
    /// A folder on disk.
    Folder(PathBuf),
    /// One file in memory, with the path that the caller gave it.
    Bytes(PathBuf, Bytes),
    /// The files of a folder in memory, by their names in it, with the path that the caller gave the folder.
    Files(PathBuf, BTreeMap<String, Bytes>),
}

impl Source {
    /// A file or a folder on disk.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let metadata = std::fs::metadata(path).map_err(|source| Error::Read { file: path.to_owned(), source })?;
        Ok(if metadata.is_dir() { Self::Folder(path.to_owned()) } else { Self::File(path.to_owned()) })
    }

    /// The path of the file or folder.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::File(path) | Self::Folder(path) | Self::Bytes(path, _) | Self::Files(path, _) => path,
        }
    }

    /// The bytes, if this is one file.
    pub(crate) fn single(&self) -> Result<Option<Bytes>> {
        match self {
            Self::File(path) => map(path).map(Some),
            Self::Bytes(_, bytes) => Ok(Some(bytes.clone())),
            Self::Folder(_) | Self::Files(..) => Ok(None),
        }
    }

    /// The path of the file `name` in the folder, or next to the file.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        match self {
            Self::Folder(folder) | Self::Files(folder, _) => folder.join(name),
            Self::File(path) | Self::Bytes(path, _) => path.with_file_name(name),
        }
    }

    /// The weights in the file `name` in the folder, or next to the file; `None` where there is no such file.
    pub(crate) fn weights(&self, name: &str) -> Result<Option<Bytes>> {
        self.get(name, map)
    }

    /// A document in the file `name` in the folder, or next to the file; `None` where there is no such file. It is read
    /// to the heap, as it may be replaced while the model is in use.
    pub(crate) fn document(&self, name: &str) -> Result<Option<Bytes>> {
        self.get(name, |file| {
            let bytes = lumina_core::file::read_document(file)?;
            if bytes.is_empty() { Err(empty(file)) } else { Ok(bytes.into()) }
        })
    }

    fn get(&self, name: &str, open: impl FnOnce(&Path) -> Result<Bytes>) -> Result<Option<Bytes>> {
        match self {
            Self::File(_) | Self::Folder(_) => {
                Some(self.file(name)).filter(|file| file.exists()).map(|file| open(&file)).transpose()
            }
            Self::Bytes(..) => Ok(None),
            Self::Files(_, files) => Ok(files.get(name).cloned()),
        }
    }

    /// The error of a file that must be there.
    pub(crate) fn missing(&self, name: &str) -> Error {
        Error::Read { file: self.file(name), source: io::Error::from(ErrorKind::NotFound) }
    }
}

/// Maps a file into memory for reading. The mapping lives as long as the bytes or any slice of them.
///
/// Without the feature `mmap` the file is read to the heap. The [crate's page](crate#memory) says what must not happen
/// to a mapped file.
///
/// # Errors
/// [`Error::Read`], [`Error::Core`] for what is no regular file, and [`Error::Damaged`] for a file of no bytes, which
/// some systems do not map.
pub fn map(file: &Path) -> Result<Bytes> {
    let (handle, size) = lumina_core::file::open(file)?;
    if size == 0 {
        return Err(empty(file));
    }
    read(&handle, size).map_err(|source| Error::Read { file: file.to_owned(), source })
}

#[cfg(feature = "mmap")]
fn read(handle: &File, _: u64) -> io::Result<Bytes> {
    #[allow(unsafe_code, reason = "mapping files is the purpose of this module")]
    // SAFETY: the mapping is read-only and private. A reference into it is sound as long as nobody changes the file
    // meanwhile, which no program can enforce. The crate's documentation asks the user for it, and this crate writes
    // files by renaming, which leaves existing mappings as they are.
    let mapping = unsafe { memmap2::Mmap::map(handle) }?;
    Ok(Bytes::from_owner(mapping))
}

#[cfg(not(feature = "mmap"))]
fn read(mut handle: &File, size: u64) -> io::Result<Bytes> {
    use std::io::Read;

    let mut bytes = Vec::new();
    bytes.try_reserve_exact(usize::try_from(size).unwrap_or(usize::MAX)).map_err(io::Error::other)?;
    handle.read_to_end(&mut bytes)?;
    Ok(bytes.into())
}

/// The error of a file without bytes.
pub(crate) fn empty(file: &Path) -> Error {
    Error::Damaged { file: file.to_owned(), reason: "the file is empty".to_owned() }
}
