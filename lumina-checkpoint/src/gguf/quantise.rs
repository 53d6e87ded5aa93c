//! One tensor in another type.

use bytes::Bytes;
use rayon::prelude::*;

use crate::{Dtype, Error, Result, TensorView};

/// Elements that one thread converts at a time: a whole number of blocks of every type.
const CHUNK: usize = 1 << 14;

/// Elements of a slice: enough for threads to share, and the most that is held in the target's type.
const SLICE: usize = CHUNK << 8;

/// A tensor in another type, on the heap, converted by the threads of the current rayon pool. A tensor that has the type
/// already is not copied.
///
/// # Errors
/// [`Error::Quantise`] where the type cannot hold a value, is not written, or has blocks that do not fit the rows;
/// [`Error::TensorType`] where the tensor has no floats.
pub fn quantise_tensor(view: &TensorView, dtype: Dtype) -> Result<Bytes> {
    if view.dtype() == dtype {
        return Ok(view.bytes().clone());
    }
    let Some(length) = dtype.bytes_of(view.shape()) else {
        return Err(unfit(view, format!("rows of shape {:?} are no whole number of blocks of {dtype}", view.shape())));
    };
    let mut converted = Vec::with_capacity(length);
    quantise_slices(view, view.bytes(), dtype, |bytes, _| {
        converted.extend_from_slice(bytes);
        Ok(())
    })?;
    Ok(converted.into())
}

/// Converts `source`, elements in the type of `view` and as many as it has, to `dtype`, slice by slice: `take` gets each slice, with
/// the share that is done then.
///
/// # Errors
/// As [`quantise_tensor`], and those of `take`.
pub fn quantise_slices(
    view: &TensorView,
    source: &[u8],
    dtype: Dtype,
    mut take: impl FnMut(&[u8], f64) -> Result<()>,
) -> Result<()> {
    let from = view.dtype();
    // Whole blocks, of whichever type.
    let bytes_in = |dtype: Dtype, elements: usize| elements / dtype.block_elements() * dtype.block_bytes();
    let slice_bytes = bytes_in(from, SLICE);
    let mut done = 0;
    let mut converted = Vec::new();
    for (index, slice) in source.chunks(slice_bytes).enumerate() {
        done += slice.len();
        let share = done as f64 / source.len() as f64;
        if from == dtype {
            take(slice, share)?;
            continue;
        }
        let format = dtype.format().ok_or_else(|| unfit(view, format!("{dtype} is no type for weights")))?;
        let elements = slice.len() / from.block_bytes() * from.block_elements();
        converted.resize(bytes_in(dtype, elements), 0);
        let parts = slice.par_chunks(bytes_in(from, CHUNK)).zip(converted.par_chunks_mut(bytes_in(dtype, CHUNK)));
        parts.enumerate().try_for_each_init(
            || vec![0.0; CHUNK],
            |values, (part, (bytes, out))| {
                let values = &mut values[..bytes.len() / from.block_bytes() * from.block_elements()];
                view.read_f32(bytes, values)?;
                format.quantise_row(values, out).map_err(|error| {
                    let first = index * SLICE + part * CHUNK;
                    unfit(view, describe_failure(&error, first))
                })
            },
        )?;
        take(&converted, share)?;
    }
    Ok(())
}

/// The kernel's message, with the element's place in the tensor, as the kernel saw a part that begins at `first`.
fn describe_failure(error: &lumina_kernels::Error, first: usize) -> String {
    match error {
        lumina_kernels::Error::Value { format, element, value } => {
            format!("element {} is {value}, which {format} cannot hold", first + element)
        }
        other => other.to_string(),
    }
}

fn unfit(view: &TensorView, reason: String) -> Error {
    Error::Quantise { file: view.file().to_owned(), tensor: view.name().to_owned(), reason }
}
