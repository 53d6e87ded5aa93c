//! Nearest-neighbour upsampling of images to twice the size, and its gradient.
//!
//! `rows` says which rows of the result are wanted: an image decoder works in bands of rows.

use std::ops::Range;

use crate::parallel::*;

use crate::memory::{fill_in_parallel, zeros};

/// Size of the planes of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlaneSize {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

/// Rows `rows` of `x` `[planes, height, width]` at twice the size: `[planes, rows.len(), 2 · width]`.
pub fn forward(x: &[f32], PlaneSize { height, width }: PlaneSize, rows: &Range<usize>) -> Vec<f32> {
    let planes = x.len() / (height * width).max(1);
    fill_in_parallel(planes * rows.len() * 2 * width, 2 * width, |index, start, y| {
        let (plane, row) = (index / rows.len(), rows.start + index % rows.len());
        let x = &x[(plane * height + row / 2) * width + start / 2..];
        for (pair, &x) in y.as_chunks_mut::<2>().0.iter_mut().zip(x) {
            *pair = [x; 2];
        }
    })
}

/// The gradient of `x` `[planes, height, width]`, from `dy` `[planes, rows.len(), 2 · width]`.
pub fn backward(dy: &[f32], planes: usize, PlaneSize { height, width }: PlaneSize, rows: &Range<usize>) -> Vec<f32> {
    let mut dx = zeros(planes * height * width);
    let each = dx.par_chunks_mut((height * width).max(1)).zip(dy.par_chunks((rows.len() * 2 * width).max(1)));
    each.for_each(|(dx, dy)| {
        for (row, dy) in rows.clone().zip(dy.chunks_exact(2 * width)) {
            let dx = &mut dx[row / 2 * width..][..width];
            dx.iter_mut().zip(dy.as_chunks::<2>().0).for_each(|(dx, [left, right])| *dx += left + right);
        }
    });
    dx
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_are_repeated_and_their_gradients_added() {
        // Two planes of two rows.
        let size = PlaneSize { height: 2, width: 3 };
        let x: Vec<f32> = (0..12).map(|value| value as f32).collect();
        let y = forward(&x, size, &(1..4));
        let row = |of: [f32; 3]| of.into_iter().flat_map(|value| [value; 2]);
        let plane = |first: f32| {
            let [above, below] = [0.0, 3.0].map(|row| [first + row, first + row + 1.0, first + row + 2.0]);
            row(above).chain(row(below)).chain(row(below))
        };
        assert_eq!(y, plane(0.0).chain(plane(6.0)).collect::<Vec<_>>());
        // y is linear in x, so ⟨dy, y(x)⟩ = ⟨gradient, x⟩ for any x.
        let dy: Vec<f32> = (0..y.len()).map(|value| (value * 7 % 5) as f32).collect();
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        for at in 0..12 {
            let one: Vec<f32> = (0..12).map(|index| f32::from(u8::from(index == at))).collect();
            assert_eq!(dot(&backward(&dy, 2, size, &(1..4)), &one), dot(&dy, &forward(&one, size, &(1..4))));
        }
        // A row of more than a part.
        let wide: Vec<f32> = (0..10_000).map(|value| value as f32).collect();
        let expected: Vec<f32> = (0..20_000).map(|at| (at / 2) as f32).collect();
        assert_eq!(forward(&wide, PlaneSize { height: 1, width: 10_000 }, &(0..1)), expected);
        assert!(forward(&[], PlaneSize { height: 0, width: 3 }, &(0..0)).is_empty());
    }
}
