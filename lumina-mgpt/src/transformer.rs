//! The transformer: embedding, layers, final norm, head.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::Module;
use burn::tensor::{Bool, DType, Int, Tensor, TensorData, activation};
use lumina_core::checkpoint::Checkpoint;
use lumina_core::ops::{Embedding, Linear};
use lumina_core::{Compute, LoadProgress, Loader};

use crate::attention::{Attention, Span};
use crate::config::{Architecture, ModelConfig};
use crate::kv_cache::KvCache;
use crate::norm::RmsNorm;
use crate::rope::Rotation;
use crate::{Error, Result};

/// The decoder-only transformer, for inference and training alike.
///
/// Rows of different lengths share a pass without padding: their tokens lie one after the other in `[n, hidden]`, the
/// linear layers see all of them at once, and attention gives each row its own keys and values.
/// Mirrors `modeling_chameleon.py::ChameleonForConditionalGeneration`.
#[derive(Module, Debug)]
pub struct Transformer {
    embed_tokens: Embedding,
    layers: Vec<Layer>,
    norm: RmsNorm,
    lm_head: Linear,
    #[module(skip)]
    architecture: Architecture,
    #[module(skip)]
    compute: Compute,
}

/// A sequence's part of a pass.
#[derive(Debug)]
pub struct Row<'a> {
    /// The tokens to run, at least one.
    pub tokens: &'a [u32],
    /// What came before them and takes them up; without one the tokens begin a sequence that is not kept.
    pub cache: Option<&'a mut KvCache>,
    /// Tokens of the whole prompt, where these are a chunk of it: dynamic rotary scaling depends on it.
    pub planned_len: usize,
}

impl<'a> Row<'a> {
    /// Tokens that begin a sequence which is not kept.
    pub fn whole(tokens: &'a [u32]) -> Self {
        Self { tokens, cache: None, planned_len: tokens.len() }
    }

    /// Tokens that follow those in the cache.
    pub fn cached(tokens: &'a [u32], cache: &'a mut KvCache) -> Self {
        let planned_len = cache.len() + tokens.len();
        Self { tokens, cache: Some(cache), planned_len }
    }
}

#[derive(Module, Debug)]
struct Layer {
    self_attn: Attention,
    mlp: Mlp,
    input_layernorm: RmsNorm,
    post_attention_layernorm: RmsNorm,
    swin_norm: bool,
}

/// SwiGLU. Mirrors `ChameleonMLP`.
#[derive(Module, Debug)]
struct Mlp {
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
}

impl Mlp {
    fn new(loader: &Loader<'_>, architecture: &Architecture) -> Self {
        let &Architecture { hidden, intermediate, mlp_bias: bias, .. } = architecture;
        Self {
            gate_proj: loader.pp("gate_proj").linear(hidden, intermediate, bias),
            up_proj: loader.pp("up_proj").linear(hidden, intermediate, bias),
            down_proj: loader.pp("down_proj").linear(intermediate, hidden, bias),
        }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let gate = activation::silu(self.gate_proj.forward(x.clone()));
        self.down_proj.forward(gate * self.up_proj.forward(x))
    }
}

impl Layer {
    fn new(loader: &Loader<'_>, architecture: &Architecture) -> Self {
        let norm = |name| RmsNorm::new(&loader.pp(name), architecture.hidden, architecture.rms_norm_eps);
        Self {
            self_attn: Attention::new(&loader.pp("self_attn"), architecture),
            mlp: Mlp::new(&loader.pp("mlp"), architecture),
            input_layernorm: norm("input_layernorm"),
            post_attention_layernorm: norm("post_attention_layernorm"),
            swin_norm: architecture.swin_norm,
        }
    }

    /// Pre-norm: the norms act on the inputs of attention and MLP; swin-norm: on their outputs.
    fn forward(&self, x: Tensor<2>, rotation: &Rotation, spans: &mut [Span<'_>]) -> Tensor<2> {
        if self.swin_norm {
            let x = x.clone() + self.input_layernorm.forward(self.self_attn.forward(x, rotation, spans));
            x.clone() + self.post_attention_layernorm.forward(self.mlp.forward(x))
        } else {
            let x = x.clone() + self.self_attn.forward(self.input_layernorm.forward(x), rotation, spans);
            x.clone() + self.mlp.forward(self.post_attention_layernorm.forward(x))
        }
    }
}

impl Transformer {
    /// Builds the network from its tensors; problems are reported by [`Loader::finish`].
    pub fn new(loader: &Loader<'_>, architecture: Architecture) -> Self {
        let model = loader.pp("model");
        let layers = model.pp("layers");
        let &Architecture { vocab_size, hidden, .. } = &architecture;
        let head = if architecture.tied_head { model.pp("embed_tokens") } else { loader.pp("lm_head") };
        Self {
            embed_tokens: model.pp("embed_tokens").embedding(vocab_size, hidden),
            layers: (0..architecture.layers).map(|index| Layer::new(&layers.pp(index), &architecture)).collect(),
            norm: RmsNorm::new(&model.pp("norm"), hidden, architecture.rms_norm_eps),
            lm_head: head.linear(hidden, vocab_size, false),
            compute: loader.compute().clone(),
            architecture,
        }
    }

    /// Opens a Hugging Face folder: `config.json` and safetensors, sharded or not.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Config`], and [`Error::Core`] for tensors that are missing, unexpected or misshaped.
    pub fn open(folder: impl AsRef<Path>, compute: &Compute) -> Result<Self> {
        let folder = folder.as_ref();
        let file = folder.join("config.json");
        let architecture = ModelConfig::open(&file)?.resolve(&file)?;
        Self::from_checkpoint(&Checkpoint::open(folder)?, architecture, compute, &|_| {})
    }

    /// The network in a checkpoint's tensors, telling `progress` of each.
    ///
    /// # Errors
    /// As [`Transformer::open`].
    pub fn from_checkpoint(
        checkpoint: &Checkpoint,
        architecture: Architecture,
        compute: &Compute,
        progress: &dyn Fn(LoadProgress),
    ) -> Result<Self> {
        compute.check()?;
        let loader = Loader::with_progress(checkpoint, compute, progress);
        let tied = architecture.tied_head;
        let model = Self::new(&loader, architecture);
        // The image tokenizer is another network; older exports carry rotary frequencies, which follow from the config.
        loader.finish(|name| {
            name.starts_with("model.vqmodel.")
                || name.ends_with(".rotary_emb.inv_freq")
                || (tied && name == "lm_head.weight")
        })?;
        Ok(model)
    }

    /// Names and shapes of the tensors of a transformer of this shape.
    pub fn tensor_shapes(architecture: &Architecture, compute: &Compute) -> BTreeMap<String, Vec<usize>> {
        Loader::shapes_of(compute, |loader| Self::new(loader, architecture.clone()))
    }

    /// The network's shape.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// Where the network computes.
    pub fn compute(&self) -> &Compute {
        &self.compute
    }

    /// An empty cache for a sequence of up to `capacity` tokens.
    pub fn new_cache(&self, capacity: usize) -> KvCache {
        KvCache::new(&self.architecture, capacity, &self.compute)
    }

    /// Runs the rows' tokens: the hidden states after the final norm, `[n, hidden]`, n being the number of tokens of
    /// all rows, in their order. Each row's cache takes up its tokens.
    ///
    /// # Errors
    /// [`Error::Token`] where a token is beyond the vocabulary, [`Error::CacheFull`] where a row does not fit its
    /// cache, [`Error::EmptyRow`] where there is nothing to run. Nothing has been written then.
    pub fn forward(&self, rows: &mut [Row<'_>]) -> Result<Tensor<2>> {
        self.forward_with(rows, &mut |_| {})
    }

    /// [`Transformer::forward`], showing `observe` the input of each layer and the final hidden states.
    ///
    /// # Errors
    /// As [`Transformer::forward`].
    pub fn forward_with(&self, rows: &mut [Row<'_>], observe: &mut dyn FnMut(&Tensor<2>)) -> Result<Tensor<2>> {
        let mut tokens: Vec<u32> = Vec::new();
        let mut runs = Vec::with_capacity(rows.len());
        for row in rows.iter() {
            let position = row.cache.as_ref().map_or(0, |cache| cache.len());
            let len = row.tokens.len();
            if let Some(cache) = &row.cache
                && position + len > cache.capacity()
            {
                return Err(Error::CacheFull { needed: position + len, capacity: cache.capacity() });
            }
            if len == 0 {
                return Err(Error::EmptyRow);
            }
            tokens.extend(row.tokens);
            runs.push((position, len, row.planned_len.max(position + len)));
        }
        if rows.is_empty() {
            return Err(Error::EmptyRow);
        }
        let vocab_size = self.architecture.vocab_size;
        let mut x = self.embed_tokens.forward(&tokens, &self.compute).ok_or_else(|| {
            let token = tokens.iter().copied().find(|&token| token as usize >= vocab_size).unwrap_or_default();
            Error::Token { token, vocab_size }
        })?;
        let rotation = Rotation::new(&self.architecture, &runs, &self.compute);
        for (index, layer) in self.layers.iter().enumerate() {
            observe(&x);
            let mut start = 0;
            let mut spans: Vec<Span<'_>> = rows
                .iter_mut()
                .zip(&runs)
                .map(|(row, &(position, len, _))| {
                    let cache = row.cache.as_deref_mut().map(|cache| &mut cache.layers[index]);
                    let span = Span { start, len, position, cache };
                    start += len;
                    span
                })
                .collect();
            x = layer.forward(x, &rotation, &mut spans);
        }
        for (row, (_, len, _)) in rows.iter_mut().zip(&runs) {
            if let Some(cache) = row.cache.as_deref_mut() {
                cache.advance(*len);
            }
        }
        let x = self.norm.forward(x);
        observe(&x);
        Ok(x)
    }

    /// Logits in `f32` of hidden states `[n, hidden]`: `[n, vocab_size]`. With `mask_image_logits` those of image
    /// tokens are the lowest finite value.
    pub fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        let logits = self.lm_head.forward(hidden).cast(DType::F32);
        let masked = &self.architecture.masked_logits;
        if masked.is_empty() {
            return logits;
        }
        let [n, vocab_size] = logits.dims();
        let mut keep = vec![false; vocab_size];
        for &token in masked {
            keep[token as usize] = true;
        }
        let mask = TensorData::new(keep, [1, vocab_size]);
        let mask = Tensor::<2, Bool>::from_data(mask, &logits.device());
        logits.mask_fill(mask.expand([n, vocab_size]), f32::MIN)
    }

    /// Logits at some positions of a pass, on the host: a row `[vocab_size]` for each of `positions`.
    ///
    /// # Errors
    /// [`Error::Compute`] where the device fails.
    pub fn logits_at(&self, hidden: Tensor<2>, positions: &[usize]) -> Result<Vec<Vec<f32>>> {
        let indices: Vec<i32> = positions.iter().map(|&position| position as i32).collect();
        let indices = Tensor::<1, Int>::from_data(indices.as_slice(), self.compute.device());
        let values = read(self.logits(hidden.select(0, indices)))?;
        Ok(values.chunks_exact(self.architecture.vocab_size).map(<[f32]>::to_vec).collect())
    }
}

/// A tensor's values on the host, as `f32`.
fn read<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>> {
    let failed = |error: &dyn std::fmt::Debug| Error::Compute { reason: format!("{error:?}") };
    let data = tensor.try_into_data().map_err(|error| failed(&error))?;
    data.convert::<f32>().try_into_vec::<f32>().map_err(|error| failed(&error))
}
