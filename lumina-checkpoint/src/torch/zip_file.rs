//! The two containers that torch saves to.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::Path;

use bytes::Bytes;
use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

use super::pickle::{Pickle, Value};
use super::state_dict::{self, Storage};
use crate::tensor_view::Stored;
use crate::{Error, Result};

/// Reads the form since torch 1.6: a zip archive of a pickle, `data.pkl`, and a file for each storage, `data/KEY`, not
/// compressed.
pub(crate) fn read_zip(file: &Path, bytes: &Bytes) -> Result<Vec<Stored>> {
    let archive = ZipArchive::new(Cursor::new(bytes.clone())).map_err(|error| {
        let reason = format!("not a whole zip archive ({error})");
        Error::Damaged { file: file.to_owned(), reason }
    })?;
    let mut archive = Archive { file, bytes, archive };

    // All lies in one folder, named after the file as it was saved.
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

struct Archive<'a> {
    file: &'a Path,
    bytes: &'a Bytes,
    archive: ZipArchive<Cursor<Bytes>>,
}

impl Archive<'_> {
    /// The bytes of an entry, where they lie.
    fn entry(&mut self, name: &str) -> Result<Option<Bytes>> {
        let damaged =
            |reason: String| Error::Damaged { file: self.file.to_owned(), reason: format!("`{name}` {reason}") };
        let Some(index) = self.archive.index_for_name_raw(name.as_bytes()) else { return Ok(None) };
        let entry = self.archive.by_index_raw(index).map_err(|error| match error {
            ZipError::Io(_) => damaged("lies outside of the file".to_owned()),
            error => damaged(format!("is not readable ({error})")),
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

/// Opcodes of the integer that the form before torch 1.6 begins with, as a pickle.
const LEGACY_MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";

/// The version of that form.
const LEGACY_VERSION: i64 = 1001;

/// Reads the form before torch 1.6: pickles of a magic number, a version, the machine's properties, the object, and
/// the keys of its storages, then each storage after its length.
pub(crate) fn read_legacy(file: &Path, bytes: &Bytes) -> Result<Vec<Stored>> {
    let mut position = 0;
    let mut next = || {
        let pickle = Pickle::read(file, &bytes[position..])?;
        position += pickle.length;
        Ok::<_, Error>(pickle)
    };
    let not_torch = |reason: &str| Error::NotACheckpoint { file: file.to_owned(), reason: reason.to_owned() };
    next()?;
    if !bytes.starts_with(LEGACY_MAGIC) {
        return Err(not_torch("a pickle, but not one that torch saved"));
    }
    let version = next()?;
    if version.int(version.root) != Some(LEGACY_VERSION) {
        return Err(not_torch("saved by an unknown version of torch"));
    }
    let machine = next()?;
    if let Value::Dict(properties) = machine.get(machine.root) {
        for &(key, value) in properties {
            if machine.text(key) == Some("little_endian") && matches!(machine.get(value), Value::Bool(false)) {
                return Err(not_torch("its numbers are not little-endian"));
            }
        }
    }
    let object = next()?;
    let keys = next()?;

    let storages = legacy_storages(file, &object, &keys, bytes.slice(position..), position)?;
    state_dict::read(file, &object, |storage| {
        let reason = || format!("the storage `{}` is not in the file", storage.key);
        storages.get(storage.key).cloned().ok_or_else(|| Error::Damaged { file: file.to_owned(), reason: reason() })
    })
}

/// Finds the storages in `rest`, which begins at byte `start` of the file. Lengths are in elements, of types that only
/// the object says.
fn legacy_storages<'a>(
    file: &Path,
    object: &Pickle<'a>,
    keys: &Pickle<'_>,
    mut rest: Bytes,
    start: usize,
) -> Result<BTreeMap<&'a str, Bytes>> {
    let damaged = |reason: String| Error::Damaged { file: file.to_owned(), reason };
    let mut known = BTreeMap::new();
    for value in object.values() {
        if let &Value::Storage(place) = value {
            let storage = Storage::parse(object, place)
                .ok_or_else(|| damaged("it describes no storage that torch has".to_owned()))?;
            known.insert(storage.key, storage);
        }
    }
    let Value::List(keys_in_order) = keys.get(keys.root) else {
        return Err(damaged("the keys of its storages are no list".to_owned()));
    };
    let found = start + rest.len();
    let mut storages = BTreeMap::new();
    for &key in keys_in_order {
        let storage = keys.text(key).and_then(|key| known.get(key));
        let storage = storage.ok_or_else(|| damaged("a storage in it belongs to no tensor".to_owned()))?;
        let length = storage.bytes().ok_or_else(|| {
            let Storage { key, length, class, .. } = storage;
            damaged(format!("the storage `{key}` has {length} elements of a {class}, whose size is not known"))
        })?;
        let end = length.saturating_add(8);
        if end > rest.len() {
            let needed = ((found - rest.len()) as u64).saturating_add(end as u64);
            return Err(Error::Truncated { file: file.to_owned(), needed, found: found as u64 });
        }
        if rest.first_chunk() != Some(&(storage.length as u64).to_le_bytes()) {
            return Err(damaged(format!(
                "the storage `{}` has not the {} elements of its description",
                storage.key, storage.length
            )));
        }
        storages.insert(storage.key, rest.slice(8..end));
        rest = rest.slice(end..);
    }
    Ok(storages)
}
