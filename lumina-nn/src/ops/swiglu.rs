//! The gate of an MLP.

use burn::tensor::{Tensor, activation};

use super::hidden::{Hidden, Pair};
use lumina_kernels::elementwise::swiglu as swiglu_kernel;

/// `silu(gate) · up`, both `[n, intermediate]`: SwiGLU (arXiv 2002.05202).
pub fn swiglu(gate: Hidden, up: Hidden) -> Hidden {
    match gate.beside(up) {
        Pair::Host(gate, up) => {
            let mut y = gate.sibling(gate.width);
            swiglu_kernel::into(&gate.values, &up.values, &mut y.values);
            y.into()
        }
        Pair::Tensors(gate, up) => of_tensors(gate, up).into(),
    }
}

fn of_tensors(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    #[cfg(feature = "flex")]
    if let Some(y) = super::host::swiglu(&gate, &up) {
        return y;
    }
    activation::silu(gate) * up
}
