//! Additions to the residual stream with dropout, with gradients.

use std::sync::Arc;

use burn::tensor::{Bool, Tensor, TensorData};
use lumina_kernels::elementwise::dropout_add as cpu;

use super::kernel::{Array, Gradient, Kernel, Operand, View, operands, run};

/// `x + y · scale`, both `[n, hidden]`, where `kept` is not zero, and `x` elsewhere: the residual addition of `y` after
/// dropout.
///
/// `kept` has a byte for each value. With another number of them, everything is kept.
pub fn dropout_add(x: Tensor<2>, y: Tensor<2>, kept: Vec<u8>, scale: f64) -> Tensor<2> {
    let [n, width] = x.dims();
    if kept.len() != n * width || y.dims() != x.dims() {
        return x + y * scale;
    }
    match operands([Operand::of(&x), Operand::of(&y)]) {
        Some(operands) => run(DropoutAdd { kept: kept.into(), scale: scale as f32 }, operands),
        None => {
            let dropped: Vec<bool> = kept.into_iter().map(|kept| kept == 0).collect();
            let dropped = Tensor::<2, Bool>::from_data(TensorData::new(dropped, [n, width]), &x.device());
            x + y.mask_fill(dropped, 0.0) * scale
        }
    }
}

/// `x + y · scale` where `kept` is not zero.
#[derive(Debug, Clone)]
struct DropoutAdd {
    kept: Arc<[u8]>,
    scale: f32,
}

impl Kernel<2> for DropoutAdd {
    type Saved = ();

    fn forward(&self, [x, y]: [View<'_>; 2]) -> (Array, ()) {
        (x.like(cpu::forward(x.values, y.values, &self.kept, self.scale)), ())
    }

    fn backward(&self, _: [View<'_>; 2], (): (), dy: &[f32], _: [bool; 2]) -> [Option<Gradient>; 2] {
        [Some(Gradient::OfResult), Some(cpu::backward(dy, &self.kept, self.scale).into())]
    }
}
