//! A pass over the network, stage by stage: most networks have one, and others hand hidden states from one to the next.

use lumina_nn::Compute;
use lumina_nn::ops::Hidden;
use smallvec::SmallVec;

use super::attention::PassRows;
use super::kv_cache::KvCache;
use super::layer::{Layer, Stream};
use super::rope::Rotation;
use super::row::{MAX_INLINE_ROWS, Row};
use super::stage::Stage;
use super::transformer::Transformer;
use crate::{Error, Result};

/// The tokens of all rows, none of which is empty.
fn tokens_of(rows: &[Row<'_>]) -> Result<SmallVec<[u32; MAX_INLINE_ROWS]>> {
    if rows.is_empty() || rows.iter().any(|row| row.len() == 0) {
        return Err(Error::EmptyRow);
    }
    Ok(rows.iter().flat_map(|row| row.tokens).copied().collect())
}

impl Transformer {
    /// The hidden states of the rows' tokens after the final norm, `[n, hidden]`: [`Transformer::forward_with`].
    pub(super) fn hidden(&self, rows: &mut [Row<'_>], observe: Option<&mut dyn FnMut(&Hidden)>) -> Result<Hidden> {
        for row in rows.iter() {
            if let Some(cache) = &row.cache
                && cache.len() + row.len() > cache.capacity()
            {
                return Err(Error::CacheFull { needed: cache.len() + row.len(), capacity: cache.capacity() });
            }
        }
        if rows.iter().all(|row| row.cache.is_none()) && !self.stages.iter().any(Stage::is_on_gpu) {
            let tokens = self.tokens(rows)?;
            return self.run_stages(rows, &tokens, observe);
        }
        self.with_caches(rows, |rows, tokens| self.run_stages(rows, tokens, observe))
    }

    /// Checks that a row's drafts branch where that is possible, and as they can.
    fn check_tree(&self, row: &Row<'_>) -> Result<()> {
        let mut parents = row.parents.iter().enumerate();
        let is_tree = row.parents.len() + 1 == row.len() && parents.all(|(before, &parent)| parent as usize <= before);
        if row.parents.is_empty() || (is_tree && self.takes_trees() && row.has_host_cache(0)) {
            return Ok(());
        }
        Err(Error::Tree { tokens: row.len(), parents: row.parents.len() })
    }

    /// All stages, one after the other.
    fn run_stages(
        &self,
        rows: &mut [Row<'_>],
        tokens: &[u32],
        mut observe: Option<&mut dyn FnMut(&Hidden)>,
    ) -> Result<Hidden> {
        let (x, last) = self.before_last(rows, tokens, &mut observe)?;
        self.run_stage(last, rows, tokens, x, observe)
    }

    /// Runs all stages but the last: the hidden states that it begins with, in host memory, or none where it begins
    /// with the tokens; and the last stage.
    pub(super) fn before_last(
        &self,
        rows: &mut [Row<'_>],
        tokens: &[u32],
        observe: &mut Option<&mut dyn FnMut(&Hidden)>,
    ) -> Result<(Option<Hidden>, &Stage)> {
        let (last, others) = self.stages.split_last().expect("a network has a stage, as its constructors make one");
        let mut x = None;
        for stage in others {
            // A mutable reference in an option is reborrowed by hand.
            let observe = observe.as_mut().map(|observe| &mut **observe as &mut dyn FnMut(&Hidden));
            x = Some(self.run_stage(stage, rows, tokens, x, observe)?);
        }
        Ok((x, last))
    }

    /// The layers of a stage, after those that gave `x`: hidden states `[n, hidden]`, after the last stage normed.
    fn run_stage(
        &self,
        stage: &Stage,
        rows: &mut [Row<'_>],
        tokens: &[u32],
        x: Option<Hidden>,
        observe: Option<&mut dyn FnMut(&Hidden)>,
    ) -> Result<Hidden> {
        #[cfg(feature = "cube")]
        if stage.is_on_gpu() {
            return self.stage_on_gpu(stage, rows, tokens, x.as_ref(), observe);
        }
        match observe {
            None => stage.compute.in_pool(|| self.stage_on_host(stage, rows, tokens, x, None)),
            observe => self.stage_on_host(stage, rows, tokens, x, observe),
        }
    }

    /// [`Transformer::run_stage`] elsewhere than on a GPU of our own kernels.
    fn stage_on_host(
        &self,
        stage: &Stage,
        rows: &mut [Row<'_>],
        tokens: &[u32],
        x: Option<Hidden>,
        mut observe: Option<&mut dyn FnMut(&Hidden)>,
    ) -> Result<Hidden> {
        let compute = &stage.compute;
        let x = match x {
            Some(x) => x,
            None => self.embed(tokens, compute)?,
        };
        let rotation = Rotation::new(&self.architecture, rows, compute);
        let is_whole = rows.iter().all(|row| row.cache.is_none());
        let lens: SmallVec<[usize; MAX_INLINE_ROWS]> = rows.iter().map(|row| row.len()).collect();
        let mut stream = Stream::from(x);
        for (layer, network) in stage.layers.clone().zip(self.layers_of(stage)) {
            stream = stream.observed(&mut observe);
            let rows =
                if is_whole { PassRows::Whole(&lens) } else { PassRows::Cached { rows: &mut *rows, layer, compute } };
            stream = network.forward(stream, &rotation, rows, None);
        }
        Ok(self.leave(stage, stream, observe))
    }

    /// What leaves a stage: the stream, after the last one its norm.
    pub(super) fn leave(&self, stage: &Stage, stream: Stream, observe: Option<&mut dyn FnMut(&Hidden)>) -> Hidden {
        if !self.is_last(stage) {
            return stream.sum();
        }
        let (_, normed) = stream.normed(&self.norm);
        if let Some(observe) = observe {
            observe(&normed);
        }
        normed
    }

    pub(super) fn is_last(&self, stage: &Stage) -> bool {
        stage.layers.end == self.architecture.layers
    }

    pub(super) fn layers_of(&self, stage: &Stage) -> impl Iterator<Item = &Layer> {
        self.layers.iter().take(stage.layers.end).skip(stage.layers.start)
    }

    /// Enters the rayon pool once for a whole pass, where all of it is computed there.
    pub(super) fn in_pool<R: Send>(&self, op: impl FnOnce() -> R + Send) -> R {
        match &*self.stages {
            [stage] => stage.compute.in_pool(op),
            _ => op(),
        }
    }

    /// Calls `run` with the rows, each of which has a cache with room for its tokens: where none is to be kept, until
    /// its end; and with the tokens, which the vocabulary has. They then are those of the caches.
    pub(super) fn with_caches<T>(
        &self,
        rows: &mut [Row<'_>],
        run: impl FnOnce(&mut [Row<'_>], &[u32]) -> Result<T>,
    ) -> Result<T> {
        let tokens = self.tokens(rows)?;
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
            let Some(cache) = row.cache.as_deref_mut() else { continue };
            if !self.stages.iter().all(|stage| stage.is_served_by(cache, &self.architecture)) {
                return Err(Error::ForeignCache);
            }
            cache.reserve(len)?;
        }
        let result = run(&mut all, &tokens)?;
        for row in &mut all {
            let len = row.len();
            if let Some(cache) = row.cache.as_deref_mut() {
                cache.advance(len);
            }
        }
        Ok(result)
    }

    /// The tokens of all rows, which the vocabulary has, and whose drafts branch where they can.
    pub(super) fn tokens(&self, rows: &[Row<'_>]) -> Result<SmallVec<[u32; MAX_INLINE_ROWS]>> {
        let (tokens, vocab_size) = (tokens_of(rows)?, self.architecture.vocab_size);
        match tokens.iter().find(|&&token| token as usize >= vocab_size) {
            Some(&token) => Err(Error::Token { token, vocab_size }),
            None => rows.iter().try_for_each(|row| self.check_tree(row)).map(|()| tokens),
        }
    }

    /// The hidden states of tokens.
    pub(super) fn embed(&self, tokens: &[u32], compute: &Compute) -> Result<Hidden> {
        let (token, vocab_size) = (tokens.iter().copied().max().unwrap_or_default(), self.architecture.vocab_size);
        self.embed_tokens.forward(tokens, compute).ok_or(Error::Token { token, vocab_size })
    }
}
