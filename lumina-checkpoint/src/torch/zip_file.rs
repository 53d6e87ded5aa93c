//! Files that torch saves since version 1.6: zip archives.

use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::path::Path;

use bytes::Bytes;
use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

use super::pickle::Pickle;
use super::state_dict;
use crate::tensor_view::Stored;
use crate::{Error, Result};

/// Limit on what is read of the directory of an archive and of the headers of its entries, in bytes. A tensor has one
/// entry, of some 150 bytes in all.
const MAX_DIRECTORY_BYTES: usize = 1 << 25;

/// Reads a zip archive of a pickle, `data.pkl`, and a file `data/KEY` for each storage. Nothing in it is compressed.
pub(super) fn read_zip(file: &Path, bytes: &Bytes) -> Result<Vec<Stored>> {
    let archive =
        ZipArchive::new(Metered { inner: Cursor::new(bytes.clone()), left: MAX_DIRECTORY_BYTES }).map_err(|error| {
            Error::Archive {
                file: file.to_owned(),
                problem: "not a whole zip archive".to_owned(),
                source: error.into(),
            }
        })?;
    let mut archive = Archive { file, bytes, archive };

    // Everything is in one folder, named after the file as it was saved.
    let pickle_name = archive.archive.file_names_raw().find_map(|name| {
        let name = std::str::from_utf8(name).ok()?;
        name.ends_with("/data.pkl").then(|| name.to_owned())
    });
    let not_torch = |reason: &str| Error::NotACheckpoint { file: file.to_owned(), reason: reason.to_owned() };
    let pickle_name =
        pickle_name.ok_or_else(|| not_torch("a zip archive that torch did not save: it has no `data.pkl`"))?;
    let folder = pickle_name.trim_end_matches("data.pkl");
    if archive.entry(&format!("{folder}byteorder"))?.is_some_and(|order| *order != *b"little") {
        return Err(not_torch("its numbers are not little-endian"));
    }
    let data = archive.entry(&pickle_name)?.unwrap_or_default();
    let pickle = Pickle::read(file, &data)?;

    state_dict::read(file, &pickle, |storage| {
        let name = format!("{folder}data/{}", storage.key);
        let entry = archive.entry(&name)?;
        entry.ok_or_else(|| Error::Damaged { file: file.to_owned(), reason: format!("`{name}` is not in the archive") })
    })
}

/// The bytes of an archive. Only so many are read, as a directory of many entries takes several times as much memory.
struct Metered {
    inner: Cursor<Bytes>,
    left: usize,
}

impl Read for Metered {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        let too_many = || {
            let reason = format!("its directory is not there, or has more than {MAX_DIRECTORY_BYTES} bytes");
            io::Error::new(io::ErrorKind::InvalidData, reason)
        };
        self.left = self.left.checked_sub(read).ok_or_else(too_many)?;
        Ok(read)
    }
}

impl Seek for Metered {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}

struct Archive<'a> {
    file: &'a Path,
    bytes: &'a Bytes,
    archive: ZipArchive<Metered>,
}

impl Archive<'_> {
    /// The bytes of an entry, as a slice of those of the archive.
    fn entry(&mut self, name: &str) -> Result<Option<Bytes>> {
        let damaged =
            |reason: String| Error::Damaged { file: self.file.to_owned(), reason: format!("`{name}` {reason}") };
        let Some(index) = self.archive.index_for_name_raw(name.as_bytes()) else { return Ok(None) };
        let entry = self.archive.by_index_raw(index).map_err(|error| {
            let problem = match error {
                ZipError::Io(_) => format!("`{name}` lies outside of the file"),
                _ => format!("`{name}` is not readable"),
            };
            Error::Archive { file: self.file.to_owned(), problem, source: error.into() }
        })?;
        if entry.encrypted() || entry.compression() != CompressionMethod::STORE {
            let reason = format!("`{name}` is compressed or encrypted, which torch does not do");
            return Err(Error::NotACheckpoint { file: self.file.to_owned(), reason });
        }
        let length = entry.compressed_size();
        let range = || {
            let start = usize::try_from(entry.data_start()?).ok()?;
            let end = start.checked_add(usize::try_from(length).ok()?)?;
            (end <= self.bytes.len()).then_some(start..end)
        };
        match range() {
            Some(range) => Ok(Some(self.bytes.slice(range))),
            None => Err(damaged(format!("claims {length} bytes, which reach beyond the end of the file"))),
        }
    }
}
