//! Norms without statistics, which scale and shift each channel.

use cubecl::prelude::*;

use super::ScaleShift;
use crate::conv::Maps;
use crate::elementwise::UNITS;
use crate::{Buffer, Gpu};

/// A unit has a channel of an image. Channels are a multiple of four, so their loads lie one after the other.
#[cube(launch_unchecked, create_dummy_kernel)]
pub(crate) fn kernel(weight: &[f32], bias: &[f32], table: &mut [f32], channels: u32, len: u32) {
    let at = ABSOLUTE_POS as u32;
    if at < len {
        let channel = (at % channels) as usize;
        let to = (at / 4u32 * 12u32 + at % 4u32) as usize;
        table[to] = 0.0f32;
        table[to + 4] = weight[channel];
        table[to + 8] = bias[channel];
    }
}

/// `x · weight + bias` for each channel, with `weight` and `bias` `[channels]`: in the place of a group norm, without
/// its statistics.
///
/// # Panics
/// If channels are no multiple of four, or `weight` and `bias` have others.
pub fn affine(gpu: &Gpu, x: &Maps, weight: &Buffer, bias: &Buffer) -> ScaleShift {
    let [batch, channels, ..] = x.shape();
    assert!(weight.len() == channels && bias.len() == channels, "weight and bias have {channels} channels");
    let result = ScaleShift::empty(gpu, x);
    let len = batch * channels;
    if len == 0 {
        return result;
    }
    // SAFETY: the table has twelve numbers for each four channels of each image, and the others have the channels.
    unsafe {
        kernel::launch_unchecked(
            gpu.client(),
            gpu.cubes_for(len),
            CubeDim::new_1d(UNITS),
            weight.arg(1),
            bias.arg(1),
            result.table().arg(1),
            channels as u32,
            len as u32,
        );
    }
    result
}
