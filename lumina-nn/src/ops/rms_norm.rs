//! RMS norm, alone and after a residual addition.

use lumina_kernels::norm::rms_norm as kernel;

use super::hidden::{Activation, Hidden};
use super::host::HostRows;
use super::values::Values;

/// RMS norm over the last axis of `x` `[n, hidden]`, times `weight` `[hidden]`: the same shape.
///
/// `x / √(mean(x²) + epsilon) · weight`, rounded as the original does: all in `f32`, once to the type of `x`, then
/// times the weight in that type. Mirrors `modeling_chameleon.py::ChameleonRMSNorm`.
pub fn rms_norm(x: &Hidden, weight: &Values<1>, epsilon: f64) -> Hidden {
    match (&x.0, weight.slice()) {
        (Activation::Host(x), Some(weight)) => on_host(x, weight, epsilon).into(),
        #[cfg(feature = "cube")]
        (Activation::Gpu(x), _) if let Some(weight) = weight.buffer() => {
            x.with(lumina_cube::norm::rms_norm(&x.gpu, &x.values, weight, epsilon as f32), x.width).into()
        }
        _ => in_tensors!(x => super::burn::rms_norm(x, weight, epsilon)),
    }
}

/// `s = x + y`, all `[n, hidden]`, and the RMS norm of `s`: both.
///
/// What ends a block of the transformer and begins the next one, in one pass over memory where a kernel fuses them. The
/// results are those of the addition and [`rms_norm`], to the bit.
pub fn add_rms_norm(x: Hidden, y: Hidden, weight: &Values<1>, epsilon: f64) -> (Hidden, Hidden) {
    match (x.0, y.0, weight.slice()) {
        (Activation::Host(mut x), Activation::Host(y), Some(weight)) => {
            let mut normed = x.sibling(x.width);
            let mut inverse_rms = x.sibling(1).values;
            let inputs = kernel::AddRmsNorm { y: &y.values, weight, epsilon: epsilon as f32 };
            kernel::add_forward_into(&mut x.values, inputs, &mut normed.values, &mut inverse_rms);
            (x.into(), normed.into())
        }
        #[cfg(feature = "cube")]
        (Activation::Gpu(x), Activation::Gpu(y), _) if let Some(weight) = weight.buffer() => {
            let both = lumina_cube::norm::add_rms_norm(&x.gpu, &x.values, &y.values, weight, epsilon as f32);
            let [sum, normed] = both.map(|values| x.with(values, x.width).into());
            (sum, normed)
        }
        (x, y, _) => {
            let sum = Hidden(x) + Hidden(y);
            let normed = rms_norm(&sum, weight, epsilon);
            (sum, normed)
        }
    }
}

fn on_host(x: &HostRows, weight: &[f32], epsilon: f64) -> HostRows {
    let mut y = x.sibling(x.width);
    let mut inverse_rms = x.sibling(1).values;
    kernel::forward_into(&x.values, weight, epsilon as f32, &mut y.values, &mut inverse_rms);
    y
}
