//! Gradients against central differences of the loss.

use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::tensor::{Tensor, TensorData};
use lumina_mgpt::{Dropout, Transformer};
use lumina_nn::Compute;
use lumina_testing::lcg;
use lumina_train::fine_tune::{ActivationMemory, LossOptions, NewModel, Trainable, gradients};

use crate::small::{Sequence, by_name, folder_of, shape};

/// The model with `by` added to one parameter.
fn with_added(model: &Transformer, parameter: ParamId, by: &[f32]) -> Transformer {
    struct Add<'a>(ParamId, &'a [f32]);
    impl ModuleMapper for Add<'_> {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let (id, tensor, mapper) = param.consume();
            if id != self.0 {
                return Param::from_mapped_value(id, tensor, mapper);
            }
            let tensor = tensor.inner();
            let by = Tensor::from_data(TensorData::new(self.1.to_vec(), tensor.dims()), &tensor.device());
            Param::from_mapped_value(id, Tensor::from_inner(tensor + by).require_grad(), mapper)
        }
    }
    model.clone().map(&mut Add(parameter, by))
}

/// Central differences in f32. The loss, near 8, is exact to some 1e-6. Steps change it by 0.02, or are of 0.01 where
/// that changes it less: so differences are off by 1e-4 of themselves, or by 1e-4, plus the loss' curvature over a
/// step, some tenths of a percent. A wrong formula is off by the gradient's size: entries of 1e-2, norms of 1e-1 and
/// more.
#[test]
fn gradients_are_the_numerical_gradients_of_the_loss() {
    for swin_norm in [false, true] {
        let (_folder, model) = folder_of(&NewModel { swin_norm, ..shape() });
        let trainable = Trainable::open(&model, &Compute::cpu()).unwrap();
        let sequences = [Sequence::new(1, 7, 2), Sequence::new(2, 4, 1)];
        let batch = sequences.each_ref().map(Sequence::example);
        let (dropout, activation_memory) = (Dropout::new(0.2, 3, 4), ActivationMemory::Keep);
        let options = LossOptions { z_loss_weight: 0.01, dropout, activation_memory };
        let (_, grads) = gradients(&trainable.model, &batch, &options).unwrap();
        let grads = by_name(&trainable, &grads);
        assert_eq!(grads.len(), trainable.names.len());
        let numerical_gradient = |parameter, direction: &[f32], expected: f64| {
            let step = (0.02 / expected.abs()).min(0.01) as f32;
            let loss = |by: f32| {
                let by: Vec<f32> = direction.iter().map(|value| by * value).collect();
                gradients(&with_added(&trainable.model, parameter, &by), &batch, &options).unwrap().0.total
            };
            (loss(step) - loss(-step)) / f64::from(2.0 * step)
        };
        for (&id, name) in &trainable.names {
            let grad = &grads[name];
            let norm = grad.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
            assert!(norm > 1e-3, "{name}: a gradient of norm {norm}");
            // All entries together: along the gradient, the derivative is its norm.
            let unit: Vec<f32> = grad.iter().map(|&value| value / norm as f32).collect();
            let found = numerical_gradient(id, &unit, norm);
            assert!(
                (found - norm).abs() <= 0.01 * norm + 1e-4,
                "{name}: {found} along the gradient, whose norm is {norm}"
            );
            // The largest, and some others.
            let mut order: Vec<usize> = (0..grad.len()).collect();
            order.sort_by(|&a, &b| grad[b].abs().total_cmp(&grad[a].abs()));
            let others = lcg(5).take(2).map(|state| (state >> 8) as usize % grad.len());
            for index in order[..2].iter().copied().chain(others) {
                let mut direction = vec![0.0; grad.len()];
                direction[index] = 1.0;
                let expected = f64::from(grad[index]);
                let found = numerical_gradient(id, &direction, expected);
                let tolerance = 0.02 * expected.abs() + 2e-4;
                assert!(
                    (found - expected).abs() <= tolerance,
                    "{name}[{index}]: numerical {found}, gradient {expected}"
                );
            }
        }
    }
}
