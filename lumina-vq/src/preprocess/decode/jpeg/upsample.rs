//! Upsampling a row of a component to the image's width, with the filters of libjpeg's `jdsample.c`.

use super::frame::{Component, Frame};

/// Writes the samples of row `y` of the image to `out`, which has room for whole MCUs.
pub(super) fn row(frame: &Frame, component: &Component, plane: &[u8], y: usize, out: &mut [u8]) {
    let samples = |row: usize| &plane[row * component.stride()..][..component.width];
    let (across, down) = (frame.h_max / component.h, frame.v_max / component.v);
    // Interpolating between two rows weights the nearer one by 3 and the other one, above or below, by 1.
    let near = y / down;
    let is_upper = y.is_multiple_of(2);
    let far = if is_upper { near.saturating_sub(1) } else { (near + 1).min(component.height - 1) };
    // libjpeg repeats the samples of components that are narrower.
    let is_wide = component.width > 2;
    match (across, down) {
        (1, 1) => out[..component.width].copy_from_slice(samples(near)),
        (2, 1) if is_wide => {
            let row = samples(near);
            spread(row.len(), out, |x| u32::from(row[x]), |sum, is_left| (sum + 2 - u32::from(is_left)) >> 2);
        }
        (1, 2) => {
            let bias = if is_upper { 1 } else { 2 };
            for ((out, &near), &far) in out.iter_mut().zip(samples(near)).zip(samples(far)) {
                *out = ((3 * u32::from(near) + u32::from(far) + bias) >> 2) as u8;
            }
        }
        (2, 2) if is_wide => {
            let (near, far) = (samples(near), samples(far));
            let column = |x: usize| 3 * u32::from(near[x]) + u32::from(far[x]);
            spread(near.len(), out, column, |sum, is_left| (sum + 7 + u32::from(is_left)) >> 4);
        }
        _ => {
            for (out, &sample) in out.chunks_exact_mut(across).zip(samples(near)) {
                out.fill(sample);
            }
        }
    }
}

/// Two samples for each of `n`: three quarters of it and one of its left or right neighbour. At the ends the sample
/// is its own neighbour. `scale` rounds four times a sample; it is told whether the sample is a left one.
#[inline(always)]
fn spread(n: usize, out: &mut [u8], sample: impl Fn(usize) -> u32, scale: impl Fn(u32, bool) -> u32) {
    let mut previous = sample(0);
    let mut current = previous;
    for (x, pair) in out.as_chunks_mut::<2>().0.iter_mut().take(n).enumerate() {
        let next = if x + 1 < n { sample(x + 1) } else { current };
        *pair = [scale(3 * current + previous, true) as u8, scale(3 * current + next, false) as u8];
        (previous, current) = (current, next);
    }
}
