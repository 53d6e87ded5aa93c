//! The input of a convolution, as kernels load it.

use cubecl::prelude::*;

use super::Resize;
use crate::matmul::Float4;
use crate::norm::group_norm;

/// What is done to the input while it is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Transform {
    None,
    Norm,
    NormSwish,
}

/// How a position of the result finds its inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Loading {
    /// Side of the convolution's kernel.
    pub(crate) kernel: u32,
    pub(crate) resize: Resize,
    pub(crate) transform: Transform,
}

impl Loading {
    /// That of a product with a matrix.
    pub(crate) const PLAIN: Self = Self { kernel: 1, resize: Resize::Same, transform: Transform::None };

    /// Zeros above and to the left.
    const fn padding(self) -> u32 {
        if self.kernel == 3 && !matches!(self.resize, Resize::Halve) { 1 } else { 0 }
    }

    const fn stride(self) -> u32 {
        if matches!(self.resize, Resize::Halve) { 2 } else { 1 }
    }

    /// By how many bits coordinates in the image are larger than those in memory.
    const fn doublings(self) -> u32 {
        if matches!(self.resize, Resize::Double) { 1 } else { 0 }
    }
}

/// Sizes of a product. Channels and places are in loads.
#[derive(CubeType, CubeLaunch, Debug, Clone, Copy, Default)]
pub(crate) struct Size {
    /// Of the input, an image.
    pub(crate) height: u32,
    pub(crate) width: u32,
    /// Of the result, an image.
    pub(crate) out_height: u32,
    pub(crate) out_width: u32,
    /// Positions of the result, of all images.
    pub(crate) positions: u32,
    /// Loads of a position of the input.
    pub(crate) inputs: u32,
    /// Loads of a position of the result.
    pub(crate) outputs: u32,
    /// Rows of the weights, steps of the sum. A row that lacks of the last load may be any number.
    pub(crate) weight_rows: u32,
    /// Loads from a row of weights to the next; as `outputs`, if 0.
    pub(crate) weight_row: u32,
    /// Where the input, the weights and the result begin.
    pub(crate) first: u32,
    pub(crate) first_weight: u32,
    pub(crate) first_out: u32,
}

impl Size {
    pub(crate) fn arg(self) -> SizeLaunch {
        SizeLaunch::new(
            self.height,
            self.width,
            self.out_height,
            self.out_width,
            self.positions,
            self.inputs,
            self.outputs,
            self.weight_rows,
            self.weight_row,
            self.first,
            self.first_weight,
            self.first_out,
        )
    }
}

/// Positions of the result, whose inputs a unit loads.
#[derive(CubeType)]
pub(crate) struct Places {
    image: Array<u32>,
    row: Array<u32>,
    column: Array<u32>,
}

/// The positions `first`, `first + apart` … Those beyond the last are that.
#[cube]
pub(crate) fn find_places(first: u32, apart: u32, size: &Size, #[comptime] n: usize) -> Places {
    let mut places = Places { image: Array::<u32>::new(n), row: Array::<u32>::new(n), column: Array::<u32>::new(n) };
    let plane = size.out_height * size.out_width;
    #[unroll]
    for i in 0..n {
        let position = min(first + comptime!(i as u32) * apart, size.positions - 1);
        let inside = position % plane;
        places.image[i] = position / plane;
        places.row[i] = inside / size.out_width;
        places.column[i] = inside % size.out_width;
    }
    places
}

/// The input of a position under a tap, 16 bytes of its channels: zeros beyond the image, and where there is no such
/// tap or load.
#[cube]
pub(crate) fn load_input(
    x: &[Float4],
    norm: &[Float4],
    places: &Places,
    tap: u32,
    load: u32,
    size: &Size,
    #[comptime] i: usize,
    #[comptime] loading: Loading,
) -> Float4 {
    let doublings = comptime!(loading.doublings());
    // Coordinates above and to the left of the image become very large.
    let row =
        places.row[i] * comptime!(loading.stride()) + tap / comptime!(loading.kernel) - comptime!(loading.padding());
    let column =
        places.column[i] * comptime!(loading.stride()) + tap % comptime!(loading.kernel) - comptime!(loading.padding());
    let inside = tap < comptime!(loading.kernel * loading.kernel)
        && load < size.inputs
        && row < (size.height << doublings)
        && column < (size.width << doublings);
    let source = (places.image[i] * size.height + (row >> doublings)) * size.width + (column >> doublings);
    let mut value = x[(size.first + select(inside, source * size.inputs + load, 0u32)) as usize];
    if comptime!(loading.transform != Transform::None) {
        let entry = ((places.image[i] * size.inputs + min(load, size.inputs - 1)) * 3) as usize;
        value = group_norm::apply(value, norm, entry, comptime!(loading.transform == Transform::NormSwish));
    }
    select(inside, value, Float4::new(0.0f32))
}
