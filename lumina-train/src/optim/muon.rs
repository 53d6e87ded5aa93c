//! Muon for the matrices of layers.

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

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, Tensor, TensorData};
    use lumina_nn::ops::{MuonStep, muon};

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
        let step = MuonStep { learning_rate: 0.1, weight_decay: 0.5, momentum: MuonOptions::default().momentum };
        let gradients = [[3.0, 1.0], [-0.5, 2.0]];
        let (mut weight, mut sum) = (diagonal([1.0, -2.0], &device), None);
        let (mut expected, mut sums) = ([1.0, -2.0], [0.0, 0.0]);
        for gradient in gradients {
            let (updated, of_updated) = muon(weight, diagonal(gradient, &device), sum, &step);
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
