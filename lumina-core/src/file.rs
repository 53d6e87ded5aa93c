//! Opening files that the program did not write: the one way in which all crates do it.
//!
//! Only regular files are read, because a pipe would block and a device need not end, and only up to a number of bytes.
//! A path that comes from another file can be kept inside a folder by [`inside`].

use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use crate::json_size::tree_bytes;
use crate::{Error, Limits, Result};

/// How every Git LFS pointer begins.
const LFS_POINTER: &[u8] = b"version https://git-lfs";

/// The byte order mark of UTF-8, as Windows writes it.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Opens a regular file, and returns its size in bytes with it.
///
/// # Errors
/// [`Error::Read`], and [`Error::NotAFile`] for a folder, a pipe, a socket or a device.
pub fn open(file: &Path) -> Result<(File, u64)> {
    let failed = |source| Error::Read { file: file.to_owned(), source };
    // Checked before opening, because opening a pipe blocks until somebody writes to it.
    if !std::fs::metadata(file).map_err(failed)?.is_file() {
        return Err(Error::NotAFile { file: file.to_owned() });
    }
    let handle = File::open(file).map_err(failed)?;
    let bytes = handle.metadata().map_err(failed)?.len();
    Ok((handle, bytes))
}

/// Reads a regular file of at most `limit` bytes.
///
/// # Errors
/// Those of [`open`]; [`Error::FileTooLarge`]; [`Error::LfsPointer`] where the file is not there but a pointer to it.
pub fn read(file: &Path, limit: u64) -> Result<Vec<u8>> {
    let failed = |source| Error::Read { file: file.to_owned(), source };
    let (handle, size) = open(file)?;
    let too_large = |bytes| Error::FileTooLarge { file: file.to_owned(), bytes, limit };
    if size > limit {
        return Err(too_large(size));
    }
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(usize::try_from(size).unwrap_or(usize::MAX)).map_err(|_| too_large(size))?;
    // A file can grow while it is read, and files of /proc have no size.
    handle.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limit {
        return Err(too_large(bytes.len() as u64));
    }
    check_lfs(file, &bytes)?;
    Ok(bytes)
}

/// [`read`] of a text in UTF-8. A byte order mark at its start is left out.
///
/// # Errors
/// Those of [`read`], and [`Error::NotUtf8`].
pub fn read_text(file: &Path, limit: u64) -> Result<String> {
    let mut text = String::from_utf8(read(file, limit)?)
        .map_err(|error| Error::NotUtf8 { file: file.to_owned(), byte: error.utf8_error().valid_up_to() })?;
    text.drain(..text.len() - without_mark(text.as_bytes()).len());
    Ok(text)
}

/// [`read`] of a document, with the default [`Limits::document_bytes`].
///
/// # Errors
/// Those of [`read`].
pub fn read_document(file: &Path) -> Result<Vec<u8>> {
    read(file, Limits::default().document_bytes)
}

/// [`read_text`] of a document, with the default [`Limits::document_bytes`].
///
/// # Errors
/// Those of [`read_text`].
pub fn read_document_text(file: &Path) -> Result<String> {
    read_text(file, Limits::default().document_bytes)
}

/// Refuses a JSON text that would take more than the default [`Limits::json_bytes`] once it is parsed. Whoever parses
/// one from elsewhere asks first; `file` is what the error names.
///
/// # Errors
/// [`Error::JsonTooLarge`].
pub fn check_json(file: &Path, json: &[u8]) -> Result<()> {
    let (bytes, limit) = (tree_bytes(json), Limits::default().json_bytes);
    if bytes > limit { Err(Error::JsonTooLarge { file: file.to_owned(), bytes, limit }) } else { Ok(()) }
}

/// Text without its byte order mark.
pub fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text)
}

/// Refuses the bytes of a Git LFS pointer.
///
/// # Errors
/// [`Error::LfsPointer`].
pub fn check_lfs(file: &Path, bytes: &[u8]) -> Result<()> {
    if bytes.starts_with(LFS_POINTER) { Err(Error::LfsPointer { file: file.to_owned() }) } else { Ok(()) }
}

/// The path `relative` in the folder `root`, which it must not leave: not by `..`, not as an absolute path, and not
/// through a symbolic link.
///
/// # Errors
/// [`Error::OutsideRoot`], and [`Error::Read`] where the file or the folder does not exist.
pub fn inside(root: &Path, relative: &Path) -> Result<PathBuf> {
    let outside = || Error::OutsideRoot { file: relative.to_owned(), root: root.to_owned() };
    if !relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(outside());
    }
    let real = |path: &Path| path.canonicalize().map_err(|source| Error::Read { file: path.to_owned(), source });
    let file = real(&root.join(relative))?;
    if file.starts_with(real(root)?) { Ok(file) } else { Err(outside()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn files_are_read_up_to_the_limit() {
        let folder = folder();
        let file = folder.path().join("a.json");
        std::fs::write(&file, "\u{feff}{}").unwrap();
        assert_eq!(read(&file, 5).unwrap(), "\u{feff}{}".as_bytes());
        assert_eq!(read_text(&file, 5).unwrap(), "{}");
        assert!(matches!(read(&file, 4), Err(Error::FileTooLarge { bytes: 5, limit: 4, .. })));
        std::fs::write(&file, b"ab\xff").unwrap();
        assert!(matches!(read_text(&file, 5), Err(Error::NotUtf8 { byte: 2, .. })));
        std::fs::write(&file, "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 3\n").unwrap();
        assert!(matches!(read(&file, 1000), Err(Error::LfsPointer { .. })));
        assert!(matches!(read(&folder.path().join("none"), 5), Err(Error::Read { .. })));
        assert!(matches!(read(folder.path(), 5), Err(Error::NotAFile { .. })));
    }

    #[test]
    fn json_is_refused_before_it_takes_memory() {
        let file = Path::new("a.json");
        check_json(file, b"{\"a\": [1]}").unwrap();
        let lists = "[".repeat(4 << 20);
        assert!(
            matches!(check_json(file, lists.as_bytes()), Err(Error::JsonTooLarge { bytes, .. }) if bytes == 512 << 20)
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn devices_pipes_and_growing_files_are_refused() {
        let folder = folder();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for file in [Path::new("/dev/zero"), Path::new("/dev/stdin"), &pipe] {
            assert!(matches!(read(file, 5), Err(Error::NotAFile { .. })), "{}", file.display());
        }
        // A size of 0, and then some.
        assert!(matches!(read(Path::new("/proc/self/status"), 5), Err(Error::FileTooLarge { .. })));
    }

    #[test]
    fn paths_stay_in_their_folder() {
        let folder = folder();
        let (root, other) = (folder.path().join("root"), folder.path().join("other"));
        for path in [&root, &other] {
            std::fs::create_dir(path).unwrap();
            std::fs::write(path.join("a.png"), "a").unwrap();
        }
        assert_eq!(read(&inside(&root, Path::new("./a.png")).unwrap(), 1).unwrap(), b"a");
        let absolute = other.join("a.png");
        for path in [Path::new("../other/a.png"), &absolute, Path::new("x/../../other/a.png")] {
            assert!(matches!(inside(&root, path), Err(Error::OutsideRoot { .. })), "{}", path.display());
        }
        assert!(matches!(inside(&root, Path::new("b.png")), Err(Error::Read { .. })));
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(&other, root.join("link")).unwrap();
            assert!(matches!(inside(&root, Path::new("link/a.png")), Err(Error::OutsideRoot { .. })));
        }
    }
}
