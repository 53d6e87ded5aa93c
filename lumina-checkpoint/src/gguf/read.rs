//! Reading one GGUF file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::cursor::Cursor;
use super::dtype::{from_gguf, unread};
use super::metadata::Metadata;
use crate::format::{Contents, FileFormat};
use crate::tensor_view::{Layout, Stored};
use crate::{Dtype, Error, Result};

pub(crate) const FORMAT: FileFormat =
    FileFormat { name: "GGUF", folder_file: Some("model.gguf"), matches: |_, bytes| bytes.starts_with(MAGIC), read };

/// The first bytes of a file.
pub(crate) const MAGIC: &[u8] = b"GGUF";

/// The versions that are read. They have the same layout: 3 added big-endian files. Version 1 had shorter lengths.
const VERSIONS: std::ops::RangeInclusive<u32> = 2..=3;

/// Alignment of tensors, unless the metadata has another.
pub(super) const DEFAULT_ALIGNMENT: u64 = 32;

/// Limit on `general.alignment`, larger than any memory page.
const MAX_ALIGNMENT: u64 = 1 << 20;

/// Limit on the number of tensors. The largest published models have a tenth.
const MAX_TENSORS: u64 = 1 << 16;

/// Limit on the number of entries of the metadata. Real files have less than a hundred.
const MAX_ENTRIES: u64 = 1 << 16;

/// Limit of the format on the axes of a tensor.
pub(super) const MAX_AXES: usize = 4;

/// The smallest entry of the metadata: the length of a key, a type and a byte.
const ENTRY_BYTES: usize = 8 + 4 + 1;

/// The smallest description of a tensor: the length of its name, number of axes, type and offset.
const TENSOR_BYTES: usize = 8 + 4 + 4 + 8;

/// The tensors of a file, as slices of its bytes, and its metadata.
fn read(file: &Path, bytes: &Bytes) -> Result<Contents> {
    let mut cursor = Cursor::new(file, bytes);
    cursor.array::<4>()?;
    let version = cursor.u32()?;
    if !VERSIONS.contains(&version) {
        let big_endian = if VERSIONS.contains(&version.swap_bytes()) { ", big-endian" } else { "" };
        let reason = format!("GGUF of version {version}{big_endian}; versions 2 and 3, little-endian, are read");
        return Err(Error::NotACheckpoint { file: file.to_owned(), reason });
    }
    let n_tensors = cursor.u64()?;
    let n_entries = cursor.u64()?;
    if n_tensors > MAX_TENSORS {
        return Err(cursor.damaged(format!("{n_tensors} tensors, more than the {MAX_TENSORS} that any model has")));
    }

    cursor.expect(n_entries, ENTRY_BYTES)?;
    if n_entries > MAX_ENTRIES {
        return Err(
            cursor.damaged(format!("{n_entries} entries of metadata, more than the {MAX_ENTRIES} of any model"))
        );
    }
    let mut entries = BTreeMap::new();
    for _ in 0..n_entries {
        let key = cursor.string()?.to_owned();
        let value = cursor.value()?;
        if entries.contains_key(&key) {
            return Err(cursor.damaged(format!("a second value for `{key}`")));
        }
        entries.insert(key, value);
    }
    let metadata = Metadata::new(file, entries);
    if let Some(parts) = metadata.u64("split.count")?.filter(|&parts| parts > 1) {
        let reason =
            format!("one of {parts} parts of a GGUF model, which `llama-gguf-split --merge` makes one file of");
        return Err(Error::NotACheckpoint { file: file.to_owned(), reason });
    }
    let alignment = metadata.u64("general.alignment")?.unwrap_or(DEFAULT_ALIGNMENT);
    if !alignment.is_power_of_two() || alignment > MAX_ALIGNMENT {
        return Err(
            metadata.wrong("general.alignment", format!("{alignment} is no power of two up to {MAX_ALIGNMENT}"))
        );
    }

    let mut described = Vec::with_capacity(cursor.expect(n_tensors, TENSOR_BYTES)?);
    let mut names = BTreeSet::new();
    for _ in 0..n_tensors {
        let tensor = Described::read(file, &mut cursor, alignment)?;
        if !names.insert(tensor.name) {
            return Err(cursor.damaged(format!("a second tensor `{}`", tensor.name)));
        }
        described.push(tensor);
    }
    let data_start = (cursor.position() as u64).next_multiple_of(alignment);
    check_overlaps(file, &mut described)?;

    let shared: Arc<Path> = file.into();
    let tensors = described.into_iter().map(|tensor| tensor.stored(&shared, bytes, data_start));
    Ok(Contents { tensors: tensors.collect::<Result<_>>()?, metadata: Some(metadata) })
}

/// A tensor as the header describes it.
struct Described<'a> {
    name: &'a str,
    dtype: Dtype,
    shape: Box<[usize]>,
    /// In bytes from the start of the tensors.
    offset: u64,
    length: u64,
}

impl<'a> Described<'a> {
    fn read(file: &Path, cursor: &mut Cursor<'a>, alignment: u64) -> Result<Self> {
        let name = cursor.string()?;
        let wrong = |reason: String| layout(file, name, reason);
        let axes = cursor.u32()? as usize;
        if axes > MAX_AXES {
            return Err(wrong(format!("it has {axes} axes, more than the {MAX_AXES} of the format")));
        }
        // The innermost axis is first, in contrast to all other formats.
        let mut shape = vec![0; axes];
        for length in shape.iter_mut().rev() {
            let claimed = cursor.u64()?;
            *length = usize::try_from(claimed).map_err(|_| wrong(format!("an axis claims {claimed} elements")))?;
        }
        let number = cursor.u32()?;
        let offset = cursor.u64()?;
        let dtype = from_gguf(number).ok_or_else(|| Error::GgufType {
            file: file.to_owned(),
            tensor: name.to_owned(),
            found: unread(number),
        })?;
        let length = dtype.bytes_of(&shape).ok_or_else(|| {
            wrong(format!("shape {shape:?} overflows, or has rows that are no whole blocks of {dtype}"))
        })?;
        if !offset.is_multiple_of(alignment) {
            return Err(wrong(format!("its offset {offset} is no multiple of the alignment, {alignment}")));
        }
        Ok(Self { name, dtype, shape: shape.into(), offset, length: length as u64 })
    }

    /// Finds the bytes in a file whose tensors begin at `data_start`.
    fn stored(self, file: &Arc<Path>, bytes: &Bytes, data_start: u64) -> Result<Stored> {
        let Self { name, dtype, shape, offset, length } = self;
        let found = bytes.len() as u64;
        // An empty tensor can have any offset: in a file of only empty tensors nothing follows the header.
        let start = if length == 0 { 0 } else { data_start.saturating_add(offset) };
        let end = start.saturating_add(length);
        if end > found {
            return Err(Error::Truncated { file: file.to_path_buf(), needed: end, found });
        }
        // Both are at most the length of the file.
        let bytes = bytes.slice(start as usize..end as usize);
        let (name, file) = (name.to_owned(), file.clone());
        Ok(Stored { name, file, dtype, shape, bytes, layout: Layout::RowMajor, reorder: None })
    }
}

fn check_overlaps(file: &Path, tensors: &mut [Described<'_>]) -> Result<()> {
    tensors.sort_by_key(|tensor| tensor.offset);
    let mut end = 0;
    for tensor in tensors.iter().filter(|tensor| tensor.length > 0) {
        if tensor.offset < end {
            return Err(layout(file, tensor.name, "its bytes are also those of another tensor".to_owned()));
        }
        end = tensor.offset.saturating_add(tensor.length);
    }
    Ok(())
}

fn layout(file: &Path, tensor: &str, reason: String) -> Error {
    Error::TensorLayout { file: file.to_owned(), tensor: tensor.to_owned(), reason }
}
