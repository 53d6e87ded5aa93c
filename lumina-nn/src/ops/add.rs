//! Additions to the residual stream.

use burn::tensor::{Bool, Tensor, TensorData};

/// `x + y · scale`, both `[n, hidden]`, where `kept` is not zero, and `x` elsewhere: what dropout leaves of `y`, added.
///
/// `kept` has a byte for each value; with another number of them everything is kept.
pub fn add_kept(x: Tensor<2>, y: Tensor<2>, kept: Vec<u8>, scale: f64) -> Tensor<2> {
    let [n, width] = x.dims();
    if kept.len() != n * width || y.dims() != x.dims() {
        return x + y * scale;
    }
    #[cfg(feature = "flex")]
    let kept = match super::host::add_kept(&x, &y, kept, scale) {
        Ok(sum) => return sum,
        Err(kept) => kept,
    };
    let dropped: Vec<bool> = kept.into_iter().map(|kept| kept == 0).collect();
    let dropped = Tensor::<2, Bool>::from_data(TensorData::new(dropped, [n, width]), &x.device());
    x + y.mask_fill(dropped, 0.0) * scale
}
