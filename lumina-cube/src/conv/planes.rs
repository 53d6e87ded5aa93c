//! Feature maps from planes of channels, and back.

use cubecl::prelude::*;

use super::Maps;
use crate::elementwise::UNITS;
use crate::{Buffer, Gpu};

/// A unit has a number of the result. From `[batch, channels, plane]` to `[batch, plane, row]`, or back.
#[cube(launch_unchecked, create_dummy_kernel)]
pub(crate) fn kernel(
    x: &[f32],
    out: &mut [f32],
    channels: u32,
    row: u32,
    plane: u32,
    len: u32,
    #[comptime] to_planes: bool,
) {
    let at = ABSOLUTE_POS as u32;
    if at < len {
        if comptime!(to_planes) {
            let image = at / (plane * channels);
            let channel = at / plane % channels;
            out[at as usize] = x[((image * plane + at % plane) * row + channel) as usize];
        } else {
            let channel = at % row;
            let position = at / row;
            let source = (position / plane * channels + min(channel, channels - 1u32)) * plane + position % plane;
            out[at as usize] = select(channel < channels, x[source as usize], 0.0f32);
        }
    }
}

fn launch(gpu: &Gpu, x: &Buffer, out: &Buffer, shape: [usize; 4], to_planes: bool) {
    let [_, channels, height, width] = shape;
    if out.is_empty() {
        return;
    }
    // SAFETY: one of them is `[batch, channels, plane]`, the other `[batch, plane, padded channels]`.
    unsafe {
        kernel::launch_unchecked(
            gpu.client(),
            gpu.cubes_for(out.len()),
            CubeDim::new_1d(UNITS),
            x.arg(1),
            out.arg(1),
            channels as u32,
            super::padded(channels) as u32,
            (height * width) as u32,
            out.len() as u32,
            to_planes,
        );
    }
}

impl Maps {
    /// Maps of planes `[batch, channels, height, width]`.
    ///
    /// # Panics
    /// If there are more or fewer numbers.
    pub fn from_planes(gpu: &Gpu, planes: &Buffer, shape: [usize; 4]) -> Self {
        assert_eq!(planes.len(), shape.iter().product::<usize>(), "planes of {shape:?}");
        let maps = Self::empty(gpu, shape);
        launch(gpu, planes, &maps.values, shape, false);
        maps
    }

    /// The planes, `[batch, channels, height, width]`.
    pub fn to_planes(&self, gpu: &Gpu) -> Buffer {
        let out = gpu.empty(self.shape.iter().product());
        launch(gpu, &self.values, &out, self.shape, true);
        out
    }
}
