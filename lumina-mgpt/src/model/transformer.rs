//! The transformer: embedding, layers, final norm, head.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use lumina_checkpoint::Checkpoint;
use lumina_nn::ops::{Embedding, Hidden, Linear};
use lumina_nn::{Compute, LoadProgress, Loader};
use smallvec::SmallVec;

use super::config::{Architecture, ModelConfig};
use super::fit::Fit;
use super::kv_cache::KvCache;
use super::layer::Layer;
use super::logits::{Drawn, Logits, RowDraw};
use super::norm::RmsNorm;
use super::row::{MAX_INLINE_ROWS, Row};
use super::stage::Stage;
use crate::convert;
use crate::{Error, Result};

/// The decoder-only transformer, for inference and training alike.
///
/// Rows of different lengths share a pass without padding: their tokens lie one after the other in `[n, hidden]`, the
/// linear layers see all of them at once, and attention gives each row its own keys and values.
/// Mirrors `modeling_chameleon.py::ChameleonForConditionalGeneration`.
#[cfg_attr(feature = "burn", derive(burn::module::Module))]
pub struct Transformer {
    pub(super) embed_tokens: Embedding,
    pub(super) layers: Vec<Layer>,
    pub(super) norm: RmsNorm,
    pub(super) lm_head: Linear,
    #[cfg_attr(feature = "burn", module(skip))]
    pub(super) architecture: Architecture,
    #[cfg_attr(feature = "burn", module(skip))]
    pub(super) compute: Compute,
    /// Where the layers compute, in their order; one at least.
    #[cfg_attr(feature = "burn", module(skip))]
    pub(super) stages: Vec<Stage>,
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
    /// Builds the network from its tensors, all on the first device; problems are reported by [`Loader::finish`].
    pub fn new(loader: &Loader<'_>, architecture: Architecture) -> Self {
        let all = 0..architecture.layers;
        Self::with_places(loader, architecture, &[(loader.compute().devices().swap_remove(0), all)])
    }

    /// Builds the network from its tensors, with the layers where `places` says, which are in the order of the layers.
    fn with_places(loader: &Loader<'_>, architecture: Architecture, places: &[(Compute, Range<usize>)]) -> Self {
        let loaders: SmallVec<[Loader<'_>; 1]> = places.iter().map(|(compute, _)| loader.on(compute)).collect();
        let [first, last] = [loaders.first(), loaders.last()].map(|own| own.unwrap_or(loader));
        let place_of = |layer| places.iter().position(|(_, layers)| layers.contains(&layer)).unwrap_or(0);
        let &Architecture { vocab_size, hidden, tied_head, .. } = &architecture;
        let embedding = first.pp("model").pp("embed_tokens");
        let head = if tied_head { last.pp("model").pp("embed_tokens") } else { last.pp("lm_head") };
        let layer = |own: &Loader<'_>, index| Layer::new(&own.like(&loaders[place_of(index)]), &architecture);
        Self {
            embed_tokens: if tied_head {
                embedding.tied_embedding(vocab_size, hidden)
            } else {
                embedding.embedding(vocab_size, hidden)
            },
            layers: loader.pp("model").pp("layers").parts(architecture.layers, layer),
            norm: RmsNorm::new(&last.pp("model").pp("norm"), hidden, architecture.rms_norm_eps),
            lm_head: head.head(hidden, vocab_size),
            stages: places.iter().map(|(compute, own)| Stage::new(&architecture, own.clone(), compute)).collect(),
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
    /// misshaped; [`Error::DoesNotFit`] where a network is to be split over devices that have too little memory.
    pub fn from_loader(loader: &Loader<'_>, architecture: Architecture) -> Result<Self> {
        let compute = loader.compute();
        compute.check()?;
        let tied = architecture.tied_head;
        let model = match loader.checkpoint().filter(|_| compute.check_alone().is_err()) {
            None => Self::new(loader, architecture),
            Some(checkpoint) => {
                let places = Fit::new(checkpoint, loader.adapter(), &architecture, compute).places(compute)?;
                Self::with_places(loader, architecture, &places)
            }
        };
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

    /// Where the network computes. Of several devices [`Lumina::fit`](crate::Lumina::fit) says which layers are where.
    pub fn compute(&self) -> &Compute {
        &self.compute
    }

    /// An empty cache for a sequence of up to `capacity` tokens.
    pub fn new_cache(&self, capacity: usize) -> KvCache {
        let parts = self.stages.iter().map(|stage| stage.new_kv(&self.architecture, capacity));
        KvCache::of(parts.collect(), capacity)
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
        self.in_pool(|| self.hidden(rows, None))
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
        if self.draws_on_device() && !positions.is_empty() {
            return self.run_on_gpu(rows, &positions, self.known_ids(ids));
        }
        self.in_pool(|| {
            let hidden = self.hidden(rows, None)?;
            self.logits_among(&hidden, &positions, ids)
        })
    }

    /// [`Transformer::run`] that makes `draws` on the device, if it can: a token each, in their order. Logits
    /// otherwise.
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
        if let Some(draws) = draws
            && self.draws_on_device()
            && !self.architecture.masked_logits.iter().any(|&token| ids.contains(&(token as usize)))
        {
            let positions = positions(rows)?;
            return self.draw_on_gpu(rows, &positions, self.known_ids(ids), &super::gpu::draws(draws));
        }
        let _ = draws;
        self.run(rows, ids).map(Drawn::Logits)
    }

    /// Whether drafts of a row can branch: see [`Row::parents`].
    pub fn takes_trees(&self) -> bool {
        self.stages.iter().all(|stage| stage.compute.is_host())
    }

    /// Whether a token's results do not depend on how many others share its pass, to the bit:
    /// [`Compute::has_independent_rows`] wherever layers are.
    pub(crate) fn has_independent_rows(&self) -> bool {
        self.stages.iter().all(|stage| stage.compute.has_independent_rows())
    }

    /// Whether tokens can be drawn where the network computes: where its head is.
    pub(crate) fn draws_on_device(&self) -> bool {
        self.stages.last().is_some_and(Stage::is_on_gpu)
    }

    /// [`Transformer::forward`] that calls `observe` with the input of each layer and the final hidden states.
    ///
    /// # Errors
    /// As [`Transformer::forward`].
    pub fn forward_with(&self, rows: &mut [Row<'_>], observe: &mut dyn FnMut(&Hidden)) -> Result<Hidden> {
        self.hidden(rows, Some(observe))
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
        self.in_pool(|| self.some_logits(hidden, positions, ids))
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
