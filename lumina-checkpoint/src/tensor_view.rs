//! One tensor of a checkpoint.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::Dtype;
use super::dequantise::dequantise;
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
    /// What is done to the bytes in row-major order before anyone sees them.
    pub(super) reorder: Option<Reorder>,
}

impl Stored {
    /// The tensor by another name, with its rows put in another order.
    pub(super) fn mapped(&self, MappedTensor { name, reorder }: MappedTensor) -> Self {
        let order = match &self.order {
            Order::RowMajor => Order::RowMajor,
            Order::Strides(strides) => Order::Strides(strides.clone()),
        };
        let (file, shape, bytes) = (self.file.clone(), self.shape.clone(), self.bytes.clone());
        Self { name, file, dtype: self.dtype, shape, bytes, order, reorder: reorder.or_else(|| self.reorder.clone()) }
    }
}

/// Puts the bytes of a tensor, row-major, in another order; as many bytes are returned.
pub type Reorder = Arc<dyn Fn(&[u8]) -> Vec<u8> + Send + Sync>;

/// How a tensor is presented: see [`Checkpoint::map_tensors`](crate::Checkpoint::map_tensors).
#[derive(Clone)]
pub struct MappedTensor {
    /// Its name.
    pub name: String,
    /// The order of its rows, if it is another one than the file's. Applied when the bytes are first asked for.
    pub reorder: Option<Reorder>,
}

/// The order of the elements in their bytes.
pub(super) enum Order {
    RowMajor,
    /// Steps between elements along each axis, in elements. The first element is at the start of the bytes, and no
    /// element lies beyond their end.
    Strides(Box<[usize]>),
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
    /// They are a slice of the memory-mapped file, at any alignment, unless the file has them in another order, as torch and
    /// llama.cpp may. Then they are put in order on the heap, once for this view and its later clones.
    pub fn bytes(&self) -> &Bytes {
        let Stored { shape, bytes, dtype, order, reorder, .. } = &*self.stored;
        let in_order = || match order {
            Order::RowMajor => bytes.clone(),
            Order::Strides(strides) => match dtype.block_bytes() {
                1 => gather::<1>(bytes, shape, strides),
                2 => gather::<2>(bytes, shape, strides),
                4 => gather::<4>(bytes, shape, strides),
                _ => gather::<8>(bytes, shape, strides),
            },
        };
        match (order, reorder) {
            (Order::RowMajor, None) => bytes,
            (_, None) => self.contiguous.get_or_init(in_order),
            (_, Some(reorder)) => self.contiguous.get_or_init(|| reorder(&in_order()).into()),
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

    /// Dequantises `bytes`, whole blocks of this tensor's type, to as many elements in `f32`.
    ///
    /// # Errors
    /// As [`TensorView::to_f32`].
    pub fn read_f32(&self, bytes: &[u8], values: &mut [f32]) -> Result<()> {
        if dequantise(self.dtype(), bytes, values) {
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
