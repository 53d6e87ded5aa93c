//! The gate of an MLP.

use burn::tensor::{Tensor, activation};

/// `silu(gate) · up`, both `[n, intermediate]`: SwiGLU (arXiv 2002.05202).
pub fn swiglu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    #[cfg(feature = "flex")]
    if let Some(y) = super::flex::swiglu(&gate, &up) {
        return y;
    }
    activation::silu(gate) * up
}
