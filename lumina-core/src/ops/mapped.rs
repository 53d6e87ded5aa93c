//! A weight matrix that stays where the checkpoint's mapping has it.

use burn::module::Module;
use bytes::Bytes;
use half::f16;

use crate::checkpoint::{Dtype, TensorView};

/// A matrix `[rows, columns]` in the type and place in which the checkpoint stores it; cloning it copies no weight.
#[derive(Module, Debug)]
pub struct MappedMatrix {
    rows: usize,
    columns: usize,
    #[module(skip)]
    dtype: Dtype,
    #[module(skip)]
    bytes: Bytes,
}

impl MappedMatrix {
    /// The matrix in a view, or `None` where the view is not a matrix of `f32`, `f16` or `bf16`.
    pub fn new(view: &TensorView) -> Option<Self> {
        let &[rows, columns] = view.shape() else { return None };
        let width = match view.dtype() {
            Dtype::F32 => 4,
            Dtype::F16 | Dtype::BF16 => 2,
            _ => return None,
        };
        let complete = rows.checked_mul(columns)?.checked_mul(width)? == view.bytes().len();
        complete.then(|| Self { rows, columns, dtype: view.dtype(), bytes: view.bytes().clone() })
    }

    #[cfg(test)]
    pub(super) fn from_parts(rows: usize, columns: usize, dtype: Dtype, bytes: Bytes) -> Self {
        Self { rows, columns, dtype, bytes }
    }

    /// Number of rows: outputs of a linear layer, entries of an embedding.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns: inputs of a linear layer, width of an embedding.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Widens elements `start..start + out.len()` of row `row` to `f32`.
    #[inline(always)]
    pub(super) fn widen(&self, row: usize, start: usize, out: &mut [f32]) {
        let from = row * self.columns + start;
        let elements = from..from + out.len();
        match self.dtype {
            Dtype::F32 => {
                let bytes = &self.bytes[elements.start * 4..elements.end * 4];
                for (value, chunk) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                    *value = f32::from_le_bytes(*chunk);
                }
            }
            Dtype::BF16 => {
                let bytes = &self.bytes[elements.start * 2..elements.end * 2];
                for (value, chunk) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *value = f32::from_bits(u32::from(u16::from_le_bytes(*chunk)) << 16);
                }
            }
            _ => {
                let bytes = &self.bytes[elements.start * 2..elements.end * 2];
                for (value, chunk) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *value = f16::from_le_bytes(*chunk).to_f32();
                }
            }
        }
    }
}
