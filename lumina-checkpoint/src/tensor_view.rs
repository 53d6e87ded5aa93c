//! One tensor of a checkpoint.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::Dtype;
use super::convert::widen;
use super::gguf::Heads;
use crate::{Error, Result};

/// A tensor of a checkpoint: name, file, type, shape and bytes. Cloning copies no data.
///
/// ```
/// # use lumina_checkpoint::{Checkpoint, Dtype, save_safetensors};
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
    pub(super) order: Order,
}

/// How the elements lie in their bytes.
pub(super) enum Order {
    RowMajor,
    /// Steps between elements along each axis, in elements. The first element is at the start of the bytes, and no
    /// element lies beyond their end.
    Strides(Box<[usize]>),
    /// Row-major but for the order within heads, as llama.cpp rotates them.
    Pairs(Heads),
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
    /// They lie in the file's mapping, at any alignment, unless torch or llama.cpp stored them in another order; then
    /// they are put in order on the heap, once for this view and its later clones.
    pub fn bytes(&self) -> &Bytes {
        let Stored { shape, bytes, dtype, order, .. } = &*self.stored;
        match order {
            Order::RowMajor => bytes,
            Order::Strides(strides) => self.contiguous.get_or_init(|| match dtype.block_bytes() {
                1 => gather::<1>(bytes, shape, strides),
                2 => gather::<2>(bytes, shape, strides),
                4 => gather::<4>(bytes, shape, strides),
                _ => gather::<8>(bytes, shape, strides),
            }),
            Order::Pairs(heads) => self.contiguous.get_or_init(|| heads.pairs_to_halves(bytes).into()),
        }
    }

    /// The elements as `f32`, row-major: `f16`, `bf16` and quantised types exactly, `f64` rounded to nearest.
    ///
    /// # Errors
    /// [`Error::TensorType`] where the elements are neither floats nor quantised.
    pub fn to_f32(&self) -> Result<Vec<f32>> {
        let mut values = vec![0.0; self.shape().iter().product()];
        self.read_f32(self.bytes(), &mut values)?;
        Ok(values)
    }

    /// Widens `bytes`, whole blocks of this tensor's type, to as many elements.
    pub(super) fn read_f32(&self, bytes: &[u8], values: &mut [f32]) -> Result<()> {
        if widen(self.dtype(), bytes, values) {
            return Ok(());
        }
        Err(Error::TensorType {
            file: self.file().to_owned(),
            tensor: self.name().to_owned(),
            found: self.dtype().to_string(),
            expected: "f32, f16, bf16, f64 or a quantised type",
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
