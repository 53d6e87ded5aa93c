//! All gradients of a network together: their norm, and clipping by it.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use lumina_nn::ops::{read, square_sum};

use crate::Result;

/// The norm of all gradients together.
///
/// # Errors
/// [`Error::Nn`](crate::Error::Nn) where the device fails.
pub fn global_norm(model: &impl Module, gradients: &GradientsParams) -> Result<f64> {
    struct Squares<'a> {
        gradients: &'a GradientsParams,
        sums: Vec<Tensor<1>>,
    }
    impl ModuleVisitor for Squares<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(gradient) = self.gradients.get::<D>(param.id) {
                self.sums.push(square_sum(gradient));
            }
        }
    }
    let mut squares = Squares { gradients, sums: Vec::new() };
    model.visit(&mut squares);
    if squares.sums.is_empty() {
        return Ok(0.0);
    }
    let sums = read(Tensor::cat(squares.sums, 0))?;
    Ok(sums.into_iter().map(f64::from).sum::<f64>().sqrt())
}

/// The gradients times `factor`.
pub fn scale(model: &impl Module, gradients: GradientsParams, factor: f64) -> GradientsParams {
    if factor == 1.0 {
        return gradients;
    }
    struct Scale {
        from: GradientsParams,
        to: GradientsParams,
        factor: f64,
    }
    impl ModuleVisitor for Scale {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(gradient) = self.from.remove::<D>(param.id) {
                self.to.register(param.id, gradient * self.factor);
            }
        }
    }
    let mut scale = Scale { from: gradients, to: GradientsParams::new(), factor };
    model.visit(&mut scale);
    scale.to
}

/// The factor that brings gradients of norm `norm` to a norm of `max` at most.
///
/// Mirrors `torch.nn.utils.clip_grad_norm_`.
pub fn clip_factor(norm: f64, max: f64) -> f64 {
    (max / (norm + 1e-6)).min(1.0)
}
