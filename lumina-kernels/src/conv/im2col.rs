//! Convolutions as matrix products, by im2col: 1×1, 3×3 in narrow images, and in `f64`.
//!
//! The columns of a strip of positions are packed in panels that threads share, and each thread multiplies them with
//! the weights of some output channels. A sum runs over input channels and taps from first to last, so a result depends
//! neither on the batch nor on the number of threads.

use std::ops::{Add, Mul, Sub};

use crate::parallel::*;

use super::conv3x3::RowPadding;
use crate::matmul::f32_gemm::{PanelRow, ROWS, WIDTH, multiply_tile};
use crate::memory::zeros;
use crate::simd::{Simd, simd_dispatch};

/// Values of a strip, at most, unless one panel has more: they fit the second-level cache.
const MAX_STRIP: usize = 1 << 18;

/// Columns of a part of a tile in `f64`, whose sums stay in registers.
const F64_WIDTH: usize = 8;
/// Rows of such a part.
const F64_ROWS: usize = 4;

/// Sizes of a convolution with a square kernel.
///
/// With a kernel of 3 there is one column of zeros left and right; with stride 2 only on the right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvShape {
    /// Images.
    pub batch: usize,
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// Rows of the input.
    pub height: usize,
    /// Columns of the input.
    pub width: usize,
    /// 1 or 3.
    pub kernel: usize,
    /// Rows of zeros above and below the input; none with a kernel of 1.
    pub padding: RowPadding,
    /// 1 or 2.
    pub stride: usize,
}

impl ConvShape {
    /// Rows of the output.
    pub fn output_height(&self) -> usize {
        let padded = self.height + self.padding.top + self.padding.bottom + self.stride;
        padded.saturating_sub(self.kernel) / self.stride
    }

    /// Columns of the output.
    pub fn output_width(&self) -> usize {
        self.width / self.stride
    }

    /// Input channels times taps: terms of a sum.
    fn depth(&self) -> usize {
        self.in_channels * self.kernel * self.kernel
    }

    /// Where in a plane of the input a tap of a position of the output reads; `None` beyond either.
    fn source(&self, position: usize, tap: usize) -> Option<usize> {
        let (row, column) = (position / self.output_width(), position % self.output_width());
        let left = usize::from(self.kernel == 3 && self.stride == 1);
        let row = (row * self.stride + tap / self.kernel).checked_sub(self.padding.top)?;
        let column = (column * self.stride + tap % self.kernel).checked_sub(left)?;
        let is_inside = position < self.output_height() * self.output_width() && row < self.height;
        (is_inside && column < self.width).then_some(row * self.width + column)
    }
}

/// The type of activations: `f32`, or `f64`.
pub trait Element:
    Copy + Default + Send + Sync + From<f32> + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self>
{
    /// A vector of zeros.
    fn zeros(len: usize) -> Vec<Self>;

    /// Adds the products of a tile of weights, `[depth, 8]`, and a panel of columns, `[depth, 32]`, to `sums`.
    #[doc(hidden)]
    fn multiply_tile(weights: &[[Self; ROWS]], panel: &[PanelRow<Self>], sums: &mut [[Self; WIDTH]; ROWS]);
}

impl Element for f32 {
    fn zeros(len: usize) -> Vec<Self> {
        zeros(len)
    }

    fn multiply_tile(weights: &[[Self; ROWS]], panel: &[PanelRow<Self>], sums: &mut [[Self; WIDTH]; ROWS]) {
        multiply_tile(weights, panel, sums);
    }
}

impl Element for f64 {
    fn zeros(len: usize) -> Vec<Self> {
        vec![0.0; len]
    }

    fn multiply_tile(weights: &[[Self; ROWS]], panel: &[PanelRow<Self>], sums: &mut [[Self; WIDTH]; ROWS]) {
        multiply_f64_tile(weights, panel, sums);
    }
}

simd_dispatch!(fn multiply_f64_tile(
    weights: &[[f64; ROWS]], panel: &[PanelRow<f64>], sums: &mut [[f64; WIDTH]; ROWS]
) = multiply_f64_tile_body);

#[inline(always)]
fn multiply_f64_tile_body<S: Simd>(
    _: S,
    weights: &[[f64; ROWS]],
    panel: &[PanelRow<f64>],
    result: &mut [[f64; WIDTH]; ROWS],
) {
    for first_row in (0..ROWS).step_by(F64_ROWS) {
        for first in (0..WIDTH).step_by(F64_WIDTH) {
            let mut sums = [[0.0; F64_WIDTH]; F64_ROWS];
            for (weights, PanelRow(values)) in weights.iter().zip(panel) {
                for (row, sums) in sums.iter_mut().enumerate() {
                    for (column, sum) in sums.iter_mut().enumerate() {
                        *sum += weights[first_row + row] * values[first + column];
                    }
                }
            }
            for (result, sums) in result[first_row..].iter_mut().zip(&sums) {
                result[first..][..F64_WIDTH].copy_from_slice(sums);
            }
        }
    }
}

/// Convolves `x` `[batch, in_channels, height, width]` with `weight` `[out_channels, in_channels, kernel, kernel]` and
/// adds `bias` `[out_channels]`: `[batch, out_channels, output_height, output_width]`.
///
/// # Panics
/// If a slice has fewer values than `shape` says.
pub fn forward<T: Element>(x: &[T], weight: &[f32], bias: &[f32], shape: &ConvShape) -> Vec<T> {
    let (plane, depth) = (shape.output_height() * shape.output_width(), shape.depth());
    let mut y = T::zeros(shape.batch * shape.out_channels * plane);
    let image = shape.in_channels * shape.height * shape.width;
    if y.is_empty() || image == 0 {
        return y;
    }
    let tiles = pack_weights(weight, depth);
    let strip = (MAX_STRIP / (depth * WIDTH)).clamp(1, plane.div_ceil(WIDTH));
    let mut panels = vec![PanelRow([T::default(); WIDTH]); strip * depth];
    for (x, y) in x.chunks_exact(image).zip(y.chunks_exact_mut(shape.out_channels * plane)) {
        for first in (0..plane).step_by(strip * WIDTH) {
            let panels = &mut panels[..(plane - first).div_ceil(WIDTH).min(strip) * depth];
            let pack = |(panel, packed): (usize, &mut [_])| pack_columns(x, shape, first + panel * WIDTH, packed);
            panels.par_chunks_exact_mut(depth).enumerate().for_each(pack);
            let channels = y.par_chunks_mut(ROWS * plane).zip(tiles.par_chunks_exact(depth)).enumerate();
            channels.for_each(|(tile, (y, weights))| {
                for (panel, columns) in panels.chunks_exact(depth).enumerate() {
                    let mut sums = [[T::default(); WIDTH]; ROWS];
                    T::multiply_tile(weights, columns, &mut sums);
                    let start = first + panel * WIDTH;
                    let positions = start..plane.min(start + WIDTH);
                    for ((y, sums), &bias) in y.chunks_exact_mut(plane).zip(&sums).zip(&bias[tile * ROWS..]) {
                        y[positions.clone()].iter_mut().zip(sums).for_each(|(y, sum)| *y = *sum + bias.into());
                    }
                }
            });
        }
    }
    y
}

/// Packs the weights of [`ROWS`] output channels together, `[tiles, depth, ROWS]`. Missing channels are zero.
fn pack_weights<T: Element>(weight: &[f32], depth: usize) -> Vec<[T; ROWS]> {
    let n = weight.len() / depth;
    let mut packed = vec![[T::default(); ROWS]; n.div_ceil(ROWS) * depth];
    for (channel, weight) in weight.chunks_exact(depth).enumerate() {
        let tile = &mut packed[channel / ROWS * depth..][..depth];
        tile.iter_mut().zip(weight).for_each(|(packed, &value)| packed[channel % ROWS] = value.into());
    }
    packed
}

/// Packs the columns of [`WIDTH`] positions from `first` on: a row for each input channel and tap. What is beyond the
/// image, or no position, is zero.
fn pack_columns<T: Element>(x: &[T], shape: &ConvShape, first: usize, packed: &mut [PanelRow<T>]) {
    let (taps, plane) = (shape.kernel * shape.kernel, shape.height * shape.width);
    let is_plain = taps == 1 && shape.stride == 1 && first + WIDTH <= plane;
    for tap in 0..taps {
        let sources: [Option<usize>; WIDTH] = std::array::from_fn(|at| shape.source(first + at, tap));
        let rows = packed.iter_mut().skip(tap).step_by(taps);
        for (PanelRow(row), x) in rows.zip(x.chunks_exact(plane)) {
            if is_plain {
                row.copy_from_slice(&x[first..][..WIDTH]);
            } else {
                row.iter_mut().zip(sources).for_each(|(to, from)| *to = from.map(|from| x[from]).unwrap_or_default());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conv::conv3x3::{self, Conv3x3Shape};
    use crate::numerical_gradients::numbers;

    /// By the definition, in `f64`.
    fn reference(x: &[f32], weight: &[f32], bias: &[f32], shape: &ConvShape) -> Vec<f64> {
        let &ConvShape { batch, in_channels, out_channels, height, width, kernel, padding, stride } = shape;
        let left = usize::from(kernel == 3 && stride == 1);
        let mut y = Vec::new();
        for image in 0..batch {
            for output in 0..out_channels {
                for row in 0..shape.output_height() {
                    for column in 0..shape.output_width() {
                        let mut sum = f64::from(bias[output]);
                        for input in 0..in_channels {
                            for tap in 0..kernel * kernel {
                                let (from_row, from_column) =
                                    (row * stride + tap / kernel, column * stride + tap % kernel);
                                let inside = (padding.top..padding.top + height).contains(&from_row)
                                    && (left..left + width).contains(&from_column);
                                if inside {
                                    let plane = (image * in_channels + input) * height;
                                    let x = x[(plane + from_row - padding.top) * width + from_column - left];
                                    let weight = weight[(output * in_channels + input) * kernel * kernel + tap];
                                    sum += f64::from(x) * f64::from(weight);
                                }
                            }
                        }
                        y.push(sum);
                    }
                }
            }
        }
        y
    }

    #[test]
    fn matches_the_definition_in_both_types() {
        let none = RowPadding { top: 0, bottom: 0 };
        let both = RowPadding { top: 1, bottom: 1 };
        let shapes = [
            (1, [1, 1, 1, 1], none, 1),
            (1, [40, 9, 7, 13], none, 1),
            (1, [600, 20, 33, 64], none, 1),
            (3, [3, 5, 1, 1], both, 1),
            (3, [7, 17, 9, 5], both, 1),
            (3, [40, 8, 30, 11], both, 1),
            (3, [5, 6, 8, 6], RowPadding { top: 0, bottom: 1 }, 2),
            (3, [5, 6, 7, 7], RowPadding { top: 0, bottom: 1 }, 2),
            (3, [4, 3, 5, 9], RowPadding { top: 1, bottom: 0 }, 1),
        ];
        for (kernel, [in_channels, out_channels, height, width], padding, stride) in shapes {
            let shape = ConvShape { batch: 2, in_channels, out_channels, height, width, kernel, padding, stride };
            let x = numbers(2 * in_channels * height * width, 1);
            let (weight, bias) = (numbers(out_channels * shape.depth(), 2), numbers(out_channels, 3));
            let expected = reference(&x, &weight, &bias, &shape);
            let found = forward(&x, &weight, &bias, &shape);
            assert_eq!(found.len(), expected.len(), "{shape:?}");
            let tolerance = 2e-6 * (shape.depth() as f64).sqrt().max(8.0);
            for (found, expected) in found.iter().zip(&expected) {
                assert!((f64::from(*found) - expected).abs() < tolerance, "{shape:?}: {found} {expected}");
            }
            let wide: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
            for (found, expected) in forward(&wide, &weight, &bias, &shape).iter().zip(&expected) {
                assert!((found - expected).abs() < 1e-12 * shape.depth() as f64, "{shape:?}: {found} {expected}");
            }
            // An image alone.
            let alone = ConvShape { batch: 1, ..shape };
            assert_eq!(forward(&x[x.len() / 2..], &weight, &bias, &alone), found[found.len() / 2..]);
        }
    }

    /// The sizes are those of the kernel for wide images.
    #[test]
    fn sizes_are_those_of_the_other_kernel() {
        for (height, width, top, bottom, stride) in
            [(9, 12, 1, 1, 1), (8, 12, 0, 1, 2), (7, 13, 0, 1, 2), (1, 12, 0, 1, 1)]
        {
            let (in_channels, out_channels, padding) = (3, 2, RowPadding { top, bottom });
            let shape = ConvShape { batch: 1, in_channels, out_channels, height, width, kernel: 3, padding, stride };
            let (x, weight, bias) = (numbers(3 * height * width, 1), numbers(54, 2), numbers(2, 3));
            let other = Conv3x3Shape { batch: 1, in_channels, out_channels, height, width, padding, stride };
            let expected = conv3x3::forward(&x, &weight, Some(&bias), &other);
            let found = forward(&x, &weight, &bias, &shape);
            assert_eq!(found.len(), expected.len(), "{shape:?}");
            assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5), "{shape:?}");
        }
        let empty = ConvShape {
            batch: 1,
            in_channels: 2,
            out_channels: 3,
            height: 0,
            width: 4,
            kernel: 1,
            padding: RowPadding { top: 0, bottom: 0 },
            stride: 1,
        };
        assert!(forward::<f64>(&[], &[0.0; 6], &[0.0; 3], &empty).is_empty());
    }
}
