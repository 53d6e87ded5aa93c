//! What else a layer of the transformer consists of: products, the gate, and additions to the residual stream.

use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;
use lumina_kernels::{Activations, Format, Kernels, Matrix};
use rayon::prelude::*;

use super::{Kernel, Operand, run, tensor, tensor_like, values};
use crate::ops::{add_kernel, swiglu_kernel};

pub(in crate::ops) fn swiglu(gate: &Tensor<2>, up: &Tensor<2>) -> Option<Tensor<2>> {
    if gate.dims() != up.dims() {
        return None;
    }
    run(SwiGlu, [Operand::of(gate)?, Operand::of(up)?])
}

#[derive(Debug, Clone)]
struct SwiGlu;

impl Kernel<2> for SwiGlu {
    type Saved = ();

    fn forward(&self, [gate, up]: &[FlexTensor; 2]) -> (FlexTensor, ()) {
        (tensor_like(swiglu_kernel::forward(values(gate), values(up)), gate), ())
    }

    fn backward(&self, [gate, up]: &[FlexTensor; 2], (): (), dy: FlexTensor, _: [bool; 2]) -> [Option<FlexTensor>; 2] {
        let (of_gate, of_up) = swiglu_kernel::backward(values(gate), values(up), values(&dy));
        [Some(tensor_like(of_gate, gate)), Some(tensor_like(of_up, up))]
    }
}

/// Gives `kept` back where the tensors are not of this backend.
pub(in crate::ops) fn add_kept(x: &Tensor<2>, y: &Tensor<2>, kept: Vec<u8>, scale: f64) -> Result<Tensor<2>, Vec<u8>> {
    let (Some(a), Some(b)) = (Operand::of(x), Operand::of(y)) else { return Err(kept) };
    if a.is_recorded() != b.is_recorded() {
        return Err(kept);
    }
    let kernel = AddKept { kept: kept.into(), scale: scale as f32 };
    Ok(run(kernel, [a, b]).expect("both record gradients or both do not"))
}

#[derive(Debug, Clone)]
struct AddKept {
    kept: std::sync::Arc<[u8]>,
    scale: f32,
}

impl Kernel<2> for AddKept {
    type Saved = ();

    fn forward(&self, [x, y]: &[FlexTensor; 2]) -> (FlexTensor, ()) {
        (tensor_like(add_kernel::forward(values(x), values(y), &self.kept, self.scale), x), ())
    }

    fn backward(&self, [x, _]: &[FlexTensor; 2], (): (), dy: FlexTensor, _: [bool; 2]) -> [Option<FlexTensor>; 2] {
        let of_y = add_kernel::backward(values(&dy), &self.kept, self.scale);
        [Some(dy), Some(tensor_like(of_y, x))]
    }
}

pub(in crate::ops) fn linear(x: &Tensor<2>, weight: &Tensor<2>) -> Option<Tensor<2>> {
    run(Linear, [Operand::of(x)?, Operand::of(weight)?])
}

/// Products of the kernels' crate, whose sums run along the rows of both sides. On the way back they run across them, so
/// the sides are turned over first, which costs little beside the product.
#[derive(Debug, Clone)]
struct Linear;

impl Kernel<2> for Linear {
    type Saved = ();

    fn forward(&self, [x, weight]: &[FlexTensor; 2]) -> (FlexTensor, ()) {
        let [[n, inputs], [outputs, _]] = [x, weight].map(dims);
        (tensor(product(values(x), values(weight), inputs), &[n, outputs]), ())
    }

    fn backward(
        &self,
        [x, weight]: &[FlexTensor; 2],
        (): (),
        dy: FlexTensor,
        [of_x, of_weight]: [bool; 2],
    ) -> [Option<FlexTensor>; 2] {
        let [[n, inputs], [outputs, _]] = [x, weight].map(dims);
        let dy = values(&dy);
        [
            of_x.then(|| {
                let weight = turned(values(weight), [outputs, inputs]);
                tensor(product(dy, &weight, outputs), &[n, inputs])
            }),
            of_weight.then(|| {
                let (dy, x) = (turned(dy, [n, outputs]), turned(values(x), [n, inputs]));
                tensor(product(&dy, &x, n), &[outputs, inputs])
            }),
        ]
    }
}

fn dims(tensor: &FlexTensor) -> [usize; 2] {
    let shape = tensor.layout().shape();
    [shape[0], shape[1]]
}

/// `a · bᵀ` of rows of `width`.
fn product(a: &[f32], b: &[f32], width: usize) -> Vec<f32> {
    let rows = |values: &[f32]| values.len().checked_div(width).unwrap_or(0);
    let mut y = vec![0.0; rows(a) * rows(b)];
    let multiplied = Matrix::new(Format::F32, rows(b), width, bytemuck::cast_slice(b))
        .and_then(|b| Kernels::new(Activations::Full).matmul(a, b, &mut y));
    multiplied.expect("Burn's shapes say how many values there are");
    y
}

/// A matrix `[rows, columns]` as `[columns, rows]`, in squares that fit the first cache.
fn turned(values: &[f32], [rows, columns]: [usize; 2]) -> Vec<f32> {
    const SIDE: usize = 32;
    let mut to = vec![0.0; values.len()];
    to.par_chunks_mut((SIDE * rows).max(1)).enumerate().for_each(|(band, to)| {
        let first = band * SIDE;
        for from in (0..rows).step_by(SIDE) {
            for (column, to) in to.chunks_exact_mut(rows).enumerate() {
                let end = rows.min(from + SIDE);
                for (row, value) in (from..end).zip(&mut to[from..end]) {
                    *value = values[row * columns + first + column];
                }
            }
        }
    });
    to
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turning_over_moves_rows_to_columns() {
        for [rows, columns] in [[1, 1], [3, 70], [65, 33], [40, 0], [0, 5]] {
            let values: Vec<f32> = (0..rows * columns).map(|value| value as f32).collect();
            let to = turned(&values, [rows, columns]);
            for (at, value) in values.iter().enumerate() {
                assert_eq!(to[at % columns * rows + at / columns], *value);
            }
            assert_eq!(to.len(), values.len());
        }
    }
}
