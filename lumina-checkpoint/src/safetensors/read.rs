//! Reading one safetensors file.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use safetensors::tensor::Metadata;

use crate::Dtype;
use crate::tensor_view::{Order, Stored, element_count};
use crate::{Error, Result};

/// The length of the header comes first, as a little-endian `u64`.
const LENGTH_BYTES: u64 = 8;

/// The limit of the format's own library, in bytes.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// The tensors of a file, as slices of its mapping.
///
/// `safetensors` parses the header and checks that the tensors follow one another without gap or overlap and are as
/// long as type and shape say. The lengths around the header are compared here: its own `read_metadata` does not say
/// how many bytes are missing, and adds lengths unchecked.
pub(crate) fn read(file: &Path, bytes: &Bytes) -> Result<Vec<Stored>> {
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
    let metadata: Metadata =
        serde_json::from_slice(header).map_err(|error| damaged(format!("the header does not hold: {error}")))?;

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
        let Some(dtype) = Dtype::from_safetensors(info.dtype) else {
            return Err(Error::TensorType {
                file: file.to_owned(),
                tensor: name,
                found: info.dtype.to_string(),
                expected: "a float of 16 to 64 bits, an integer or bool",
            });
        };
        // An empty axis lets the others be of any length.
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
            order: Order::RowMajor,
            reorder: None,
        });
    }
    Ok(tensors)
}
