//! Conversion of one tensor to another type.

use std::ops::Range;

use bytes::Bytes;
#[cfg(feature = "threads")]
use rayon::prelude::*;

use crate::dequantise::dequantise;
use crate::{Dtype, Error, Result, TensorView};

/// What to do about a type that does not fit a tensor.
const REMEDY: &str = "choose another type for it, f32 holds all values";

/// Elements that one thread converts at a time. It is a multiple of the blocks of every type.
const CHUNK: usize = 1 << 14;

/// Elements of a slice, all of whose converted bytes are on the heap. It has enough chunks for all threads.
const SLICE: usize = CHUNK << 8;

/// Converts a tensor to another type, on the heap, with the threads of the current rayon pool. A tensor that already
/// has the type is not copied.
///
/// ```
/// # use lumina_checkpoint::{Checkpoint, Dtype};
/// # let header = br#"{"w":{"dtype":"F32","shape":[1,32],"data_offsets":[0,128]}}"#;
/// # let file = [&(header.len() as u64).to_le_bytes()[..], header, &1f32.to_le_bytes().repeat(32)].concat();
/// # let checkpoint = Checkpoint::from_bytes("model.safetensors", file)?;
/// use lumina_checkpoint::gguf::quantise_tensor;
///
/// let weight = checkpoint.get("w").expect("it is in the file");
/// assert_eq!(weight.shape(), [1, 32]);
/// let blocks = quantise_tensor(&weight, Dtype::Q8_0)?;
/// assert_eq!(blocks.len(), 34);
/// # Ok::<(), lumina_checkpoint::Error>(())
/// ```
///
/// # Errors
/// [`Error::Quantise`] where the type cannot represent a value, can be read only, or has blocks that do not divide the
/// rows; [`Error::TensorType`] where the tensor is neither of floats nor quantised.
pub fn quantise_tensor(view: &TensorView, dtype: Dtype) -> Result<Bytes> {
    if view.dtype() == dtype {
        return Ok(view.bytes().clone());
    }
    let length = dtype.bytes_of(view.shape()).ok_or_else(|| no_blocks(view, dtype))?;
    let mut converted = Vec::with_capacity(length);
    quantise_slices(view, view.bytes(), dtype, |bytes, _| {
        converted.extend_from_slice(bytes);
        Ok(())
    })?;
    Ok(converted.into())
}

/// Converts `source` to `dtype`, slice by slice, so that no more than a slice is on the heap. `source` has elements of
/// the type of `view`. `take` is called with each slice in order, and with the fraction of `source` that is done with
/// it.
///
/// # Errors
/// As [`quantise_tensor`], and those of `take`.
pub fn quantise_slices(
    view: &TensorView,
    source: &[u8],
    dtype: Dtype,
    take: impl FnMut(&[u8], f64) -> Result<()>,
) -> Result<()> {
    quantise_from(view, 0, source, dtype, take)
}

/// Some rows of a matrix, converted as [`quantise_tensor`] does it: rows that are not asked for take no memory.
///
/// # Errors
/// As [`quantise_tensor`].
///
/// # Panics
/// If the tensor is no matrix, or has no such rows.
pub fn quantise_rows(view: &TensorView, rows: Range<usize>, dtype: Dtype) -> Result<Bytes> {
    let shape = view.shape();
    assert!(shape.len() == 2 && rows.start <= rows.end && rows.end <= shape[0], "{rows:?} of {view:?}");
    let columns = shape[1];
    // Blocks do not go beyond a row.
    let row = view.bytes().len() / shape[0].max(1);
    let source = view.bytes().slice(rows.start * row..rows.end * row);
    if view.dtype() == dtype {
        return Ok(source);
    }
    let length = dtype.bytes_of(&[rows.len(), columns]).ok_or_else(|| no_blocks(view, dtype))?;
    let mut converted = Vec::with_capacity(length);
    quantise_from(view, rows.start * columns, &source, dtype, |bytes, _| {
        converted.extend_from_slice(bytes);
        Ok(())
    })?;
    Ok(converted.into())
}

/// [`quantise_slices`] of what begins at element `start` of the tensor.
fn quantise_from(
    view: &TensorView,
    start: usize,
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
        let format = dtype.format().ok_or_else(|| unfit(view, format!("{dtype} is no type for weights; {REMEDY}")))?;
        let elements = slice.len() / from.block_bytes() * from.block_elements();
        converted.resize(bytes_in(dtype, elements), 0);
        for_each_chunk(
            (slice, bytes_in(from, CHUNK)),
            (&mut converted, bytes_in(dtype, CHUNK)),
            |values, part, bytes, out| {
                let values = &mut values[..bytes.len() / from.block_bytes() * from.block_elements()];
                view.read_f32(bytes, values)?;
                format.quantise_row(values, out).map_err(|error| {
                    let first = start + index * SLICE + part * CHUNK;
                    unfit(view, describe_failure(&error, first))
                })
            },
        )?;
        take(&converted, share)?;
    }
    Ok(())
}

/// Refuses elements that are infinite or NaN. `bytes` are of `dtype`, converted from the tensor of `view`, from element
/// `first` on. Integers are finite.
///
/// # Errors
/// [`Error::Quantise`].
pub fn check_finite(view: &TensorView, dtype: Dtype, bytes: &[u8], first: usize) -> Result<()> {
    /// Elements that are looked at together: a whole number of blocks of every type.
    const PIECE: usize = 1024;
    let not_finite = |(index, bytes): (usize, &[u8])| {
        let mut values = [0.0; PIECE];
        let values = &mut values[..bytes.len() / dtype.block_bytes() * dtype.block_elements()];
        // A float of 64 bits can be out of the range of 32.
        let finite = |bytes: &[u8; 8]| f64::from_le_bytes(*bytes).is_finite();
        if dtype == Dtype::F64 && bytes.as_chunks().0.iter().all(finite) || !dequantise(dtype, bytes, values) {
            return None;
        }
        let at = values.iter().position(|value| !value.is_finite())?;
        Some((first + index * PIECE + at, values[at]))
    };
    let piece = PIECE / dtype.block_elements() * dtype.block_bytes();
    #[cfg(feature = "threads")]
    let found = bytes.par_chunks(piece).enumerate().find_map_first(not_finite);
    #[cfg(not(feature = "threads"))]
    let found = bytes.chunks(piece).enumerate().find_map(not_finite);
    found.map_or(Ok(()), |(element, value)| {
        let reason = format!(
            "element {element} is {value}, which is not finite in {dtype}; choose a type of a wider range, f32 holds \
             all finite values, or mend the checkpoint or adapter if it is so there"
        );
        Err(unfit(view, reason))
    })
}

/// Calls `convert` for each chunk, with room for its elements in `f32`, its number, its bytes and the bytes to write.
/// Input and output come with the number of bytes of a chunk.
fn for_each_chunk(
    (input, input_chunk): (&[u8], usize),
    (output, output_chunk): (&mut [u8], usize),
    convert: impl Fn(&mut [f32], usize, &[u8], &mut [u8]) -> Result<()> + Sync,
) -> Result<()> {
    let room = || vec![0.0; CHUNK];
    #[cfg(feature = "threads")]
    {
        let chunks = input.par_chunks(input_chunk).zip(output.par_chunks_mut(output_chunk)).enumerate();
        chunks.try_for_each_init(room, |values, (part, (bytes, out))| convert(values, part, bytes, out))
    }
    #[cfg(not(feature = "threads"))]
    {
        let mut values = room();
        let mut chunks = input.chunks(input_chunk).zip(output.chunks_mut(output_chunk)).enumerate();
        chunks.try_for_each(|(part, (bytes, out))| convert(&mut values, part, bytes, out))
    }
}

/// The message of the kernel, which was called for elements from `first` on, with the index in the tensor.
fn describe_failure(error: &lumina_kernels::Error, first: usize) -> String {
    match error {
        lumina_kernels::Error::Value { format, element, value } if !value.is_finite() => {
            format!("element {} is {value}, which {format} cannot hold; mend the checkpoint", first + element)
        }
        lumina_kernels::Error::Value { format, element, value } => {
            format!("element {} is {value}, which {format} cannot hold; {REMEDY}", first + element)
        }
        other => format!("{other}; {REMEDY}"),
    }
}

fn no_blocks(view: &TensorView, dtype: Dtype) -> Error {
    unfit(view, format!("rows of shape {:?} are no whole number of blocks of {dtype}; {REMEDY}", view.shape()))
}

fn unfit(view: &TensorView, reason: String) -> Error {
    Error::Quantise { file: view.file().to_owned(), tensor: view.name().to_owned(), reason }
}
