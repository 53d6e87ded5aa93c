//! Tensor names of the Chameleon architecture, in GGUF files and in Hugging Face's checkpoints.

/// Outside of the layers.
const MODEL: [(&str, &str); 3] =
    [("token_embd", "model.embed_tokens"), ("output_norm", "model.norm"), ("output", "lm_head")];

/// Within a layer, after `blk.N.` and `model.layers.N.`.
const LAYER: [(&str, &str); 11] = [
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// `blk.3.attn_q.weight` → `model.layers.3.self_attn.q_proj.weight`; `None` for what this architecture does not have.
pub(super) fn to_hugging_face(name: &str) -> Option<String> {
    translate(name, "blk.", "model.layers.", |&(theirs, ours)| (theirs, ours))
}

/// `model.layers.3.self_attn.q_proj.weight` → `blk.3.attn_q.weight`; `None` for what llama.cpp does not have.
pub(super) fn to_gguf(name: &str) -> Option<String> {
    translate(name, "model.layers.", "blk.", |&(theirs, ours)| (ours, theirs))
}

fn translate(
    name: &str,
    layers: &str,
    to_layers: &str,
    direction: impl Fn(&(&'static str, &'static str)) -> (&'static str, &'static str),
) -> Option<String> {
    let (stem, kind) = name.rsplit_once('.')?;
    if kind != "weight" && kind != "bias" {
        return None;
    }
    let find = |table: &[(&'static str, &'static str)], stem: &str| {
        table.iter().map(&direction).find(|(from, _)| *from == stem).map(|(_, to)| to)
    };
    if let Some(to) = find(&MODEL, stem) {
        return Some(format!("{to}.{kind}"));
    }
    let (layer, stem) = stem.strip_prefix(layers)?.split_once('.')?;
    let number = !layer.is_empty() && layer.bytes().all(|byte| byte.is_ascii_digit());
    let to = find(&LAYER, stem).filter(|_| number)?;
    Some(format!("{to_layers}{layer}.{to}.{kind}"))
}

/// A tensor that llama.cpp has in another order within each head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rotated {
    /// Of queries; otherwise of keys.
    pub(super) query: bool,
    /// A norm over each head; otherwise a projection.
    pub(super) norm: bool,
}

/// Finds out from the Hugging Face name whether a tensor is of that kind.
pub(super) fn rotated(name: &str) -> Option<Rotated> {
    let (_, tensor) = name.strip_prefix("model.layers.")?.split_once(".self_attn.")?;
    let (query, norm) = match tensor {
        "q_proj.weight" | "q_proj.bias" => (true, false),
        "k_proj.weight" | "k_proj.bias" => (false, false),
        "q_norm.weight" | "q_norm.bias" => (true, true),
        "k_norm.weight" | "k_norm.bias" => (false, true),
        _ => return None,
    };
    Some(Rotated { query, norm })
}

/// The part of the model that a tensor belongs to. It decides the type in which the tensor is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TensorRole {
    /// The weight of a linear layer in attention or MLP.
    Linear,
    Embedding,
    Head,
    /// Norms and biases.
    Small,
    /// Not in the transformer: the encoder of the image tokenizer.
    Other,
}

/// The role by the Hugging Face name.
pub(super) fn role(name: &str) -> TensorRole {
    match to_gguf(name) {
        None => TensorRole::Other,
        Some(_) if name == "model.embed_tokens.weight" => TensorRole::Embedding,
        Some(_) if name == "lm_head.weight" => TensorRole::Head,
        Some(_) if name.ends_with("_proj.weight") => TensorRole::Linear,
        Some(_) => TensorRole::Small,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways() {
        for (gguf, hugging_face) in [
            ("token_embd.weight", "model.embed_tokens.weight"),
            ("output_norm.weight", "model.norm.weight"),
            ("output.weight", "lm_head.weight"),
            ("blk.0.attn_q.weight", "model.layers.0.self_attn.q_proj.weight"),
            ("blk.31.attn_k_norm.bias", "model.layers.31.self_attn.k_norm.bias"),
            ("blk.7.attn_output.bias", "model.layers.7.self_attn.o_proj.bias"),
            ("blk.7.ffn_norm.weight", "model.layers.7.post_attention_layernorm.weight"),
        ] {
            assert_eq!(to_hugging_face(gguf).as_deref(), Some(hugging_face));
            assert_eq!(to_gguf(hugging_face).as_deref(), Some(gguf));
        }
        for name in
            ["blk.x.attn_q.weight", "blk..attn_q.weight", "blk.0.attn_qkv.weight", "rope_freqs.weight", "output", ""]
        {
            assert_eq!(to_hugging_face(name), None, "{name}");
        }
    }

    #[test]
    fn roles_and_heads() {
        assert_eq!(role("model.layers.2.mlp.down_proj.weight"), TensorRole::Linear);
        assert_eq!(role("model.layers.2.self_attn.q_proj.bias"), TensorRole::Small);
        assert_eq!(role("model.norm.weight"), TensorRole::Small);
        assert_eq!(role("lm_head.weight"), TensorRole::Head);
        assert_eq!(role("model.vqmodel.encoder.conv_in.weight"), TensorRole::Other);
        assert_eq!(rotated("model.layers.2.self_attn.v_proj.weight"), None);
        assert_eq!(rotated("model.layers.2.self_attn.k_norm.bias"), Some(Rotated { query: false, norm: true }));
    }
}
