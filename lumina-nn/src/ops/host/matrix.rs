//! A weight matrix in host memory, and its products.

use std::ops::Range;

use bytes::Bytes;
use lumina_kernels::{ActivationPrecision, Format, Matmul, MatmulTask, Matrix};
use smallvec::SmallVec;

use super::HostRows;

/// A matrix `[rows, columns]` in one of the formats that kernels read, memory-mapped or on the heap. Cloning it copies
/// no weight.
#[derive(Clone)]
pub struct HostMatrix {
    rows: usize,
    columns: usize,
    format: Format,
    activations: ActivationPrecision,
    bytes: Bytes,
}

impl HostMatrix {
    /// The matrix in `bytes`, or `None` where `shape` is not `[rows, columns]` of so many bytes.
    ///
    /// With 8- and 4-bit weights, whose own error is larger, activations are rounded to bytes in any case, which is
    /// several times as fast. With the others `activations` says how they are rounded.
    pub fn new(format: Format, shape: &[usize], bytes: Bytes, activations: ActivationPrecision) -> Option<Self> {
        let &[rows, columns] = shape else { return None };
        Matrix::new(format, rows, columns, &bytes).ok()?;
        let activations = match format {
            Format::Q8_0 | Format::Q4_0 => ActivationPrecision::Reduced,
            _ => activations,
        };
        Some(Self { rows, columns, format, activations, bytes })
    }

    /// None, in place of a tensor that a checkpoint lacks.
    pub(crate) fn missing() -> Self {
        let (format, activations) = (Format::F32, ActivationPrecision::F32);
        Self { rows: 0, columns: 0, format, activations, bytes: Bytes::new() }
    }

    /// Number of rows: outputs of a linear layer, entries of an embedding.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns: inputs of a linear layer, width of an embedding.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The format of the elements.
    pub fn format(&self) -> Format {
        self.format
    }

    fn matrix(&self) -> Matrix<'_> {
        Matrix::new(self.format, self.rows, self.columns, &self.bytes).expect("it was one when this was made")
    }

    /// Writes row `row`, one of [`HostMatrix::rows`], to `values` `[columns]`.
    pub(in crate::ops) fn read_row(&self, row: usize, values: &mut [f32]) {
        let bytes = self.matrix().row(row);
        self.format.dequantise_row(bytes, values).expect("a row of the matrix, and room for its columns");
    }

    /// The products of `x` `[n, columns]` with some rows of each matrix, `[n, rows]`. The matrices have equal columns.
    pub(in crate::ops) fn matmul<const N: usize>(x: &HostRows, weights: [(&Self, Range<usize>); N]) -> [HostRows; N] {
        let columns = weights.first().map_or(0, |(weight, _)| weight.columns);
        let mut results = weights.each_ref().map(|(_, rows)| x.sibling(rows.len()));
        for activations in [ActivationPrecision::F32, ActivationPrecision::Reduced] {
            let wanted = weights.iter().zip(&mut results).filter(|((weight, _), _)| weight.activations == activations);
            let products = wanted.map(|((weight, rows), y)| {
                MatmulTask::new(weight.matrix().rows_from(rows.start, rows.len()), &mut y.values)
            });
            let mut products: SmallVec<[MatmulTask<'_>; 3]> = products.collect();
            if !products.is_empty() {
                let done = Matmul::new(activations).run_shared(&x.values, columns, &mut products);
                done.expect("`x` is `[n, columns]`, and each result `[n, rows]`");
            }
        }
        results
    }
}

impl std::fmt::Debug for HostMatrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostMatrix")
            .field("format", &self.format)
            .field("rows", &self.rows)
            .field("columns", &self.columns)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::ops::host::buffer::Buffers;

    fn values(n: usize, seed: u32) -> Vec<f32> {
        lumina_testing::lcg(seed).take(n).map(|state| (state >> 8) as f32 / (1 << 24) as f32 - 0.5).collect()
    }

    fn matrix(rows: usize, columns: usize, format: Format) -> HostMatrix {
        let row_bytes = format.row_bytes(columns).unwrap();
        let mut bytes = vec![0; rows * row_bytes];
        for (row, bytes) in values(rows * columns, 7).chunks(columns).zip(bytes.chunks_mut(row_bytes)) {
            format.quantise_row(row, bytes).unwrap();
        }
        HostMatrix::new(format, &[rows, columns], bytes.into(), ActivationPrecision::F32).unwrap()
    }

    /// The products of rows of `columns`.
    fn products<const N: usize>(x: &[f32], columns: usize, weights: [(&HostMatrix, Range<usize>); N]) -> [Vec<f32>; N] {
        let x = HostRows { values: Arc::new(Buffers::default()).adopt(x.to_vec()), width: columns };
        HostMatrix::matmul(&x, weights).map(|y| y.values.to_vec())
    }

    /// Products in `f64` with the rows as they are read.
    fn reference(x: &[f32], w: &HostMatrix) -> Vec<f32> {
        let mut row = vec![0.0; w.columns()];
        let mut result = Vec::new();
        for x in x.chunks_exact(w.columns()) {
            for index in 0..w.rows() {
                w.read_row(index, &mut row);
                result.push(x.iter().zip(&row).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>() as f32);
            }
        }
        result
    }

    #[test]
    fn formats_side_by_side_have_the_products_of_their_rows() {
        let (n, columns) = (3, 288);
        let x = values(n * columns, 3);
        let (a, b, c) =
            (matrix(5, columns, Format::Q4_0), matrix(37, columns, Format::F32), matrix(16, columns, Format::Q8_0));
        let results = products(&x, columns, [&a, &b, &c].map(|w| (w, 0..w.rows())));
        for (found, w) in results.iter().zip([&a, &b, &c]) {
            // Activations in bytes: each is off by up to a 254th of the largest, 0.5, beside weights of up to 0.5.
            let tolerance = if w.format() == Format::F32 { 1e-4 } else { 0.5 / 254.0 * 0.5 * columns as f32 / 4.0 };
            for (found, expected) in found.iter().zip(reference(&x, w)) {
                assert!((found - expected).abs() <= tolerance, "{}: {found} {expected}", w.format());
            }
        }
    }

    #[test]
    fn some_rows_are_those_of_the_whole_to_the_bit() {
        for format in [Format::F32, Format::BF16, Format::Q8_0, Format::Q4_0] {
            let (n, w) = (2, matrix(100, 96, format));
            let x = values(n * 96, 5);
            let [whole] = products(&x, 96, [(&w, 0..100)]);
            let [part] = products(&x, 96, [(&w, 13..58)]);
            for (part, whole) in part.chunks(45).zip(whole.chunks(100)) {
                assert_eq!(part, &whole[13..58], "{format}");
            }
        }
    }

    #[test]
    fn bytes_of_another_length_are_no_matrix() {
        let bytes = Bytes::from(vec![0; 36]);
        let new = |shape: &[usize], bytes| HostMatrix::new(Format::Q4_0, shape, bytes, ActivationPrecision::F32);
        assert!(new(&[2, 32], bytes.clone()).is_some());
        assert!(new(&[3, 32], bytes.clone()).is_none());
        assert!(new(&[2, 33], bytes.clone()).is_none());
        assert!(new(&[64], bytes).is_none());
    }

    #[test]
    fn nothing_in_nothing_out() {
        let w = matrix(3, 4, Format::F32);
        assert_eq!(products(&[], 4, [(&w, 0..3)]), [Vec::<f32>::new()]);
    }
}
