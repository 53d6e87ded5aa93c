//! One tensor of a checkpoint.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::dequantise::dequantise;
use crate::{Dtype, Error, Result};

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

/// A tensor as its file has it. Opening the file has checked all fields.
pub(crate) struct Stored {
    pub(crate) name: String,
    pub(crate) file: Arc<Path>,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Box<[usize]>,
    /// The part of the file that contains all elements.
    pub(crate) bytes: Bytes,
    pub(crate) layout: Layout,
    /// Applied to the elements in row-major order.
    pub(crate) reorder: Option<Reorder>,
}

impl Stored {
    /// The tensor with another name and another order of rows.
    pub(crate) fn mapped(&self, MappedTensor { name, reorder }: MappedTensor) -> Self {
        let layout = match &self.layout {
            Layout::RowMajor => Layout::RowMajor,
            Layout::Strides(strides) => Layout::Strides(strides.clone()),
        };
        let (file, shape, bytes) = (self.file.clone(), self.shape.clone(), self.bytes.clone());
        let reorder = match (self.reorder.clone(), reorder) {
            (Some(first), Some(second)) => Some(Arc::new(move |bytes: &[u8], ordered: &mut [u8]| {
                let mut between = vec![0; bytes.len()];
                first(bytes, &mut between);
                second(&between, ordered);
            }) as Reorder),
            (first, second) => second.or(first),
        };
        Self { name, file, dtype: self.dtype, shape, bytes, layout, reorder }
    }
}

/// Copies the bytes of a tensor, which are row-major, in another order into the second slice, which is as long.
pub type Reorder = Arc<dyn Fn(&[u8], &mut [u8]) + Send + Sync>;

/// The new name and order of a tensor, for [`Checkpoint::map_tensors`](crate::Checkpoint::map_tensors).
#[derive(Clone)]
pub struct MappedTensor {
    /// The new name.
    pub name: String,
    /// Reorders the rows as they are, after an earlier mapping; `None` keeps their order. It runs when the bytes are
    /// first asked for.
    pub reorder: Option<Reorder>,
}

/// The order of the elements in the file.
pub(crate) enum Layout {
    RowMajor,
    /// Strides along each axis, in elements. The first element is at the start of the bytes, and no element is beyond
    /// their end.
    Strides(Box<[usize]>),
}

/// The number of elements of a shape; `None` where the size in bytes could overflow. Empty axes count as one in that
/// check, so no product of some of the lengths and an element's size overflows.
pub(crate) fn element_count(shape: &[usize]) -> Option<usize> {
    let largest = shape.iter().try_fold(8usize, |product, &length| product.checked_mul(length.max(1)))?;
    isize::try_from(largest).ok()?;
    Some(shape.iter().product())
}

impl TensorView {
    pub(crate) fn new(stored: Arc<Stored>) -> Self {
        Self { stored, contiguous: OnceLock::new() }
    }

    /// The name in the checkpoint.
    pub fn name(&self) -> &str {
        &self.stored.name
    }

    /// The file that contains the tensor: in a folder with shards, the shard.
    pub fn file(&self) -> &Path {
        &self.stored.file
    }

    /// The element type.
    pub fn dtype(&self) -> Dtype {
        self.stored.dtype
    }

    /// The length of each axis, outermost first. A scalar has no axes.
    pub fn shape(&self) -> &[usize] {
        &self.stored.shape
    }

    /// The elements, row-major and little-endian, with no gaps.
    ///
    /// They are a slice of the file, at any alignment, if the file has them in this order. Otherwise the first call
    /// copies them in order to the heap, for this view and its later clones.
    pub fn bytes(&self) -> &Bytes {
        let Stored { shape, bytes, dtype, layout, reorder, .. } = &*self.stored;
        let row_major = || match layout {
            Layout::RowMajor => bytes.clone(),
            Layout::Strides(strides) => match dtype.block_bytes() {
                1 => gather::<1>(bytes, shape, strides),
                2 => gather::<2>(bytes, shape, strides),
                4 => gather::<4>(bytes, shape, strides),
                _ => gather::<8>(bytes, shape, strides),
            },
        };
        match (layout, reorder) {
            (Layout::RowMajor, None) => bytes,
            (_, None) => self.contiguous.get_or_init(row_major),
            (_, Some(reorder)) => self.contiguous.get_or_init(|| {
                let bytes = row_major();
                let mut ordered = vec![0; bytes.len()];
                reorder(&bytes, &mut ordered);
                ordered.into()
            }),
        }
    }

    /// The elements as `f32`, row-major. `f64` is rounded to nearest, all other types are exact.
    ///
    /// # Errors
    /// [`Error::TensorType`] where the type is neither a float type nor quantised.
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

/// Copies elements of `N` bytes into row-major order, from the offsets that `strides` says.
fn gather<const N: usize>(bytes: &[u8], shape: &[usize], strides: &[usize]) -> Bytes {
    let elements = bytes.as_chunks::<N>().0;
    let count: usize = shape.iter().product();
    let mut gathered = Vec::with_capacity(count * N);
    let mut index = vec![0; shape.len()];
    let mut at = 0;
    for _ in 0..count {
        gathered.extend_from_slice(&elements[at]);
        // Advance to the next index in row-major order: the innermost axis first, with carry.
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
