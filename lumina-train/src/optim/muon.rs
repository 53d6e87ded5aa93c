//! Muon for the matrices of layers.

use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{AdjustLrFn, MuonConfig, Optimizer};
use burn::tensor::Tensor;

/// The numbers of Muon (Jordan et al. 2024), which updates a matrix by its mean gradient with all singular values made
/// about 1, times 0.2 √(its longer side): as large an update as AdamW's, so that both share learning rate and weight
/// decay (arXiv 2502.16982 §2.2).
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct MuonOptions {
    /// Decay factor of the sum of gradients, with Nesterov's look ahead. Default 0.95.
    pub momentum: f64,
}

impl Default for MuonOptions {
    fn default() -> Self {
        Self { momentum: 0.95 }
    }
}

/// Whether this is a parameter that Muon is for: a matrix which is the weight of a linear layer, or of its low-rank
/// update. Embeddings, the head and norms have rows that are used apart from each other.
pub(super) fn is_for(name: &str, dimensions: usize) -> bool {
    dimensions == 2 && name.contains("_proj.") && name.ends_with(".weight")
}

/// What a step of Muon needs beside tensors.
pub(super) struct MuonStep {
    pub(super) learning_rate: f64,
    pub(super) weight_decay: f64,
    pub(super) options: MuonOptions,
}

impl MuonStep {
    /// A weight after a step, and its sum of gradients `[elements]`. The weight has two dimensions, which `D` is.
    pub(super) fn update<const D: usize>(
        &self,
        weight: Tensor<D>,
        gradient: Tensor<D>,
        sum: Option<Tensor<1>>,
    ) -> (Tensor<D>, Tensor<1>) {
        let Self { learning_rate, weight_decay, options: MuonOptions { momentum } } = *self;
        let shape = weight.shape();
        let gradient = gradient.reshape([shape.num_elements()]);
        let sum = match sum {
            Some(sum) => sum.mul_scalar(momentum).add(gradient.clone()),
            None => gradient.clone(),
        };
        let ahead = sum.clone().mul_scalar(momentum).add(gradient);
        // Burn's has no way to save its momentum, so that it gets the gradient with ours.
        let muon = MuonConfig::new()
            .with_momentum(MomentumConfig { momentum: 0.0, dampening: 0.0, nesterov: false })
            .with_weight_decay(Some(WeightDecayConfig::new(weight_decay as f32)))
            .with_adjust_lr_fn(AdjustLrFn::MatchRmsAdamW)
            .build();
        let sides = [shape[0], shape[D - 1]];
        let (updated, _) = muon.step::<2>(learning_rate, weight.reshape(sides), ahead.reshape(sides), None);
        (updated.reshape(shape), sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};

    /// What five Newton-Schulz iterations make of a singular value.
    fn iterated(mut value: f64) -> f64 {
        for _ in 0..5 {
            value = 3.4445 * value - 4.775 * value.powi(3) + 2.0315 * value.powi(5);
        }
        value
    }

    fn diagonal(values: [f32; 2], device: &Device) -> Tensor<2> {
        let values = vec![values[0], 0.0, 0.0, 0.0, values[1], 0.0];
        Tensor::from_data(TensorData::new(values, [2, 3]), device)
    }

    #[test]
    fn two_steps_on_a_diagonal_matrix() {
        let device = Device::default();
        let step = MuonStep { learning_rate: 0.1, weight_decay: 0.5, options: MuonOptions::default() };
        let gradients = [[3.0, 1.0], [-0.5, 2.0]];
        let (mut weight, mut sum) = (diagonal([1.0, -2.0], &device), None);
        let (mut expected, mut sums) = ([1.0, -2.0], [0.0, 0.0]);
        for gradient in gradients {
            let (updated, of_updated) = step.update(weight, diagonal(gradient, &device), sum);
            (weight, sum) = (updated, Some(of_updated));
            let gradient = gradient.map(f64::from);
            sums = [0, 1].map(|at| 0.95 * sums[at] + gradient[at]);
            let ahead: [f64; 2] = [0, 1].map(|at| 0.95 * sums[at] + gradient[at]);
            let norm = ahead[0].hypot(ahead[1]);
            let scale = 0.1 * 0.2 * 3_f64.sqrt();
            expected = [0, 1].map(|at| expected[at] * (1.0 - 0.1 * 0.5) - scale * iterated(ahead[at] / norm));
        }
        let values = weight.into_data().try_to_vec::<f32>().unwrap();
        for (value, expected) in values.iter().zip([expected[0], 0.0, 0.0, 0.0, expected[1], 0.0]) {
            assert!((f64::from(*value) - expected).abs() < 1e-5, "{values:?}, expected {expected}");
        }
    }

    #[test]
    fn weights_of_linear_layers_are_updated_by_it() {
        for name in ["model.layers.3.mlp.down_proj.weight", "model.layers.0.self_attn.q_proj.lora_A.weight"] {
            assert!(is_for(name, 2), "{name}");
            assert!(!is_for(name, 1), "{name}");
        }
        for name in ["model.embed_tokens.weight", "lm_head.weight", "model.layers.0.self_attn.q_norm.weight"] {
            assert!(!is_for(name, 2), "{name}");
        }
    }
}
