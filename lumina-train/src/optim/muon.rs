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
