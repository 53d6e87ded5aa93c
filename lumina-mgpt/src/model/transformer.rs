//! The transformer: embedding, layers, final norm, head.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
#[cfg(feature = "cube")]
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Bool, DType, Tensor, TensorData};
use lumina_checkpoint::Checkpoint;
use lumina_nn::ops::{Embedding, Hidden, Linear};
#[cfg(feature = "cube")]
use lumina_nn::ops::{GpuKvPool, Recordings};
use lumina_nn::{Compute, LoadProgress, Loader};
use smallvec::SmallVec;

use super::attention::PassRows;
use super::config::{Architecture, ModelConfig};
use super::dropout::Dropout;
use super::kv_cache::KvCache;
use super::layer::{Layer, Pass, Residual, Stream};
use super::logits::{Drawn, Logits, RowDraw};
use super::norm::RmsNorm;
use super::rope::Rotation;
use super::row::{MAX_INLINE_ROWS, Row};
use crate::convert;
use crate::{Error, Result};

/// The decoder-only transformer, for inference and training alike.
///
/// Rows of different lengths share a pass without padding: their tokens lie one after the other in `[n, hidden]`, the
/// linear layers see all of them at once, and attention gives each row its own keys and values.
/// Mirrors `modeling_chameleon.py::ChameleonForConditionalGeneration`.
#[derive(Module)]
pub struct Transformer {
    pub(super) embed_tokens: Embedding,
    pub(super) layers: Vec<Layer>,
    pub(super) norm: RmsNorm,
    pub(super) lm_head: Linear,
    #[module(skip)]
    pub(super) architecture: Architecture,
    #[module(skip)]
    compute: Compute,
    /// The keys and values of all sequences, where they are on a GPU.
    #[cfg(feature = "cube")]
    #[module(skip)]
    kv_pool: Option<Arc<GpuKvPool>>,
    /// Short passes on a GPU, by their range of logits.
    #[cfg(feature = "cube")]
    #[module(skip)]
    pub(super) recordings: Arc<Recordings<Range<usize>>>,
}

/// Keys and values for sequences of a transformer of this shape, where they are on a GPU.
#[cfg(feature = "cube")]
fn kv_pool(architecture: &Architecture, compute: &Compute) -> Option<Arc<GpuKvPool>> {
    let &Architecture { layers, heads, kv_heads, head_dim, .. } = architecture;
    GpuKvPool::new(compute, layers, [heads, kv_heads, head_dim])
}

/// The tokens of all rows, none of which is empty.
pub(super) fn tokens_of(rows: &[Row<'_>]) -> Result<SmallVec<[u32; MAX_INLINE_ROWS]>> {
    if rows.is_empty() || rows.iter().any(|row| row.len() == 0) {
        return Err(Error::EmptyRow);
    }
    Ok(rows.iter().flat_map(|row| row.tokens).copied().collect())
}

/// The tokens of a pass after which logits are wanted.
fn positions(rows: &[Row<'_>]) -> Result<SmallVec<[usize; MAX_INLINE_ROWS]>> {
    let mut positions = SmallVec::new();
    let mut start = 0;
    for row in rows {
        if row.logits.end > row.len() {
            return Err(Error::Position { position: row.logits.end - 1, tokens: row.len() });
        }
        positions.extend(row.logits.clone().map(|token| start + token));
        start += row.len();
    }
    Ok(positions)
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
            layers: layers.parts(architecture.layers, |layer, _| Layer::new(layer, &architecture)),
            norm: RmsNorm::new(&model.pp("norm"), hidden, architecture.rms_norm_eps),
            lm_head: head.head(hidden, vocab_size),
            #[cfg(feature = "cube")]
            kv_pool: kv_pool(&architecture, loader.compute()),
            #[cfg(feature = "cube")]
            recordings: Arc::default(),
            compute: loader.compute().clone(),
            architecture,
        }
    }

    /// Opens a Hugging Face folder (`config.json` and safetensors, sharded or not) or a GGUF file.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Config`], and [`Error::Checkpoint`] for tensors that are missing, unexpected or
    /// misshaped.
    pub fn open(path: impl AsRef<Path>, compute: &Compute) -> Result<Self> {
        let checkpoint = convert::open(path)?;
        let (_, architecture) = ModelConfig::of_checkpoint(&checkpoint)?;
        Self::from_checkpoint(&checkpoint, architecture, compute, &|_| {})
    }

    /// The network in a checkpoint's tensors, calling `progress` for each.
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

    /// The network in the tensors of a loader, which may have an adapter, and which the caller keeps: it knows the
    /// names of the parameters.
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
        #[cfg(feature = "cube")]
        {
            replica.kv_pool = kv_pool(&replica.architecture, compute);
            replica.recordings = Arc::default();
        }
        replica
    }

    /// An empty cache for a sequence of up to `capacity` tokens.
    pub fn new_cache(&self, capacity: usize) -> KvCache {
        #[cfg(feature = "cube")]
        if let Some(pool) = &self.kv_pool {
            return KvCache::on_gpu(pool, capacity);
        }
        KvCache::new(&self.architecture, capacity, &self.compute)
    }

    /// Runs the rows' tokens: the hidden states after the final norm, `[n, hidden]`, n being the number of tokens of
    /// all rows, in their order. Each row's keys and values are appended to its cache.
    ///
    /// With weights in host memory, decoding (one token each of up to eight rows) allocates nothing but blocks of the
    /// caches once it has begun.
    ///
    /// # Errors
    /// [`Error::Token`] where a token is beyond the vocabulary, [`Error::CacheFull`] where a row does not fit its
    /// cache, [`Error::KvMemory`] where there is no memory for it, [`Error::EmptyRow`] where there is nothing to run.
    /// Nothing has been written then.
    pub fn forward(&self, rows: &mut [Row<'_>]) -> Result<Hidden> {
        self.compute.in_pool(|| self.hidden(rows, None))
    }

    /// Runs the rows' tokens, and computes the logits that each row asks for, of the tokens `ids`: a row of logits
    /// each, in the order of the rows and their tokens.
    ///
    /// # Errors
    /// As [`Transformer::forward`], and [`Error::Position`] where a row asks for logits of a token that it does not
    /// have.
    pub fn run(&self, rows: &mut [Row<'_>], ids: Range<usize>) -> Result<Logits> {
        let positions = positions(rows)?;
        #[cfg(feature = "cube")]
        if let Some(pool) = &self.kv_pool
            && !positions.is_empty()
        {
            return self.run_on_gpu(pool, rows, &positions, self.known_ids(ids));
        }
        self.compute.in_pool(|| {
            let hidden = self.hidden(rows, None)?;
            self.logits_among(&hidden, &positions, ids)
        })
    }

    /// [`Transformer::run`] that makes `draws` on the device, if it can: a token each, in their order. Logits otherwise.
    ///
    /// # Errors
    /// As [`Transformer::run`].
    pub(crate) fn run_and_draw(
        &self,
        rows: &mut [Row<'_>],
        ids: Range<usize>,
        draws: Option<&[RowDraw]>,
    ) -> Result<Drawn> {
        #[cfg(feature = "cube")]
        if let (Some(pool), Some(draws)) = (&self.kv_pool, draws)
            && !self.architecture.masked_logits.iter().any(|&token| ids.contains(&(token as usize)))
        {
            let positions = positions(rows)?;
            return self.draw_on_gpu(pool, rows, &positions, self.known_ids(ids), &super::gpu::draws(draws));
        }
        let _ = draws;
        self.run(rows, ids).map(Drawn::Logits)
    }

    /// Whether drafts of a row can branch: see [`Row::parents`].
    pub fn takes_trees(&self) -> bool {
        self.compute.is_host()
    }

    /// Whether tokens can be drawn where the network computes.
    pub(crate) fn draws_on_device(&self) -> bool {
        #[cfg(feature = "cube")]
        return self.kv_pool.is_some();
        #[cfg(not(feature = "cube"))]
        false
    }

    /// [`Transformer::forward`] that calls `observe` with the input of each layer and the final hidden states.
    ///
    /// # Errors
    /// As [`Transformer::forward`].
    pub fn forward_with(&self, rows: &mut [Row<'_>], observe: &mut dyn FnMut(&Hidden)) -> Result<Hidden> {
        self.hidden(rows, Some(observe))
    }

    fn hidden(&self, rows: &mut [Row<'_>], mut observe: Option<&mut dyn FnMut(&Hidden)>) -> Result<Hidden> {
        for row in rows.iter() {
            if let Some(cache) = &row.cache
                && cache.len() + row.len() > cache.capacity()
            {
                return Err(Error::CacheFull { needed: cache.len() + row.len(), capacity: cache.capacity() });
            }
            self.check_tree(row)?;
        }
        #[cfg(feature = "cube")]
        if let Some(pool) = &self.kv_pool {
            return self.forward_on_gpu(pool, rows, observe);
        }
        let mut stream = Stream::from(self.embed(rows)?);
        let rotation = Rotation::new(&self.architecture, rows, &self.compute);
        if rows.iter().all(|row| row.cache.is_none()) {
            let lens: SmallVec<[usize; MAX_INLINE_ROWS]> = rows.iter().map(|row| row.len()).collect();
            for layer in &self.layers {
                stream = stream.observed(&mut observe);
                stream = layer.forward(stream, &rotation, PassRows::Whole(&lens), Residual::Plain);
            }
        } else {
            stream = self.with_caches(rows, |rows| {
                for (index, layer) in self.layers.iter().enumerate() {
                    stream = stream.observed(&mut observe);
                    let rows = PassRows::Cached { rows, layer: index, compute: &self.compute };
                    stream = layer.forward(stream, &rotation, rows, Residual::Plain);
                }
                Ok(stream)
            })?;
        }
        let (_, normed) = stream.normed(&self.norm);
        if let Some(observe) = observe {
            observe(&normed);
        }
        Ok(normed)
    }

    /// Checks that a row's drafts branch where that is possible, and as they can.
    fn check_tree(&self, row: &Row<'_>) -> Result<()> {
        let mut parents = row.parents.iter().enumerate();
        let is_tree = row.parents.len() + 1 == row.len() && parents.all(|(before, &parent)| parent as usize <= before);
        if row.parents.is_empty() || (is_tree && self.takes_trees() && row.has_host_cache()) {
            return Ok(());
        }
        Err(Error::Tree { tokens: row.len(), parents: row.parents.len() })
    }

    /// Calls `run` with the rows, each of which has a cache with room for its tokens: where none is to be kept, until
    /// its end. The tokens then are those of the caches.
    pub(super) fn with_caches<T>(
        &self,
        rows: &mut [Row<'_>],
        run: impl FnOnce(&mut [Row<'_>]) -> Result<T>,
    ) -> Result<T> {
        let temporary = |row: &Row<'_>| row.cache.is_none().then(|| self.new_cache(row.len()));
        let mut temporary: SmallVec<[Option<KvCache>; MAX_INLINE_ROWS]> = rows.iter().map(temporary).collect();
        let all = rows.iter_mut().zip(&mut temporary);
        let mut all: SmallVec<[Row<'_>; MAX_INLINE_ROWS]> = all
            .map(|(row, temporary)| Row {
                tokens: row.tokens,
                cache: row.cache.as_deref_mut().or(temporary.as_mut()),
                planned_len: row.planned_len,
                logits: row.logits.clone(),
                attention: row.attention,
                parents: row.parents,
            })
            .collect();
        for row in &mut all {
            let len = row.position() + row.len();
            row.cache.as_deref_mut().map_or(Ok(()), |cache| cache.reserve(len))?;
        }
        let result = run(&mut all)?;
        for row in &mut all {
            let len = row.len();
            if let Some(cache) = row.cache.as_deref_mut() {
                cache.advance(len);
            }
        }
        Ok(result)
    }

    /// The hidden states of the tokens of all rows.
    fn embed(&self, rows: &[Row<'_>]) -> Result<Hidden> {
        let tokens = tokens_of(rows)?;
        self.embed_tokens.forward(&tokens, &self.compute).ok_or_else(|| self.unknown_token(&tokens))
    }

    pub(super) fn unknown_token(&self, tokens: &[u32]) -> Error {
        let vocab_size = self.architecture.vocab_size;
        let token = tokens.iter().copied().find(|&token| token as usize >= vocab_size).unwrap_or_default();
        Error::Token { token, vocab_size }
    }

    /// Begins a training pass over whole sequences that goes layer by layer: hidden states `[n, hidden]`, n being the
    /// number of tokens of all rows. Training needs the steps apart, to run a layer twice instead of keeping all that
    /// it computed.
    ///
    /// # Errors
    /// As [`Transformer::forward`].
    pub fn begin(&self, sequences: &[&[u32]], dropout: Dropout) -> Result<(Pass, Tensor<2>)> {
        let rows: Vec<Row<'_>> = sequences.iter().map(|tokens| Row::whole(tokens)).collect();
        let x = self.embed(&rows)?;
        let rotation = Rotation::new(&self.architecture, &rows, &self.compute);
        let device = self.compute.device().clone();
        let x = x.into_tensor(&device);
        let lens = rows.iter().map(Row::len).collect();
        Ok((Pass { rotation, device, lens, dropout }, x))
    }

    /// Layer `index` of a pass, of [`Architecture::n_layers`]: `[n, hidden]` → `[n, hidden]`. The same pass, layer and
    /// input give the same result again, dropout included.
    ///
    /// # Errors
    /// [`Error::NoLayer`] where there is no such layer.
    pub fn layer(&self, index: usize, x: Tensor<2>, pass: &Pass) -> Result<Tensor<2>> {
        let layer = self.layers.get(index).ok_or(Error::NoLayer { index, layers: self.layers.len() })?;
        let residual = Residual::Dropout { layer: index, pass };
        let stream = Stream::from(Hidden::from(x));
        let stream = layer.forward(stream, &pass.rotation, PassRows::Whole(&pass.lens), residual);
        Ok(stream.sum().into_tensor(&pass.device))
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
    /// [`Error::Position`] where there is no such position, [`Error::Nn`] where the device fails.
    pub fn logits_at(&self, hidden: &Hidden, positions: &[usize]) -> Result<Logits> {
        self.logits_among(hidden, positions, 0..self.architecture.vocab_size)
    }

    /// [`Transformer::logits_at`] where only tokens with ids in a range can come, such as those of images: their part
    /// of the head is computed, and the logits of all others are minus infinity.
    ///
    /// # Errors
    /// As [`Transformer::logits_at`].
    pub fn logits_among(&self, hidden: &Hidden, positions: &[usize], ids: Range<usize>) -> Result<Logits> {
        let [n, _] = hidden.dims();
        if let Some(&position) = positions.iter().find(|&&position| position >= n) {
            return Err(Error::Position { position, tokens: n });
        }
        let ids = self.known_ids(ids);
        self.compute.in_pool(|| self.some_logits(hidden, positions, ids))
    }

    /// Those that the vocabulary has.
    fn known_ids(&self, ids: Range<usize>) -> Range<usize> {
        let end = ids.end.min(self.architecture.vocab_size);
        ids.start.min(end)..end
    }

    fn some_logits(&self, hidden: &Hidden, positions: &[usize], ids: Range<usize>) -> Result<Logits> {
        if ids.is_empty() {
            return Ok(Logits::new(Hidden::on_host(&self.compute, positions.len(), 0, |_| {}), ids));
        }
        self.read_logits(self.lm_head.forward_some(&hidden.select(positions), ids.clone()), ids)
    }

    /// The logits of the tokens `ids` in host memory, without those that the model must never give.
    pub(super) fn read_logits(&self, logits: Hidden, ids: Range<usize>) -> Result<Logits> {
        let mut logits = logits.read()?;
        let masked = &self.architecture.masked_logits;
        if let Some(values) = logits.as_mut_slice()
            && !masked.is_empty()
        {
            for row in values.chunks_exact_mut(ids.len()) {
                for &token in masked.iter().filter(|&&token| ids.contains(&(token as usize))) {
                    row[token as usize - ids.start] = f32::MIN;
                }
            }
        }
        Ok(Logits::new(logits, ids))
    }
}

impl std::fmt::Debug for Transformer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transformer")
            .field("architecture", &self.architecture)
            .field("compute", &self.compute)
            .finish_non_exhaustive()
    }
}
