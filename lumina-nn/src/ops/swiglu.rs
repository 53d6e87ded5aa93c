//! The gate of an MLP.

use lumina_kernels::elementwise::swiglu as kernel;

use super::hidden::{Hidden, Pair};

/// `silu(gate) · up`, both `[n, intermediate]`: SwiGLU (arXiv 2002.05202).
pub fn swiglu(gate: Hidden, up: Hidden) -> Hidden {
    match gate.pair(up) {
        Pair::Host(gate, up) => {
            let mut y = gate.sibling(gate.width);
            kernel::forward_into(&gate.values, &up.values, &mut y.values);
            y.into()
        }
        #[cfg(feature = "cube")]
        Pair::Gpu(gate, up) => {
            gate.with(lumina_cube::elementwise::swiglu(&gate.gpu, &gate.values, &up.values), gate.width).into()
        }
        #[cfg(feature = "burn")]
        Pair::Burn(gate, up) => super::burn::swiglu(gate, up).into(),
    }
}
