//! Rows of a matrix by index, with gradients.

use std::sync::Arc;

use burn::tensor::{Int, Tensor};

use super::kernel::{Array, Gradient, Kernel, Operand, View, operands, run};

/// The rows of `x` `[n, width]` that `indices` name, `[indices.len(), width]`. `None` where there is no such row.
pub fn gather(x: Tensor<2>, indices: &[u32]) -> Option<Tensor<2>> {
    let [n, width] = x.dims();
    if indices.iter().any(|&index| index as usize >= n) {
        return None;
    }
    let rows = match operands([Operand::of(&x)]) {
        Some(operands) => run(Gather { indices: indices.into(), width }, operands),
        None => select(x, indices.iter().map(|&index| index as i32)),
    };
    Some(rows)
}

/// Rows of `x` by Burn's own operation.
pub(in crate::ops) fn select(x: Tensor<2>, indices: impl Iterator<Item = i32>) -> Tensor<2> {
    let indices: Vec<i32> = indices.collect();
    let indices = Tensor::<1, Int>::from_data(indices.as_slice(), &x.device());
    x.select(0, indices)
}

/// The rows of `indices`.
#[derive(Debug, Clone)]
struct Gather {
    indices: Arc<[u32]>,
    width: usize,
}

impl Kernel<1> for Gather {
    type Saved = ();

    fn forward(&self, [x]: [View<'_>; 1]) -> (Array, ()) {
        let mut rows = Vec::with_capacity(self.indices.len() * self.width);
        for &index in &*self.indices {
            rows.extend_from_slice(&x.values[index as usize * self.width..][..self.width]);
        }
        (Array { values: rows, shape: vec![self.indices.len(), self.width] }, ())
    }

    fn backward(&self, [x]: [View<'_>; 1], (): (), dy: &[f32], _: [bool; 1]) -> [Option<Gradient>; 1] {
        let mut dx = vec![0.0; x.values.len()];
        for (&index, dy) in self.indices.iter().zip(dy.chunks_exact(self.width.max(1))) {
            let to = &mut dx[index as usize * self.width..][..self.width];
            to.iter_mut().zip(dy).for_each(|(to, dy)| *to += dy);
        }
        [Some(dx.into())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_copied_and_their_gradients_are_summed() {
        let values: Vec<f32> = (0..6).map(|value| value as f32).collect();
        let inputs = [View { values: &values, shape: &[3, 2] }];
        let kernel = Gather { indices: [2, 0, 2].into(), width: 2 };
        let (y, ()) = kernel.forward(inputs);
        assert_eq!(y.values, [4.0, 5.0, 0.0, 1.0, 4.0, 5.0]);
        let [dx] = kernel.backward(inputs, (), &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [true]);
        let Some(Gradient::Values(dx)) = dx else { panic!("it is wanted") };
        assert_eq!(dx, [3.0, 4.0, 0.0, 0.0, 6.0, 8.0]);
    }
}
