//! Squares of feature maps as images of their own, and back.

use cubecl::prelude::*;

use super::Maps;
use crate::Gpu;
use crate::elementwise::UNITS;
use crate::matmul::Float4;

/// A unit copies a load of a patch's position: from `[batch, rows · side, columns · side, loads]` to `[batch · rows ·
/// columns, side, side, loads]`.
#[cube(launch_unchecked, create_dummy_kernel)]
pub(crate) fn kernel(x: &[Float4], out: &mut [Float4], side: u32, rows: u32, columns: u32, loads: u32, len: u32) {
    let at = ABSOLUTE_POS as u32;
    if at < len {
        let load = at % loads;
        let position = at / loads;
        let patch = position / (side * side);
        let inside = position % (side * side);
        let row = patch / columns % rows * side + inside / side;
        let column = patch % columns * side + inside % side;
        let image = patch / (rows * columns);
        let source = (image * rows * side + row) * columns * side + column;
        out[at as usize] = x[(source * loads + load) as usize];
    }
}

impl Maps {
    /// The squares of `side` × `side` positions of `[batch, channels, height, width]`, row by row: `[batch · rows ·
    /// columns, channels, side, side]`.
    ///
    /// # Panics
    /// If height or width is no multiple of the side.
    pub fn to_patches(&self, gpu: &Gpu, side: usize) -> Self {
        let [batch, channels, height, width] = self.shape;
        let fits = side > 0 && height.is_multiple_of(side) && width.is_multiple_of(side);
        assert!(fits, "{width}x{height} positions are no squares of {side}");
        let (rows, columns) = (height / side, width / side);
        if rows == 1 && columns == 1 {
            return self.clone();
        }
        let out = Self::empty(gpu, [batch * rows * columns, channels, side, side]);
        let len = out.values.len() / super::LOAD;
        if len == 0 {
            return out;
        }
        // SAFETY: both are of one size, and each position of a patch is one of its image.
        unsafe {
            kernel::launch_unchecked(
                gpu.client(),
                gpu.cubes_for(len),
                CubeDim::new_1d(UNITS),
                self.values.arg(super::LOAD),
                out.values.arg(super::LOAD),
                side as u32,
                rows as u32,
                columns as u32,
                self.loads() as u32,
                len as u32,
            );
        }
        out
    }

    /// Maps of one position each, `[batch · rows · columns, channels, 1, 1]`, as the positions of `[batch, channels,
    /// rows, columns]`. It is the same memory.
    ///
    /// # Panics
    /// If the maps are more or fewer, or larger.
    pub fn into_grids(self, [batch, rows, columns]: [usize; 3]) -> Self {
        let [n, channels, height, width] = self.shape;
        assert!(n == batch * rows * columns && height == 1 && width == 1, "positions of {batch} grids");
        Self { shape: [batch, channels, rows, columns], ..self }
    }
}
