//! One step of Muon on one matrix.

use burn::tensor::{Tensor, TensorData};
use lumina_kernels::optim::muon as kernel;
pub use lumina_kernels::optim::muon::MuonStep;

use super::kernel::{Constant, InPlace};

/// The weight and the sum of gradients `[values]` after a step, neither of them recording gradients. Without a sum it
/// begins at zero. The weight is a matrix.
///
/// On the CPU, a sum that nothing else holds is written in place.
pub fn muon<const D: usize>(
    weight: Tensor<D>,
    gradient: Tensor<D>,
    sum: Option<Tensor<1>>,
    step: &MuonStep,
) -> (Tensor<D>, Tensor<1>) {
    let sides = [weight.dims()[0], weight.dims()[D - 1]];
    let n = sides[0] * sides[1];
    let fits = |sum: &Tensor<1>| InPlace::is_possible(sum, n);
    match (Constant::unrecorded(&weight), Constant::unrecorded(&gradient)) {
        (Some(values), Some(gradients)) if gradients.values().len() == n && sum.as_ref().is_none_or(fits) => {
            let mut sum = InPlace::or_zeros(sum, &values);
            let updated = kernel::update(values.values(), gradients.values(), sum.values_mut(), sides, step);
            let updated = Tensor::from_data(TensorData::new(updated, weight.shape()), &weight.device());
            (updated, sum.into_tensor())
        }
        _ => composed(weight, gradient, sum, sides, step),
    }
}

fn composed<const D: usize>(
    weight: Tensor<D>,
    gradient: Tensor<D>,
    sum: Option<Tensor<1>>,
    sides: [usize; 2],
    step: &MuonStep,
) -> (Tensor<D>, Tensor<1>) {
    let shape = weight.shape();
    let gradient: Tensor<1> = gradient.flatten(0, D - 1);
    let sum = match sum {
        Some(sum) => sum * step.momentum + gradient.clone(),
        None => gradient.clone(),
    };
    let ahead: Tensor<2> = (sum.clone() * step.momentum + gradient).reshape(sides);
    let update = orthogonalized(ahead, sides) * step.step_size(sides);
    (weight * step.decay_factor() - update.reshape(shape), sum)
}

/// The matrix with all singular values about 1.
fn orthogonalized(matrix: Tensor<2>, sides: [usize; 2]) -> Tensor<2> {
    let [first, third, fifth] = kernel::FACTORS;
    let is_tall = sides[0] > sides[1];
    let matrix = if is_tall { matrix.transpose() } else { matrix };
    let norm = matrix.clone().square().sum().sqrt().clamp_min(kernel::MIN_NORM);
    let mut matrix = matrix / norm.unsqueeze();
    for _ in 0..kernel::ITERATIONS {
        let pairs = matrix.clone().matmul(matrix.clone().transpose());
        let factor = pairs.clone() * third + pairs.clone().matmul(pairs) * fifth;
        matrix = matrix.clone() * first + factor.matmul(matrix);
    }
    if is_tall { matrix.transpose() } else { matrix }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;
    use lumina_testing::numbers;

    /// What other backends compute is what the kernel computes.
    #[test]
    fn the_kernel_and_the_composition_agree() {
        let device = Device::flex();
        let step = MuonStep { learning_rate: 0.02, weight_decay: 0.1, momentum: 0.9 };
        for sides in [[5, 3], [4, 4], [6, 20]] {
            let matrix =
                |seed| Tensor::<2>::from_data(TensorData::new(numbers(sides[0] * sides[1], seed), sides), &device);
            let both: [fn(_, _, _, [usize; 2], &MuonStep) -> _; 2] =
                [|weight, gradient, sum, _, step| muon::<2>(weight, gradient, sum, step), composed::<2>];
            let [kernel, composed] = both.map(|step_of| {
                let (weight, sum) = step_of(matrix(1), matrix(2), None, sides, &step);
                let (weight, sum) = step_of(weight, matrix(3), Some(sum), sides, &step);
                let values = [weight.flatten::<1>(0, 1), sum].map(|tensor| tensor.into_data().try_to_vec::<f32>());
                values.map(Result::unwrap).concat()
            });
            for (kernel, composed) in kernel.iter().zip(&composed) {
                assert!((kernel - composed).abs() < 2e-5, "{kernel} {composed}");
            }
        }
    }
}
