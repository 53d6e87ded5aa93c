//! Rows of a matrix by index.

use burn::tensor::{Int, Tensor};

/// The rows of `x` `[n, width]` that `indices` name, `[indices.len(), width]`; `None` where there is no such row.
pub fn gather(x: Tensor<2>, indices: &[u32]) -> Option<Tensor<2>> {
    let [n, _] = x.dims();
    if indices.iter().any(|&index| index as usize >= n) {
        return None;
    }
    #[cfg(feature = "flex")]
    if let Some(rows) = super::host::gather(&x, indices) {
        return Some(rows);
    }
    let indices: Vec<i32> = indices.iter().map(|&index| index as i32).collect();
    let indices = Tensor::<1, Int>::from_data(indices.as_slice(), &x.device());
    Some(x.select(0, indices))
}
