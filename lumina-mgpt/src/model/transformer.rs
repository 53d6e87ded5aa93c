//! The transformer: embedding, layers, final norm, head.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use burn::module::Module;
use burn::tensor::{Bool, DType, Device, Tensor, TensorData};
use lumina_checkpoint::Checkpoint;
use lumina_nn::ops::{Embedding, Hidden, Linear, swiglu};
use lumina_nn::{Compute, LoadProgress, Loader};
use smallvec::SmallVec;

use crate::attention::{Attention, Span};
use crate::config::{Architecture, ModelConfig};
use crate::document::document;
use crate::dropout::{Dropout, Site};
use crate::kv_cache::{KvCache, LayerCache};
use crate::logits::Logits;
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

/// Rows of a pass that are counted without allocating: requests with guidance, or a small batch.
pub(crate) const PLACES: usize = 8;

/// What the layers of a pass share: which tokens belong together, their positions, and what is dropped.
pub struct Pass {
    pub(crate) rotation: Rotation,
    pub(crate) device: Device,
    runs: SmallVec<[Run; PLACES]>,
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
    fn spans<'a>(&self, caches: impl Iterator<Item = Option<&'a mut LayerCache>>) -> SmallVec<[Span<'a>; PLACES]> {
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

    fn forward(&self, x: &Hidden) -> Hidden {
        let [gate, up] = Linear::forward_all([&self.gate_proj, &self.up_proj], x);
        self.down_proj.forward(&swiglu(gate, up))
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
        x: Hidden,
        pass: &Pass,
        spans: &mut [Span<'_>],
        add: &dyn Fn(Site, Hidden, Hidden) -> Hidden,
    ) -> Hidden {
        let (norm_1, norm_2) = (&self.input_layernorm, &self.post_attention_layernorm);
        if self.swin_norm {
            let y = norm_1.forward(&self.self_attn.forward(&x, pass, spans));
            let x = add(Site::Attention, x, y);
            let y = norm_2.forward(&self.mlp.forward(&x));
            add(Site::Mlp, x, y)
        } else {
            let y = self.self_attn.forward(&norm_1.forward(&x), pass, spans);
            let x = add(Site::Attention, x, y);
            let y = self.mlp.forward(&norm_2.forward(&x));
            add(Site::Mlp, x, y)
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
            embed_tokens: if architecture.tied_head {
                head.tied_embedding(vocab_size, hidden)
            } else {
                model.pp("embed_tokens").embedding(vocab_size, hidden)
            },
            layers: (0..architecture.layers).map(|index| Layer::new(&layers.pp(index), &architecture)).collect(),
            norm: RmsNorm::new(&model.pp("norm"), hidden, architecture.rms_norm_eps),
            lm_head: head.head(hidden, vocab_size),
            compute: loader.compute().clone(),
            architecture,
        }
    }

    /// Opens a Hugging Face folder (`config.json` and safetensors, sharded or not) or a GGUF file.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Config`], and [`Error::Checkpoint`] for tensors that are missing, unexpected or misshaped.
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
    /// [`Error::Checkpoint`] where the device cannot compute as asked, and for tensors that are missing, unexpected or
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
    /// Where weights are not in tensors, decoding (one token each of up to eight rows) allocates nothing once it has begun:
    /// it runs in the memory that the step before has left.
    ///
    /// # Errors
    /// [`Error::Token`] where a token is beyond the vocabulary, [`Error::CacheFull`] where a row does not fit its
    /// cache, [`Error::EmptyRow`] where there is nothing to run. Nothing has been written then.
    pub fn forward(&self, rows: &mut [Row<'_>]) -> Result<Hidden> {
        self.compute.in_pool(|| self.forward_with(rows, &mut |_| {}))
    }

    /// [`Transformer::forward`], showing `observe` the input of each layer and the final hidden states.
    ///
    /// # Errors
    /// As [`Transformer::forward`].
    pub fn forward_with(&self, rows: &mut [Row<'_>], observe: &mut dyn FnMut(&Hidden)) -> Result<Hidden> {
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
        let runs = runs.collect();
        let tokens: SmallVec<[u32; PLACES]> = rows.iter().flat_map(|row| row.tokens).copied().collect();
        let (pass, mut x) = self.embed(&tokens, runs)?;
        // Beside rows that are kept, the others have caches for the time of the pass.
        let is_kept = rows.iter().any(|row| row.cache.is_some());
        let lend = |row: &Row<'_>| (is_kept && row.cache.is_none()).then(|| self.new_cache(row.tokens.len()));
        let mut lent: SmallVec<[Option<KvCache>; PLACES]> = rows.iter().map(lend).collect();
        for (index, layer) in self.layers.iter().enumerate() {
            observe(&x);
            let caches = rows
                .iter_mut()
                .zip(&mut lent)
                .map(|(row, lent)| row.cache.as_deref_mut().or(lent.as_mut()).map(|cache| &mut cache.layers[index]));
            x = layer.forward(x, &pass, &mut pass.spans(caches), &|_, x, y| x + y);
        }
        for (row, run) in rows.iter_mut().zip(&pass.runs) {
            if let Some(cache) = row.cache.as_deref_mut() {
                cache.advance(run.len);
            }
        }
        let x = self.norm.forward(&x);
        observe(&x);
        Ok(x)
    }

    /// The hidden states of the tokens, and what the layers share.
    fn embed(&self, tokens: &[u32], runs: SmallVec<[Run; PLACES]>) -> Result<(Pass, Hidden)> {
        if runs.is_empty() || runs.iter().any(|run| run.len == 0) {
            return Err(Error::EmptyRow);
        }
        let vocab_size = self.architecture.vocab_size;
        let x = self.embed_tokens.forward(tokens, &self.compute).ok_or_else(|| {
            let token = tokens.iter().copied().find(|&token| token as usize >= vocab_size).unwrap_or_default();
            Error::Token { token, vocab_size }
        })?;
        let rotation = Rotation::new(&self.architecture, &runs, &self.compute);
        let device = self.compute.device().clone();
        Ok((Pass { rotation, device, runs, dropout: Dropout::NONE }, x))
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
        let x = x.into_tensor(&pass.device);
        Ok((pass, x))
    }

    /// Layer `index` of a pass, of [`Architecture::n_layers`]: `[n, hidden]` → `[n, hidden]`. The same pass, layer and
    /// input give the same result again, dropout included.
    ///
    /// # Errors
    /// [`Error::NoLayer`] where there is no such layer.
    pub fn layer(&self, index: usize, x: Tensor<2>, pass: &Pass) -> Result<Tensor<2>> {
        let layer = self.layers.get(index).ok_or(Error::NoLayer { index, layers: self.layers.len() })?;
        let tensor = |x: Hidden| x.into_tensor(&pass.device);
        let add = |site, x, y| pass.dropout.add(index, site, tensor(x), tensor(y)).into();
        Ok(tensor(layer.forward(x.into(), pass, &mut pass.spans(pass.runs.iter().map(|_| None)), &add)))
    }

    /// The norm after the last layer, `[n, hidden]` → `[n, hidden]`.
    pub fn final_norm(&self, x: Tensor<2>) -> Tensor<2> {
        self.norm.forward(&x.into()).into_tensor(self.compute.device())
    }

    /// Logits in `f32` of hidden states `[n, hidden]`: `[n, vocab_size]`. With `mask_image_logits` those of image
    /// tokens are the lowest finite value.
    pub fn logits(&self, hidden: impl Into<Hidden>) -> Tensor<2> {
        let logits = self.lm_head.forward(&hidden.into()).into_tensor(self.compute.device()).cast(DType::F32);
        let masked = &self.architecture.masked_logits;
        if masked.is_empty() {
            return logits;
        }
        let [n, n_tokens] = logits.dims();
        let mut is_masked = vec![false; n_tokens];
        for &token in masked {
            is_masked[token as usize] = true;
        }
        let mask = TensorData::new(is_masked, [1, n_tokens]);
        let mask = Tensor::<2, Bool>::from_data(mask, &logits.device());
        logits.mask_fill(mask.expand([n, n_tokens]), f32::MIN)
    }

    /// Logits at some positions of a pass, on the host: a row `[vocab_size]` for each of `positions`.
    ///
    /// # Errors
    /// [`Error::Position`] where there is no such position, [`Error::Compute`] where the device fails.
    pub fn logits_at(&self, hidden: &Hidden, positions: &[usize]) -> Result<Logits> {
        self.logits_among(hidden, positions, 0..self.architecture.vocab_size)
    }

    /// [`Transformer::logits_at`] where only tokens with ids in a range can come, such as those of images: their part of
    /// the head is computed, and the logits of all others are minus infinity.
    ///
    /// # Errors
    /// As [`Transformer::logits_at`].
    pub fn logits_among(&self, hidden: &Hidden, positions: &[usize], tokens: Range<usize>) -> Result<Logits> {
        let vocab_size = self.architecture.vocab_size;
        let [n, _] = hidden.dims();
        if let Some(&position) = positions.iter().find(|&&position| position >= n) {
            return Err(Error::Position { position, tokens: n });
        }
        let end = tokens.end.min(vocab_size);
        let tokens = tokens.start.min(end)..end;
        self.compute.in_pool(|| self.some_logits(hidden, positions, tokens))
    }

    fn some_logits(&self, hidden: &Hidden, positions: &[usize], tokens: Range<usize>) -> Result<Logits> {
        let &Architecture { vocab_size, ref masked_logits, .. } = &self.architecture;
        let logits = if tokens.is_empty() {
            None
        } else {
            let logits = self.lm_head.forward_some(&hidden.select(positions), tokens.clone()).read()?;
            if tokens.len() == vocab_size && masked_logits.is_empty() {
                return Ok(Logits::new(logits));
            }
            Some(logits)
        };
        let some = logits.as_ref().and_then(Hidden::as_slice).unwrap_or_default();
        Ok(Logits::new(Hidden::on_host(&self.compute, positions.len(), vocab_size, |rows| {
            rows.fill(f32::NEG_INFINITY);
            let of_tokens = some.chunks_exact(tokens.len().max(1));
            for (row, some) in rows.chunks_exact_mut(vocab_size).zip(of_tokens) {
                row[tokens.clone()].copy_from_slice(some);
                for &token in masked_logits {
                    if tokens.contains(&(token as usize)) {
                        row[token as usize] = f32::MIN;
                    }
                }
            }
        })))
    }
}
