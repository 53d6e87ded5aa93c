//! SwiGLU on tensors.

use burn::tensor::{Tensor, activation};
use lumina_kernels::elementwise::swiglu as cpu;

use super::kernel::{Array, Gradient, Kernel, Operand, View, operands, run};

/// `silu(gate) · up`.
pub(in crate::ops) fn swiglu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    let fits = gate.dims() == up.dims();
    match operands([Operand::of(&gate), Operand::of(&up)]).filter(|_| fits) {
        Some(operands) => run(SwiGlu, operands),
        None => activation::silu(gate) * up,
    }
}

#[derive(Debug, Clone)]
struct SwiGlu;

impl Kernel<2> for SwiGlu {
    type Saved = ();

    fn forward(&self, [gate, up]: [View<'_>; 2]) -> (Array, ()) {
        (gate.like(cpu::forward(gate.values, up.values)), ())
    }

    fn backward(&self, [gate, up]: [View<'_>; 2], (): (), dy: &[f32], _: [bool; 2]) -> [Option<Gradient>; 2] {
        let cpu::SwigluGradients { dgate, dup } = cpu::backward(gate.values, up.values, dy);
        [Some(dgate.into()), Some(dup.into())]
    }
}
