//! Convolutions and attention over feature maps, and what else the VQGAN needs.
//!
//! Feature maps lie channels last, `[batch, height, width, channels]`, in `f32`. The channels of a position are padded
//! with zeros to a multiple of four, so that they are read in loads of 16 bytes.
//!
//! A convolution is a product of the positions with `[taps · inputs, outputs]`, whose left side is never in memory:
//! each load finds its position, and what lies between a layer and its input, a group norm, swish or doubled pixels, is
//! done while loading.

pub(crate) mod attention;
pub(crate) mod input;
pub(crate) mod mma;
pub(crate) mod nearest;
pub(crate) mod patches;
pub(crate) mod planes;
pub(crate) mod tiles;

use std::fmt;

pub use self::attention::attention;
use self::input::{Loading, Size, Transform};
use self::mma::Halves;
pub use self::nearest::{Codebook, NOT_FINITE};
use self::tiles::{Call, Kind};
use crate::norm::ScaleShift;
use crate::{Buffer, Error, Gpu, Result};

/// Channels of a load.
const LOAD: usize = 4;

/// Feature maps `[batch, channels, height, width]` on a device, channels last. Clones are the same memory.
#[derive(Clone)]
pub struct Maps {
    values: Buffer,
    shape: [usize; 4],
}

impl Maps {
    /// Room for maps of this shape, `[batch, channels, height, width]`.
    pub(crate) fn empty(gpu: &Gpu, shape: [usize; 4]) -> Self {
        let [batch, channels, height, width] = shape;
        Self { values: gpu.empty(batch * height * width * padded(channels)), shape }
    }

    /// `[batch, channels, height, width]`.
    pub fn shape(&self) -> [usize; 4] {
        self.shape
    }

    /// The numbers, `[batch, height, width, channels]`, the channels of each position padded to a multiple of four.
    pub fn values(&self) -> &Buffer {
        &self.values
    }

    /// Positions of all images.
    fn positions(&self) -> usize {
        let [batch, _, height, width] = self.shape;
        batch * height * width
    }

    /// Loads of a position.
    pub(crate) fn loads(&self) -> usize {
        self.shape[1].div_ceil(LOAD)
    }
}

impl fmt::Debug for Maps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Maps").field("shape", &self.shape).finish_non_exhaustive()
    }
}

/// Channels of a position with the zeros that fill the last load.
const fn padded(channels: usize) -> usize {
    channels.next_multiple_of(LOAD)
}

/// Weights and bias of a convolution on a device, in the form that its kernel reads.
#[derive(Clone)]
pub struct ConvWeights {
    stored: Stored,
    inputs: usize,
    outputs: usize,
    kernel: usize,
}

#[derive(Clone)]
enum Stored {
    /// `[taps · inputs, outputs]`, inputs and outputs padded, and the bias.
    Floats { weight: Buffer, bias: Buffer },
    /// For tensor cores.
    Halves(Halves),
}

impl ConvWeights {
    /// Copies the weights `[outputs, inputs, kernel, kernel]` and the bias `[outputs]` to the device. The kernel is 1
    /// or 3 wide.
    ///
    /// # Errors
    /// [`Error::Weights`] where there are more or fewer numbers or the kernel is of another width,
    /// [`Error::OutOfMemory`].
    pub fn new(gpu: &Gpu, shape: [usize; 4], weight: &[f32], bias: &[f32]) -> Result<Self> {
        let form = if mma::is_offered(gpu) { Form::TensorCores } else { Form::Floats };
        Self::in_form(gpu, shape, weight, bias, form)
    }

    fn in_form(gpu: &Gpu, shape: [usize; 4], weight: &[f32], bias: &[f32], form: Form) -> Result<Self> {
        let [outputs, inputs, kernel, columns] = shape;
        let n = shape.iter().try_fold(1usize, |n, side| n.checked_mul(*side));
        let error = |what, found| Error::Weights { what, found, shape: shape.to_vec() };
        if n != Some(weight.len()) || weight.is_empty() || kernel != columns || !matches!(kernel, 1 | 3) {
            return Err(error("weights of a convolution with a kernel of 1×1 or 3×3", weight.len()));
        }
        if bias.len() != outputs {
            return Err(error("bias of a convolution", bias.len()));
        }
        let taps = kernel * kernel;
        let stored = match form {
            Form::Floats => {
                let (row, rows) = (padded(outputs), padded(inputs));
                let mut arranged = vec![0.0f32; taps * rows * row];
                for (output, weight) in weight.chunks_exact(inputs * taps).enumerate() {
                    for (input, weight) in weight.chunks_exact(taps).enumerate() {
                        for (tap, weight) in weight.iter().enumerate() {
                            arranged[(tap * rows + input) * row + output] = *weight;
                        }
                    }
                }
                let mut bias = bias.to_vec();
                bias.resize(row, 0.0);
                Stored::Floats { weight: gpu.upload_f32(&arranged), bias: gpu.upload_f32(&bias) }
            }
            Form::TensorCores | Form::EmulatedTensorCores => {
                let emulated = form == Form::EmulatedTensorCores;
                Stored::Halves(Halves::new(gpu, [outputs, inputs, taps], weight, bias, emulated))
            }
        };
        gpu.check(match &stored {
            Stored::Floats { weight, .. } => weight,
            Stored::Halves(halves) => halves.words(),
        })?;
        Ok(Self { stored, inputs, outputs, kernel })
    }

    /// Channels of the input.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Channels of the result.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Side of the kernel, 1 or 3.
    pub fn kernel(&self) -> usize {
        self.kernel
    }
}

/// Which kernel weights are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Floats,
    TensorCores,
    /// For tests on devices without them.
    #[cfg_attr(not(test), allow(dead_code, reason = "tests alone make it"))]
    EmulatedTensorCores,
}

impl fmt::Debug for ConvWeights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConvWeights")
            .field("inputs", &self.inputs)
            .field("outputs", &self.outputs)
            .field("kernel", &self.kernel)
            .finish_non_exhaustive()
    }
}

/// The size of a convolution's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Resize {
    /// That of the input, with zeros around it for a kernel of 3×3.
    #[default]
    Same,
    /// Half of it, rounded down: stride 2, with zeros to the right and below. For kernels of 3×3.
    Halve,
    /// Twice as large: the input's pixels are repeated to 2×2 first.
    Double,
}

/// What is done to the input of a convolution while it is loaded.
#[derive(Debug, Clone, Copy, Default)]
pub enum Input<'a> {
    /// Nothing.
    #[default]
    Plain,
    /// A group norm.
    Normed(&'a ScaleShift),
    /// A group norm, then swish.
    NormedSwish(&'a ScaleShift),
}

/// How exactly tensor cores multiply. Devices without them compute in `f32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ConvPrecision {
    /// As in `f32`: each number is two in `f16`.
    #[default]
    F32,
    /// Numbers are rounded to `f16`, by at most 2⁻¹¹ of themselves; sums are in `f32`. A third of the products.
    F16,
}

/// What a convolution does besides.
#[derive(Debug, Clone, Copy, Default)]
pub struct ConvOptions<'a> {
    /// The size of the result.
    pub resize: Resize,
    /// What is done to the input.
    pub input: Input<'a>,
    /// What is added to the result, of its shape.
    pub residual: Option<&'a Maps>,
    /// How exactly it is computed.
    pub precision: ConvPrecision,
}

/// A convolution: `x` `[batch, inputs, height, width]` → `[batch, outputs, …]`.
///
/// # Panics
/// If channels or shapes do not fit each other, or an activation has 2³² numbers.
pub fn conv(gpu: &Gpu, x: &Maps, weights: &ConvWeights, options: ConvOptions<'_>) -> Maps {
    let ConvOptions { resize, input, residual, precision } = options;
    let [batch, channels, height, width] = x.shape;
    assert_eq!(channels, weights.inputs, "the input of a convolution has its channels");
    let [out_height, out_width] = [height, width].map(|side| match resize {
        Resize::Same => side,
        Resize::Halve => side / 2,
        Resize::Double => 2 * side,
    });
    assert!(resize != Resize::Halve || weights.kernel == 3, "only a kernel of 3×3 halves an image");
    let out = Maps::empty(gpu, [batch, weights.outputs, out_height, out_width]);
    assert!(residual.is_none_or(|maps| maps.shape == out.shape), "what is added has the shape of the result");
    let largest = x.values.len().max(out.values.len());
    assert!(u32::try_from(largest).is_ok(), "{largest} numbers of an activation; indices have 32 bits");
    let (norm, transform) = match input {
        Input::Plain => (None, Transform::None),
        Input::Normed(norm) => (Some(norm), Transform::Norm),
        Input::NormedSwish(norm) => (Some(norm), Transform::NormSwish),
    };
    assert!(norm.is_none_or(|norm| norm.fits(x)), "a norm is that of the input");
    let loading = Loading { kernel: weights.kernel as u32, resize, transform };
    let size = Size {
        height: height as u32,
        width: width as u32,
        out_height: out_height as u32,
        out_width: out_width as u32,
        positions: out.positions() as u32,
        inputs: x.loads() as u32,
        outputs: out.loads() as u32,
        weight_rows: (weights.kernel * weights.kernel * padded(channels)) as u32,
        ..Size::default()
    };
    let norm = norm.map_or(&x.values, ScaleShift::table);
    let has_residual = residual.is_some();
    let residual = residual.map_or(&x.values, |maps| &maps.values);
    match &weights.stored {
        Stored::Floats { weight, bias } => {
            let mut call =
                Call::new(gpu, Kind::new(loading, true, has_residual, size.positions), &x.values, weight, &out.values);
            (call.bias, call.norm, call.residual, call.size) = (bias, norm, residual, size);
            call.run();
        }
        Stored::Halves(halves) => {
            mma::launch(gpu, [&x.values, norm, residual, &out.values], halves, loading, has_residual, precision, size);
        }
    }
    out
}

#[cfg(all(test, feature = "wgpu"))]
mod tests;
