//! Rows of a matrix by index.

use burn::tensor::{Int, Tensor};

use super::burn::Gather;
use super::burn::kernel::{Operand, operands, run};

/// The rows of `x` `[n, width]` that `indices` name, `[indices.len(), width]`. `None` where there is no such row.
pub fn gather(x: Tensor<2>, indices: &[u32]) -> Option<Tensor<2>> {
    let [n, width] = x.dims();
    if indices.iter().any(|&index| index as usize >= n) {
        return None;
    }
    let rows = match operands([Operand::of(&x)]) {
        Some(operands) => run(Gather { indices: indices.into(), width }, operands),
        None => {
            let indices: Vec<i32> = indices.iter().map(|&index| index as i32).collect();
            let indices = Tensor::<1, Int>::from_data(indices.as_slice(), &x.device());
            x.select(0, indices)
        }
    };
    Some(rows)
}
