//! Files that torch saved before version 1.6: pickles, then the bytes of storages.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;

use super::pickle::{Pickle, Value};
use super::state_dict::{self, Storage};
use crate::tensor_view::Stored;
use crate::{Error, Result};

/// The first pickle of a file: opcodes of an integer.
const LEGACY_MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";

/// The version in the second pickle.
const LEGACY_VERSION: i64 = 1001;

/// Reads five pickles (a magic number, a version, properties of the machine, the saved object, the keys of its
/// storages), then the storages, each after its length.
pub(super) fn read_legacy(file: &Path, bytes: &Bytes) -> Result<Vec<Stored>> {
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

/// Finds the storages in `rest`, which begins at byte `start` of the file. Lengths are in elements, whose types are in
/// the saved object.
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
