//! Passes on a GPU: one upload, and launches that are replayed.

use std::ops::Range;
use std::sync::Arc;

use lumina_nn::ops::{GpuDraw, GpuInputs, GpuKvPool, GpuPass, GpuResult, GpuRow, GpuTokens, Hidden};
use smallvec::SmallVec;

use super::attention::PassRows;
use super::layer::{Residual, Stream};
use super::logits::{Drawn, Logits, RowDraw};
use super::rope::{Rotation, write_angles};
use super::row::{MAX_INLINE_ROWS, Row};
use super::transformer::{Transformer, tokens_of};
use crate::{Error, Result};

/// Draws as the device takes them.
pub(super) fn draws(draws: &[RowDraw]) -> SmallVec<[GpuDraw; MAX_INLINE_ROWS]> {
    let draw = |&RowDraw { ref draw, conditional, unconditional }: &RowDraw| GpuDraw {
        row: conditional as u32,
        unconditional: unconditional.map(|row| row as u32),
        guidance_scale: draw.guidance_scale.unwrap_or(1.0),
        top_k: u32::try_from(draw.top_k).unwrap_or(u32::MAX),
        temperature: draw.temperature,
        seed: draw.key.seed,
        branch: draw.key.branch,
        position: draw.position as u32,
    };
    draws.iter().map(draw).collect()
}

impl Transformer {
    /// [`Transformer::forward_with`].
    pub(super) fn forward_on_gpu(
        &self,
        pool: &Arc<GpuKvPool>,
        rows: &mut [Row<'_>],
        observe: Option<&mut dyn FnMut(&Hidden)>,
    ) -> Result<Hidden> {
        self.with_inputs(pool, rows, (&[], &[]), |inputs| Ok(self.hidden_on_gpu(&GpuPass::new(inputs), observe)))
    }

    /// [`Transformer::run`]: logits of the tokens `ids`, after the tokens at `positions` of the pass.
    pub(super) fn run_on_gpu(
        &self,
        pool: &Arc<GpuKvPool>,
        rows: &mut [Row<'_>],
        positions: &[usize],
        ids: Range<usize>,
    ) -> Result<Logits> {
        let logits = self.replay(pool, rows, (positions, &[]), &ids, |result| result.logits.to_host())?;
        self.read_logits(logits, ids)
    }

    /// [`Transformer::run_on_gpu`] that draws a token for each of `draws`, which name rows of logits. Where one of them
    /// cannot be drawn, the logits are the result. No token of `ids` is masked.
    pub(super) fn draw_on_gpu(
        &self,
        pool: &Arc<GpuKvPool>,
        rows: &mut [Row<'_>],
        positions: &[usize],
        ids: Range<usize>,
        draws: &[GpuDraw],
    ) -> Result<Drawn> {
        self.replay(pool, rows, (positions, draws), &ids, |result| {
            let tokens = result.tokens.as_ref().map_or(Ok(None), GpuTokens::read)?;
            Ok(match tokens {
                Some(tokens) => Drawn::Tokens(tokens),
                None => Drawn::Logits(Logits::new(result.logits.to_host()?, ids.clone())),
            })
        })
    }

    /// Makes a pass with logits of the tokens `ids`, replayed where one of its shape was recorded; `read` gets what it
    /// gives.
    fn replay<T>(
        &self,
        pool: &Arc<GpuKvPool>,
        rows: &mut [Row<'_>],
        selected: (&[usize], &[GpuDraw]),
        ids: &Range<usize>,
        read: impl FnOnce(&GpuResult) -> lumina_nn::Result<T>,
    ) -> Result<T> {
        let launch = |pass: &GpuPass| {
            let hidden = self.hidden_on_gpu(pass, None);
            let logits = self.lm_head.forward_some(&pass.select(&hidden), ids.clone());
            let tokens = pass.draw(&logits, ids.start as u32);
            GpuResult { logits, tokens }
        };
        self.with_inputs(pool, rows, selected, |inputs| Ok(self.recordings.run(inputs, ids.clone(), launch, read)?))
    }

    /// The launches of a pass, up to the final norm.
    fn hidden_on_gpu(&self, pass: &GpuPass, mut observe: Option<&mut dyn FnMut(&Hidden)>) -> Hidden {
        let mut stream = Stream::from(self.embed_tokens.forward_on_gpu(pass));
        let rotation = Rotation::on_gpu(pass.rotation());
        for (layer, network) in self.layers.iter().enumerate() {
            stream = stream.observed(&mut observe);
            stream = network.forward(stream, &rotation, PassRows::Gpu { pass, layer }, Residual::Plain);
        }
        let (_, normed) = stream.normed(&self.norm);
        if let Some(observe) = observe {
            observe(&normed);
        }
        normed
    }

    /// Calls `run` with what the pass reads, once there is room for the tokens of all rows.
    fn with_inputs<T>(
        &self,
        pool: &Arc<GpuKvPool>,
        rows: &mut [Row<'_>],
        (selected, draws): (&[usize], &[GpuDraw]),
        run: impl FnOnce(&GpuInputs) -> Result<T>,
    ) -> Result<T> {
        let tokens = tokens_of(rows)?;
        if tokens.iter().any(|&token| token as usize >= self.architecture.vocab_size) {
            return Err(self.unknown_token(&tokens));
        }
        self.with_caches(rows, |rows| {
            // From here on buffers stay where they are: they grow in a turn, too.
            let _turn = pool.turn();
            let mut parts: SmallVec<[GpuRow<'_>; MAX_INLINE_ROWS]> = SmallVec::new();
            for row in rows.iter() {
                let kv = row.cache.as_deref().and_then(|cache| cache.gpu.as_ref()).filter(|kv| kv.is_of(pool));
                let kv = kv.ok_or(Error::ForeignCache)?;
                parts.push(GpuRow { kv, position: row.position(), len: row.len(), path: row.attention });
            }
            let angles = |part| {
                let mut values = vec![0.0; tokens.len() * self.architecture.head_dim / 2];
                write_angles(&self.architecture, rows, part, &mut values);
                values
            };
            let (cos, sin) = (angles(f32::cos), angles(f32::sin));
            run(&GpuInputs::new(&parts, &tokens, (&cos, &sin), selected, draws).ok_or(Error::EmptyRow)?)
        })
    }
}
