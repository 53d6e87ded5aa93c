//! The transformer: embedding, layers, final norm, head.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use burn::module::Module;
use burn::tensor::{Bool, DType, Int, Tensor, TensorData};
use lumina_core::checkpoint::Checkpoint;
use lumina_core::ops::{Embedding, Linear, swiglu};
use lumina_core::{Compute, LoadProgress, Loader};

use crate::attention::{Attention, Span};
use crate::config::{Architecture, ModelConfig};
use crate::document::document;
use crate::dropout::{Dropout, Site};
use crate::kv_cache::{KvCache, LayerCache};
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

/// What the layers of a pass share: which tokens belong together, their positions, and what is dropped.
pub struct Pass {
    rotation: Rotation,
    runs: Vec<Run>,
    dropout: Dropout,
}

/// The tokens of one row of a pass.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    pub(crate) position: usize,
    pub(crate) len: usize,
    pub(crate) planned_len: usize,
}

impl Pass {
    fn spans<'a>(&self, caches: impl Iterator<Item = Option<&'a mut LayerCache>>) -> Vec<Span<'a>> {
        let mut start = 0;
        let spans = self.runs.iter().zip(caches).map(|(&Run { position, len, .. }, cache)| {
            start += len;
            Span { start: start - len, len, position, cache }
        });
        spans.collect()
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
        let [gate, up] = Linear::forward_all([&self.gate_proj, &self.up_proj], x);
        self.down_proj.forward(swiglu(gate, up))
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

    /// Pre-norm: the norms act on the inputs of attention and MLP; swin-norm: on their outputs. `add` adds to the residual
    /// stream, which is its first tensor.
    fn forward(
        &self,
        x: Tensor<2>,
        rotation: &Rotation,
        spans: &mut [Span<'_>],
        add: &dyn Fn(Site, Tensor<2>, Tensor<2>) -> Tensor<2>,
    ) -> Tensor<2> {
        let (norm_1, norm_2) = (&self.input_layernorm, &self.post_attention_layernorm);
        if self.swin_norm {
            let x = add(Site::Attention, x.clone(), norm_1.forward(self.self_attn.forward(x, rotation, spans)));
            add(Site::Mlp, x.clone(), norm_2.forward(self.mlp.forward(x)))
        } else {
            let x = add(Site::Attention, x.clone(), self.self_attn.forward(norm_1.forward(x), rotation, spans));
            add(Site::Mlp, x.clone(), self.mlp.forward(norm_2.forward(x)))
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

    /// Opens a Hugging Face folder (`config.json` and safetensors, sharded or not) or a GGUF file.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Config`], and [`Error::Core`] for tensors that are missing, unexpected or misshaped.
    pub fn open(path: impl AsRef<Path>, compute: &Compute) -> Result<Self> {
        let checkpoint = Checkpoint::open(path)?;
        let (json, file) = document(&checkpoint, "config.json")?;
        let architecture = ModelConfig::from_json(&json, &file)?.resolve(&file)?;
        Self::from_checkpoint(&checkpoint, architecture, compute, &|_| {})
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
        Self::from_loader(&Loader::with_progress(checkpoint, compute, progress), architecture)
    }

    /// The network in the tensors of a loader, which may have an adapter, and which the caller keeps: it knows the names
    /// of the parameters.
    ///
    /// # Errors
    /// [`Error::Core`] where the device cannot compute as asked, and for tensors that are missing, unexpected or
    /// misshaped.
    pub fn from_loader(loader: &Loader<'_>, architecture: Architecture) -> Result<Self> {
        loader.compute().check()?;
        let tied = architecture.tied_head;
        let model = Self::new(loader, architecture);
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

    /// Paths and `[outputs, inputs]` of the linear layers of a transformer of this shape: what an adapter can be on.
    pub fn linear_layers(architecture: &Architecture, compute: &Compute) -> BTreeMap<String, [usize; 2]> {
        let mut layers = Loader::linear_layers_of(compute, |loader| Self::new(loader, architecture.clone()));
        // A head that is the embedding's table has no weight of its own to adapt.
        if architecture.tied_head {
            layers.remove("model.embed_tokens");
        }
        layers
    }

    /// The network's shape.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// Where the network computes.
    pub fn compute(&self) -> &Compute {
        &self.compute
    }

    /// The same network computing elsewhere. In training it is a replica: its parameters keep their ids, and record
    /// gradients of their own.
    #[must_use]
    pub fn replica(&self, compute: &Compute) -> Self {
        let mut replica = self.clone().fork(compute.device());
        replica.compute = compute.clone();
        replica
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
        for row in rows.iter() {
            if let Some(cache) = &row.cache
                && cache.len() + row.tokens.len() > cache.capacity()
            {
                return Err(Error::CacheFull { needed: cache.len() + row.tokens.len(), capacity: cache.capacity() });
            }
        }
        let runs = rows.iter().map(|row| {
            let position = row.cache.as_ref().map_or(0, |cache| cache.len());
            Run { position, len: row.tokens.len(), planned_len: row.planned_len.max(position + row.tokens.len()) }
        });
        let runs: Vec<Run> = runs.collect();
        let tokens: Vec<u32> = rows.iter().flat_map(|row| row.tokens).copied().collect();
        let (pass, mut x) = self.embed(&tokens, runs)?;
        // Beside rows that are kept, the others have caches for the time of the pass.
        let is_kept = rows.iter().any(|row| row.cache.is_some());
        let lend = |row: &Row<'_>| (is_kept && row.cache.is_none()).then(|| self.new_cache(row.tokens.len()));
        let mut lent: Vec<Option<KvCache>> = rows.iter().map(lend).collect();
        for (index, layer) in self.layers.iter().enumerate() {
            observe(&x);
            let caches = rows
                .iter_mut()
                .zip(&mut lent)
                .map(|(row, lent)| row.cache.as_deref_mut().or(lent.as_mut()).map(|cache| &mut cache.layers[index]));
            x = layer.forward(x, &pass.rotation, &mut pass.spans(caches), &|_, x, y| x + y);
        }
        for (row, run) in rows.iter_mut().zip(&pass.runs) {
            if let Some(cache) = row.cache.as_deref_mut() {
                cache.advance(run.len);
            }
        }
        let x = self.norm.forward(x);
        observe(&x);
        Ok(x)
    }

    /// The hidden states of the tokens, and what the layers share.
    fn embed(&self, tokens: &[u32], runs: Vec<Run>) -> Result<(Pass, Tensor<2>)> {
        if runs.is_empty() || runs.iter().any(|run| run.len == 0) {
            return Err(Error::EmptyRow);
        }
        let vocab_size = self.architecture.vocab_size;
        let x = self.embed_tokens.forward(tokens, &self.compute).ok_or_else(|| {
            let token = tokens.iter().copied().find(|&token| token as usize >= vocab_size).unwrap_or_default();
            Error::Token { token, vocab_size }
        })?;
        let rotation = Rotation::new(&self.architecture, &runs, &self.compute);
        Ok((Pass { rotation, runs, dropout: Dropout::NONE }, x))
    }

    /// Begins a pass over whole sequences that goes layer by layer: hidden states `[n, hidden]`, n being the number of
    /// tokens of all rows. Training needs the steps apart, to run a layer twice rather than keep all it computed.
    ///
    /// # Errors
    /// As [`Transformer::forward`].
    pub fn begin(&self, rows: &[&[u32]], dropout: Dropout) -> Result<(Pass, Tensor<2>)> {
        let runs = rows.iter().map(|row| Run { position: 0, len: row.len(), planned_len: row.len() }).collect();
        let (mut pass, x) = self.embed(&rows.concat(), runs)?;
        pass.dropout = dropout;
        Ok((pass, x))
    }

    /// Layer `index` of a pass, of [`Architecture::n_layers`]: `[n, hidden]` → `[n, hidden]`. The same pass, layer and
    /// input give the same result again, dropout included.
    ///
    /// # Errors
    /// [`Error::NoLayer`] where there is no such layer.
    pub fn layer(&self, index: usize, x: Tensor<2>, pass: &Pass) -> Result<Tensor<2>> {
        let layer = self.layers.get(index).ok_or(Error::NoLayer { index, layers: self.layers.len() })?;
        let add = |site, x, y| pass.dropout.add(index, site, x, y);
        Ok(layer.forward(x, &pass.rotation, &mut pass.spans(pass.runs.iter().map(|_| None)), &add))
    }

    /// The norm after the last layer, `[n, hidden]` → `[n, hidden]`.
    pub fn final_norm(&self, x: Tensor<2>) -> Tensor<2> {
        self.norm.forward(x)
    }

    /// Logits in `f32` of hidden states `[n, hidden]`: `[n, vocab_size]`. With `mask_image_logits` those of image
    /// tokens are the lowest finite value.
    pub fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        self.some_logits(hidden, 0..self.architecture.vocab_size)
    }

    /// Logits of the tokens in a range of ids, `[n, tokens.len()]`.
    fn some_logits(&self, hidden: Tensor<2>, tokens: Range<usize>) -> Tensor<2> {
        let logits = self.lm_head.forward_some(hidden, tokens.clone()).cast(DType::F32);
        let masked = &self.architecture.masked_logits;
        if masked.is_empty() {
            return logits;
        }
        let [n, n_tokens] = logits.dims();
        let mut is_masked = vec![false; n_tokens];
        for token in masked.iter().filter_map(|&token| (token as usize).checked_sub(tokens.start)) {
            if let Some(is_masked) = is_masked.get_mut(token) {
                *is_masked = true;
            }
        }
        let mask = TensorData::new(is_masked, [1, n_tokens]);
        let mask = Tensor::<2, Bool>::from_data(mask, &logits.device());
        logits.mask_fill(mask.expand([n, n_tokens]), f32::MIN)
    }

    /// Logits at some positions of a pass, on the host: a row `[vocab_size]` for each of `positions`.
    ///
    /// # Errors
    /// [`Error::Compute`] where the device fails.
    pub fn logits_at(&self, hidden: Tensor<2>, positions: &[usize]) -> Result<Vec<Vec<f32>>> {
        self.logits_among(hidden, positions, 0..self.architecture.vocab_size)
    }

    /// [`Transformer::logits_at`] where only tokens with ids in a range can come, such as those of images: their part of
    /// the head is computed, and the logits of all others are minus infinity.
    ///
    /// # Errors
    /// As [`Transformer::logits_at`].
    pub fn logits_among(&self, hidden: Tensor<2>, positions: &[usize], tokens: Range<usize>) -> Result<Vec<Vec<f32>>> {
        let vocab_size = self.architecture.vocab_size;
        let tokens = tokens.start.min(vocab_size)..tokens.end.min(vocab_size);
        if tokens.is_empty() {
            return Ok(vec![vec![f32::NEG_INFINITY; vocab_size]; positions.len()]);
        }
        let indices: Vec<i32> = positions.iter().map(|&position| position as i32).collect();
        let indices = Tensor::<1, Int>::from_data(indices.as_slice(), self.compute.device());
        let values = read(self.some_logits(hidden.select(0, indices), tokens.clone()))?;
        let row = |values: &[f32]| {
            let mut row = vec![f32::NEG_INFINITY; vocab_size];
            row[tokens.clone()].copy_from_slice(values);
            row
        };
        Ok(values.chunks_exact(tokens.len()).map(row).collect())
    }
}

/// A tensor's values on the host, as `f32`.
fn read<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>> {
    let failed = |error: &dyn std::fmt::Debug| Error::Compute { reason: format!("{error:?}") };
    let data = tensor.try_into_data().map_err(|error| failed(&error))?;
    data.convert::<f32>().try_into_vec::<f32>().map_err(|error| failed(&error))
}
