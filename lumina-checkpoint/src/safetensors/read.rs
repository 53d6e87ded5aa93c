//! Reading one safetensors file.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use safetensors::tensor::Metadata;

use super::dtype::from_safetensors;
use crate::format::{Contents, FileFormat};
use crate::tensor_view::{Layout, Stored, element_count};
use crate::{Error, Result};

pub(crate) const FORMAT: FileFormat =
    FileFormat { name: "safetensors", folder_file: Some("model.safetensors"), matches, read };

/// A file begins with the length of the header, a little-endian `u64`.
const LENGTH_BYTES: u64 = 8;

/// The limit that the format's own library has, in bytes.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// By the extension, so that a damaged file is still reported as one of safetensors, or by the start of the header.
///
/// The bytes of other formats can have `{` there too, but then they begin with a length that no header has.
fn matches(file: &Path, bytes: &[u8]) -> bool {
    let header_bytes = bytes.first_chunk().map(|&length| u64::from_le_bytes(length));
    let has_header = bytes.get(8) == Some(&b'{') && header_bytes.is_some_and(|length| length <= MAX_HEADER_BYTES);
    let is_named_so = file.extension().is_some_and(|extension| extension == "safetensors");
    // A GGUF file is read as one whatever its name is.
    has_header || (is_named_so && !bytes.starts_with(crate::gguf::MAGIC))
}

/// The tensors of a file, as slices of its bytes.
///
/// The crate `safetensors` parses the header. It checks that the tensors follow one another without gap or overlap, and
/// that their lengths agree with type and shape. The lengths of header and file are compared here, because its
/// `read_metadata` does not say how many bytes are missing, and adds lengths without checks.
fn read(file: &Path, bytes: &Bytes) -> Result<Contents> {
    let damaged = |reason: String| Error::Damaged { file: file.to_owned(), reason };
    let found = bytes.len() as u64;
    let truncated = |needed: u64| Error::Truncated { file: file.to_owned(), needed, found };

    let header_bytes = u64::from_le_bytes(*bytes.first_chunk().ok_or_else(|| truncated(LENGTH_BYTES))?);
    if header_bytes > MAX_HEADER_BYTES {
        return Err(damaged(format!(
            "the header claims {header_bytes} bytes, more than the {MAX_HEADER_BYTES} that the format allows"
        )));
    }
    let data_start = LENGTH_BYTES + header_bytes;
    if data_start > found {
        return Err(truncated(data_start));
    }
    let header = &bytes[LENGTH_BYTES as usize..data_start as usize];
    lumina_core::file::check_json(file, header)?;
    let metadata: Metadata = serde_json::from_slice(header).map_err(|source| Error::Json {
        file: file.to_owned(),
        problem: "the header is not that of a safetensors file",
        source,
    })?;

    let data_bytes = metadata.data_len() as u64;
    match data_start.checked_add(data_bytes) {
        Some(needed) if needed == found => {}
        Some(needed) if needed < found => {
            return Err(damaged(format!("{} bytes follow the last tensor", found - needed)));
        }
        needed => return Err(truncated(needed.unwrap_or(u64::MAX))),
    }

    let data = bytes.slice(data_start as usize..);
    let shared: Arc<Path> = file.into();
    let mut tensors = Vec::new();
    for (name, info) in metadata.tensors() {
        let Some(dtype) = from_safetensors(info.dtype) else {
            return Err(Error::TensorType {
                file: file.to_owned(),
                tensor: name,
                found: info.dtype.to_string(),
                expected: "a float of 16 to 64 bits, an integer or bool",
            });
        };
        // Next to an empty axis the other axes can have any length, which the crate accepts.
        if element_count(&info.shape).is_none() {
            return Err(damaged(format!("tensor `{name}` has shape {:?}, which overflows", info.shape)));
        }
        let (start, end) = info.data_offsets;
        tensors.push(Stored {
            name,
            file: shared.clone(),
            dtype,
            shape: info.shape.clone().into(),
            bytes: data.slice(start..end),
            layout: Layout::RowMajor,
            reorder: None,
        });
    }
    Ok(tensors.into())
}
