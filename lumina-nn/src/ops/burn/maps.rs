//! The layers of the VQGAN on tensors, with gradients: for training, and for devices of Burn.

use std::ops::Range;

use burn::module::{Module, Param};
use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{DType, Device, Tensor, TensorData, activation};
use lumina_checkpoint::Dtype;

use super::row_writer::is_on_cpu;
use super::{Conv3x3, RowWriter, conv3x3, group_moments, read, scaled_swish, upsample2x};
use crate::ops::maps::{Bands, CODEBOOK_CHUNK, GroupNorm, Maps, MapsData, nearest_entry};
use crate::ops::values::Values;
use crate::{Compute, Result};

impl From<Tensor<4>> for Maps {
    fn from(tensor: Tensor<4>) -> Self {
        Self(MapsData::Burn(tensor))
    }
}

impl Maps {
    /// As a tensor: itself, or a copy on the processor.
    ///
    /// # Errors
    /// `Error::Gpu` where the GPU fails.
    pub fn into_tensor(self) -> Result<Tensor<4>> {
        match self.0 {
            MapsData::Burn(tensor) => Ok(tensor),
            other => {
                let maps = Self(other);
                let shape = maps.dims();
                Ok(Tensor::from_data(TensorData::new(maps.read()?, shape), (&Device::flex(), DType::F32)))
            }
        }
    }
}

/// Maps of these values in a tensor, in the type of `compute`.
pub(in crate::ops) fn maps(compute: &Compute, values: Vec<f32>, shape: [usize; 4]) -> Maps {
    let (device, dtype) = compute.options();
    Tensor::from_data(TensorData::new(values, shape), (&device, dtype)).into()
}

/// Maps of these values in a tensor on this device.
pub(in crate::ops) fn maps_on(device: &Device, values: Vec<f32>, shape: [usize; 4]) -> Maps {
    Tensor::from_data(TensorData::new(values, shape), (device, DType::F32)).into()
}

/// The type of a tensor, of those that activations can have.
pub(in crate::ops) fn dtype_of(x: &Tensor<4>) -> Dtype {
    match x.dtype() {
        DType::F64 => Dtype::F64,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        _ => Dtype::F32,
    }
}

/// [`Maps::cast`].
pub(in crate::ops) fn cast(x: Tensor<4>, dtype: Dtype) -> Tensor<4> {
    let dtype = match dtype {
        Dtype::F64 => DType::F64,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        _ => DType::F32,
    };
    as_type(x, dtype)
}

/// Whether small maps are computed in `f64`: on the processor, where no gradients are recorded.
pub(in crate::ops) fn can_be_precise(x: &Tensor<4>) -> bool {
    x.dtype() == DType::F64 || is_on_cpu(x)
}

/// The tensor in another type.
fn as_type<const D: usize>(x: Tensor<D>, dtype: DType) -> Tensor<D> {
    if x.dtype() == dtype { x } else { x.cast(dtype) }
}

/// A convolution's weights.
#[derive(Module, Debug)]
pub(crate) struct TensorConv {
    weight: Param<Tensor<4>>,
    bias: Param<Tensor<1>>,
    kernel: usize,
}

impl TensorConv {
    /// `weight` `[outputs, inputs, kernel, kernel]`, `bias` `[outputs]`.
    pub(crate) fn new(weight: Param<Tensor<4>>, bias: Param<Tensor<1>>, kernel: usize) -> Self {
        Self { weight, bias, kernel }
    }

    pub(in crate::ops) fn same(&self, x: Tensor<4>) -> Tensor<4> {
        let pad = self.kernel / 2;
        self.padded(x, (pad, pad), 1)
    }

    /// Convolves with `padding` rows of zeros above and below.
    pub(in crate::ops) fn padded(&self, x: Tensor<4>, padding: (usize, usize), stride: usize) -> Tensor<4> {
        let (weight, bias) = (as_type(self.weight.val(), x.dtype()), as_type(self.bias.val(), x.dtype()));
        match self.kernel {
            3 => conv3x3(x, weight, bias, Conv3x3 { padding_rows: padding, stride }),
            _ => conv2d(x, weight, Some(bias), ConvOptions::new([stride; 2], [0, 0], [1, 1], 1)),
        }
    }

    /// Convolves `swish(norm(x))`.
    pub(in crate::ops) fn after_norm_swish(&self, norm: &GroupNorm, x: Tensor<4>, bands: Bands) -> Tensor<4> {
        let ScaleShift { scale, shift } = scale_shift(norm, &x, bands);
        let height = x.dims()[2];
        let rows = |rows: Range<usize>| x.clone().narrow(2, rows.start, rows.len());
        let input = |band| scaled_swish(rows(band), scale.clone(), shift.clone());
        in_bands(bands, height, |band| self.forward_band(band, height, input))
    }

    /// Convolves `x` with each pixel repeated to 2×2.
    pub(in crate::ops) fn after_doubling(&self, x: &Tensor<4>, bands: Bands) -> Tensor<4> {
        let height = 2 * x.dims()[2];
        in_bands(bands, height, |band| self.forward_band(band, height, |rows| upsample2x(x, rows)))
    }

    /// Computes the rows `band` of the result. `input` returns rows of the input, which has `height` rows in all.
    fn forward_band(&self, band: Range<usize>, height: usize, input: impl Fn(Range<usize>) -> Tensor<4>) -> Tensor<4> {
        let pad = self.kernel / 2;
        let rows = band.start.saturating_sub(pad)..(band.end + pad).min(height);
        // Rows beyond the image are padding. Rows beyond the band, but inside the image, are read from the input.
        let padding = (pad - (band.start - rows.start), pad - (rows.end - band.end));
        self.padded(input(rows), padding, 1)
    }
}

/// An activation of `height` rows, of which `compute` gives bands. Each is written into the result at once, so that no
/// more than one is there besides.
fn in_bands(bands: Bands, height: usize, compute: impl Fn(Range<usize>) -> Tensor<4>) -> Tensor<4> {
    if bands.rows(height) >= height {
        return compute(0..height);
    }
    let mut result: Option<RowWriter> = None;
    for band in bands.split(height) {
        let part = compute(band.clone());
        let whole = result.take().unwrap_or_else(|| RowWriter::new(height, &part));
        result = Some(whole.write(band, part));
    }
    result.expect("an activation has rows").finish()
}

/// What a norm does to an image, by its statistics if it has them: `norm(x) = x · scale + shift`, both
/// `[batch, channels, 1, 1]`.
struct ScaleShift {
    scale: Tensor<4>,
    shift: Tensor<4>,
}

fn scale_shift(norm: &GroupNorm, x: &Tensor<4>, bands: Bands) -> ScaleShift {
    let [batch, channels, height, _] = x.dims();
    let device = x.device();
    let parameter = |value: &Values<1>| as_type(value.tensor(&device), x.dtype()).reshape([1, value.dims()[0], 1, 1]);
    let (weight, bias) = (parameter(&norm.weight), parameter(&norm.bias));
    let Some(groups) = norm.groups else {
        let each = |parameter: Tensor<4>| parameter.expand([batch, channels, 1, 1]);
        return ScaleShift { scale: each(weight), shift: each(bias) };
    };
    let [mean, variance] = group_moments(x, groups, bands.rows(height));
    let inverse = (variance + 1e-6).sqrt().recip();
    let per_channel =
        |group: Tensor<3>| group.expand([batch, groups, channels / groups]).reshape([batch, channels, 1, 1]);
    let scale = per_channel(inverse) * weight;
    let shift = bias - per_channel(mean) * scale.clone();
    ScaleShift { scale, shift }
}

pub(in crate::ops) fn group_norm(norm: &GroupNorm, x: Tensor<4>) -> Tensor<4> {
    let ScaleShift { scale, shift } = scale_shift(norm, &x, Bands::Whole);
    x * scale + shift
}

pub(in crate::ops) fn norm_swish(norm: &GroupNorm, x: Tensor<4>) -> Tensor<4> {
    activation::silu(group_norm(norm, x))
}

/// Squares of `side` × `side` positions as images: `[batch · rows · columns, channels, side, side]`.
pub(in crate::ops) fn patches(x: Tensor<4>, side: usize) -> Tensor<4> {
    let [batch, channels, height, width] = x.dims();
    let (rows, columns) = (height / side, width / side);
    let squares = x.reshape([batch, channels, rows, side, columns, side]).permute([0, 2, 4, 1, 3, 5]);
    squares.reshape([batch * rows * columns, channels, side, side])
}

/// Images of one position, `[batch · rows · columns, channels, 1, 1]`, as positions.
pub(in crate::ops) fn grids(x: Tensor<4>, [batch, rows, columns]: [usize; 3]) -> Tensor<4> {
    let channels = x.dims()[1];
    x.reshape([batch, rows, columns, channels]).permute([0, 3, 1, 2])
}

/// Attention of one head over all positions of each image.
pub(in crate::ops) fn maps_attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>) -> Tensor<4> {
    let [batch, channels, height, width] = q.dims();
    let [q, k, v] = [q, k, v].map(|x| x.reshape([batch, channels, height * width]));
    let scores = q.swap_dims(1, 2).matmul(k) * (channels as f64).powf(-0.5);
    let attended = v.matmul(activation::softmax(scores, 2).swap_dims(1, 2));
    attended.reshape([batch, channels, height, width])
}

/// The nearest entries of a codebook `[codes, width]` to latents `[batch, width, height, width]`.
pub(in crate::ops) fn nearest(codebook: Tensor<2>, latents: Tensor<4>) -> Result<Vec<Option<u32>>> {
    let [batch, embed, height, width] = latents.dims();
    let flat = latents.permute([0, 2, 3, 1]).reshape([batch * height * width, embed]);
    let norms = read(codebook.clone().square().sum_dim(1))?;
    let transposed = codebook.transpose();
    let n_positions = batch * height * width;
    let mut codes = Vec::with_capacity(n_positions);
    for start in (0..n_positions).step_by(CODEBOOK_CHUNK) {
        let positions = flat.clone().narrow(0, start, CODEBOOK_CHUNK.min(n_positions - start));
        let products = read(positions.matmul(transposed.clone()))?;
        codes.extend(products.chunks_exact(norms.len()).map(|row| nearest_entry(row, &norms)));
    }
    Ok(codes)
}

/// The entries of `codes`, as latents `[batch, width, rows, columns]`.
pub(in crate::ops) fn lookup(codebook: Tensor<2>, codes: &[u32], [batch, rows, columns]: [usize; 3]) -> Tensor<4> {
    let width = codebook.dims()[1];
    let entries = super::select(codebook, codes.iter().map(|&code| code as i32));
    entries.reshape([batch, rows, columns, width]).permute([0, 3, 1, 2])
}
