//! Writing one safetensors file.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use safetensors::tensor::{Metadata, TensorInfo};

use crate::safetensors::to_safetensors;
use crate::{Dtype, Error, Result};

/// Writes tensors to a safetensors file, which `transformers` reads too. A tensor is a name, a type, a shape, and a
/// function that returns the elements, row-major and little-endian.
///
/// The functions are called one after another, so no more than one tensor must be on the heap at a time. The file is
/// written under a temporary name in the same folder and then renamed. A reader therefore sees the complete old file or
/// the complete new one, and mappings of the old file stay valid. (Windows refuses to replace a mapped file.)
///
/// ```
/// # use lumina_checkpoint::{Checkpoint, save_safetensors};
/// # use lumina_checkpoint::Dtype;
/// # let folder = tempfile::tempdir()?;
/// # let [old, new] = ["old.safetensors", "new.safetensors"].map(|name| folder.path().join(name));
/// # save_safetensors(&old, [("scale", Dtype::F32, [], || Ok(vec![0; 4].into()))])?;
/// let checkpoint = Checkpoint::open(&old)?;
/// let views = checkpoint.names().filter_map(|name| checkpoint.get(name));
/// let tensors = views.map(|view| {
///     (view.name().to_owned(), view.dtype(), view.shape().to_vec(), move || Ok(view.bytes().clone()))
/// });
/// save_safetensors(&new, tensors)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`Error::Unsavable`] where two tensors have one name, the type is quantised, or the number of bytes does not agree
/// with type and shape; [`Error::Write`] where the system refuses; the error of a function, where [`Error::Values`]
/// gets the name of the tensor. An existing file then stays as it is.
pub fn save_safetensors<N, S, B>(
    path: impl AsRef<Path>,
    tensors: impl IntoIterator<Item = (N, Dtype, S, B)>,
) -> Result<()>
where
    N: Into<String>,
    S: AsRef<[usize]>,
    B: FnOnce() -> Result<Bytes>,
{
    let path = path.as_ref();
    let unsavable =
        |tensor: &str, reason: String| Error::Unsavable { file: path.to_owned(), tensor: tensor.to_owned(), reason };
    let mut tensors: Vec<_> =
        tensors.into_iter().map(|(name, dtype, shape, bytes)| (name.into(), dtype, shape, bytes)).collect();
    // Wide types first, as the format's own library orders them, so that each tensor is aligned to its elements.
    tensors.sort_by(|(a, a_type, ..), (b, b_type, ..)| {
        (Reverse(a_type.block_bytes()), a).cmp(&(Reverse(b_type.block_bytes()), b))
    });

    let mut names = BTreeSet::new();
    let mut infos = Vec::with_capacity(tensors.len());
    let mut end = 0usize;
    for (name, dtype, shape, _) in &tensors {
        let shape = shape.as_ref();
        let start = end;
        let stored = to_safetensors(*dtype)
            .ok_or_else(|| unsavable(name, format!("safetensors have no type {dtype}; GGUF does")))?;
        end = dtype
            .bytes_of(shape)
            .and_then(|bytes| start.checked_add(bytes))
            .ok_or_else(|| unsavable(name, format!("shape {shape:?} overflows")))?;
        if !names.insert(name.as_str()) {
            return Err(unsavable(name, "two tensors have this name".to_owned()));
        }
        let info = TensorInfo { dtype: stored, shape: shape.to_vec(), data_offsets: (start, end) };
        infos.push((name.clone(), info));
    }
    let lengths: Vec<usize> = infos.iter().map(|(_, info)| info.data_offsets.1 - info.data_offsets.0).collect();
    let header = header(infos).map_err(|source| Error::Write { file: path.to_owned(), source })?;

    let mut partial = Partial::create(path)?;
    partial.write(&header)?;
    for ((name, _, _, bytes), length) in tensors.into_iter().zip(lengths) {
        let bytes = bytes().map_err(|error| error.of_tensor(&name))?;
        if bytes.len() != length {
            return Err(unsavable(&name, format!("type and shape need {length} bytes, {} were given", bytes.len())));
        }
        partial.write(&bytes)?;
    }
    partial.finish()
}

/// Writes a file under a temporary name in the same folder and renames it, so that a reader sees the complete old file
/// or the complete new one.
///
/// # Errors
/// [`Error::Write`]. An existing file then stays as it is.
pub fn save_bytes(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    let mut partial = Partial::create(path.as_ref())?;
    partial.write(bytes)?;
    partial.finish()
}

/// The length of the header, then the header, padded with spaces to a multiple of eight bytes.
fn header(infos: Vec<(String, TensorInfo)>) -> io::Result<Vec<u8>> {
    // `transformers` refuses a file that does not name the framework whose order of axes it has.
    let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let metadata = Metadata::new(Some(format), infos).map_err(io::Error::other)?;
    let mut json = serde_json::to_vec(&metadata)?;
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut header = (json.len() as u64).to_le_bytes().to_vec();
    header.append(&mut json);
    Ok(header)
}

/// Flushes to the disk which files a folder has, so that a power cut does not undo a rename. It does nothing where the
/// system has no such call.
///
/// # Errors
/// Those of the system.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    if !cfg!(unix) {
        return Ok(());
    }
    let folder = if folder == Path::new("") { Path::new(".") } else { folder };
    File::open(folder)?.sync_all()
}

/// A file under a temporary name, which its writer has a lock on. It is removed unless it is finished.
pub(super) struct Partial<'a> {
    target: &'a Path,
    path: PathBuf,
    file: File,
    finished: bool,
}

impl<'a> Partial<'a> {
    pub(super) fn create(target: &'a Path) -> Result<Self> {
        let failed = |source| Error::Write { file: target.to_owned(), source };
        let name = target.file_name().ok_or_else(|| failed(ErrorKind::InvalidInput.into()))?;
        // Another process may write the same file. The last one to finish wins, and the file is complete either way.
        // What a process left that was killed has no lock any more, and is removed.
        for attempt in 0..1000 {
            let mut partial = name.to_owned();
            partial.push(format!(".{attempt}.partial"));
            let path = target.with_file_name(partial);
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                // Between the two calls the file may have been taken for one that was left.
                Ok(file) if lock(&file) && path.exists() => return Ok(Self { target, path, file, finished: false }),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::AlreadyExists => remove_if_left(&path),
                Err(error) => return Err(failed(error)),
            }
        }
        Err(failed(io::Error::new(ErrorKind::AlreadyExists, "a thousand partial files of this name are in the way")))
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|source| Error::Write { file: self.target.to_owned(), source })
    }

    pub(super) fn finish(mut self) -> Result<()> {
        let done = self.publish();
        self.finished = done.is_ok();
        done.map_err(|source| Error::Write { file: self.target.to_owned(), source })?;
        // The rename is durable once the folder is synced. Where a system cannot sync folders, a power cut may lose it.
        let _ = sync_folder(self.path.parent().unwrap_or(Path::new("")));
        Ok(())
    }

    /// Gives the file the permissions of the one that it replaces, and its name.
    fn publish(&self) -> io::Result<()> {
        match fs::metadata(self.target) {
            Ok(replaced) => self.file.set_permissions(replaced.permissions())?,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        self.file.sync_all()?;
        fs::rename(&self.path, self.target)
    }
}

/// Locks a file, unless another process has. Where a file system has no locks, all is as if there were one process.
fn lock(file: &File) -> bool {
    !matches!(file.try_lock(), Err(TryLockError::WouldBlock))
}

/// Removes a partial file whose writer is gone. Where that cannot be told it stays.
fn remove_if_left(path: &Path) {
    // Only regular files, as opening a pipe blocks.
    let is_file = path.symlink_metadata().is_ok_and(|metadata| metadata.is_file());
    if is_file
        && let Ok(file) = File::open(path)
        && file.try_lock().is_ok()
    {
        let _ = fs::remove_file(path);
        let _ = file.unlock();
    }
}

impl Drop for Partial<'_> {
    fn drop(&mut self) {
        if !self.finished {
            // The caller already has an error, which matters more than a file that is left behind.
            let _ = fs::remove_file(&self.path);
        }
        // A process that is being started at this moment has a copy of the file, and with it the lock.
        let _ = self.file.unlock();
    }
}
