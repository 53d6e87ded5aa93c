//! One tensor of a checkpoint.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use super::Dtype;
use crate::{Error, Result};

/// A tensor of a checkpoint: name, file, type, shape and bytes. Cloning copies no data.
///
/// ```
/// # use lumina_core::checkpoint::{Checkpoint, Dtype, save_safetensors};
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("model.safetensors");
/// # save_safetensors(&path, [("bias", Dtype::BF16, [1], || Ok(vec![0x80, 0x3f].into()))])?;
/// let checkpoint = Checkpoint::open(&path)?;
/// for view in checkpoint.names().filter_map(|name| checkpoint.get(name)) {
///     println!("{} {} {:?}: {} bytes", view.name(), view.dtype(), view.shape(), view.bytes().len());
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct TensorView {
    stored: Arc<Stored>,
    contiguous: OnceLock<Bytes>,
}

/// A tensor as its file has it; everything in here was checked when the file was opened.
pub(super) struct Stored {
    pub(super) name: String,
    pub(super) file: Arc<Path>,
    pub(super) dtype: Dtype,
    pub(super) shape: Box<[usize]>,
    /// The part of the mapping that holds all elements.
    pub(super) bytes: Bytes,
    /// Steps between elements along each axis, in elements, where they are not row-major. The first element is at the
    /// start of `bytes`, and no element lies beyond their end.
    pub(super) strides: Option<Box<[usize]>>,
}

/// The number of elements of a shape whose extent, even with empty axes counted as one, does not overflow; so
/// no product of its lengths and an element's size does, in whatever order.
pub(super) fn element_count(shape: &[usize]) -> Option<usize> {
    let largest = shape.iter().try_fold(8usize, |product, &length| product.checked_mul(length.max(1)))?;
    isize::try_from(largest).ok()?;
    Some(shape.iter().product())
}

impl TensorView {
    pub(super) fn new(stored: Arc<Stored>) -> Self {
        Self { stored, contiguous: OnceLock::new() }
    }

    /// The name, as the checkpoint has it.
    pub fn name(&self) -> &str {
        &self.stored.name
    }

    /// The file that holds the tensor: in a folder with shards, the shard.
    pub fn file(&self) -> &Path {
        &self.stored.file
    }

    /// The type of the elements.
    pub fn dtype(&self) -> Dtype {
        self.stored.dtype
    }

    /// The length of each axis, outermost first; empty for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.stored.shape
    }

    /// The elements, row-major and little-endian, with no gaps.
    ///
    /// They lie in the file's mapping, at any alignment, unless torch stored them in another order; then they are put
    /// in order on the heap, once for this view and its later clones.
    pub fn bytes(&self) -> &Bytes {
        match &self.stored.strides {
            None => &self.stored.bytes,
            Some(strides) => self.contiguous.get_or_init(|| {
                let Stored { shape, bytes, dtype, .. } = &*self.stored;
                match dtype.bytes() {
                    1 => gather::<1>(bytes, shape, strides),
                    2 => gather::<2>(bytes, shape, strides),
                    4 => gather::<4>(bytes, shape, strides),
                    _ => gather::<8>(bytes, shape, strides),
                }
            }),
        }
    }

    /// The elements as `f32`, row-major: `f16` and `bf16` exactly, `f64` rounded to nearest.
    ///
    /// # Errors
    /// [`Error::TensorType`] where the elements are not floats.
    pub fn to_f32(&self) -> Result<Vec<f32>> {
        let bytes = self.bytes();
        Ok(match self.dtype() {
            Dtype::F32 => bytes.as_chunks().0.iter().map(|&chunk| f32::from_le_bytes(chunk)).collect(),
            Dtype::F64 => bytes.as_chunks().0.iter().map(|&chunk| f64::from_le_bytes(chunk) as f32).collect(),
            Dtype::F16 => widen(bytes, f16::from_le_bytes),
            Dtype::BF16 => widen(bytes, bf16::from_le_bytes),
            found => {
                return Err(Error::TensorType {
                    file: self.file().to_owned(),
                    tensor: self.name().to_owned(),
                    found: found.to_string(),
                    expected: "f32, f16, bf16 or f64",
                });
            }
        })
    }
}

impl fmt::Debug for TensorView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TensorView")
            .field("name", &self.name())
            .field("file", &self.file())
            .field("dtype", &self.dtype())
            .field("shape", &self.shape())
            .finish_non_exhaustive()
    }
}

/// Widens 16-bit floats in blocks, which lets `half` use the processor's own conversion; the bytes of a file are not
/// aligned, so each block is copied first.
fn widen<T: Copy + Default>(bytes: &[u8], from_le_bytes: fn([u8; 2]) -> T) -> Vec<f32>
where
    [T]: HalfFloatSliceExt,
{
    const BLOCK: usize = 1024;
    let chunks = bytes.as_chunks::<2>().0;
    let mut widened = vec![0.0; chunks.len()];
    let mut block = [T::default(); BLOCK];
    for (chunks, out) in chunks.chunks(BLOCK).zip(widened.chunks_mut(BLOCK)) {
        let block = &mut block[..chunks.len()];
        for (half, &chunk) in block.iter_mut().zip(chunks) {
            *half = from_le_bytes(chunk);
        }
        block.convert_to_f32_slice(out);
    }
    widened
}

/// Copies elements of `N` bytes from the places that `strides` gives into row-major order.
fn gather<const N: usize>(bytes: &[u8], shape: &[usize], strides: &[usize]) -> Bytes {
    let elements = bytes.as_chunks::<N>().0;
    let count: usize = shape.iter().product();
    let mut gathered = Vec::with_capacity(count * N);
    let mut index = vec![0; shape.len()];
    let mut at = 0;
    for _ in 0..count {
        gathered.extend_from_slice(&elements[at]);
        // The next index in row-major order: count up from the innermost axis, carrying.
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            at += strides[axis];
            if index[axis] < shape[axis] {
                break;
            }
            at -= index[axis] * strides[axis];
            index[axis] = 0;
        }
    }
    gathered.into()
}
