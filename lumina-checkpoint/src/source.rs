//! The one place that maps files.

use std::fs::File;
use std::io;
use std::path::Path;

use bytes::Bytes;

use crate::{Error, Result};

/// Maps a file for reading. The mapping lives as long as the bytes or any slice of them.
///
/// The [module](super)'s words on files that are cut short while they are mapped hold here too.
///
/// # Errors
/// [`Error::Read`], and [`Error::Damaged`] for a file of no bytes, which some systems do not map.
pub fn map(file: &Path) -> Result<Bytes> {
    let failed = |source| Error::Read { file: file.to_owned(), source };
    // Asked before opening: a pipe would block there.
    let metadata = std::fs::metadata(file).map_err(failed)?;
    if !metadata.is_file() {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")));
    }
    // Some systems do not map zero bytes.
    if metadata.len() == 0 {
        return Err(Error::Damaged { file: file.to_owned(), reason: "the file is empty".to_owned() });
    }
    let handle = File::open(file).map_err(failed)?;
    #[allow(unsafe_code, reason = "reading weights where they lie is the point of this module")]
    // SAFETY: the mapping is read-only and private. A reference into it is sound as long as nobody changes the file
    // meanwhile, which no program can enforce; the module's documentation asks it of the user, and files are written
    // here by renaming, which leaves existing mappings as they are.
    let mapping = unsafe { memmap2::Mmap::map(&handle) }.map_err(failed)?;
    Ok(Bytes::from_owner(mapping))
}
