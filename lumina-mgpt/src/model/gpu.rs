//! Passes on a GPU: one upload, and launches that are replayed.

use std::ops::Range;

use lumina_nn::ops::{GpuDraw, GpuInputs, GpuPass, GpuPassValues, GpuResult, GpuRow, GpuTokens, Hidden};
use smallvec::SmallVec;

use super::attention::PassRows;
use super::layer::Stream;
use super::logits::{Drawn, Logits, RowDraw};
use super::rope::{Rotation, write_angles};
use super::row::{MAX_INLINE_ROWS, Row};
use super::stage::Stage;
use super::transformer::Transformer;
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
    /// The layers of a stage on a GPU, after those that gave `x`: hidden states, on the GPU after the last stage, and
    /// in host memory after others.
    pub(super) fn stage_on_gpu(
        &self,
        stage: &Stage,
        rows: &[Row<'_>],
        tokens: &[u32],
        x: Option<&Hidden>,
        observe: Option<&mut dyn FnMut(&Hidden)>,
    ) -> Result<Hidden> {
        let is_last = self.is_last(stage);
        self.with_inputs(stage, rows, tokens, x, (&[], &[]), |inputs| {
            if is_last || observe.is_some() {
                let hidden = self.launch(stage, &GpuPass::new(inputs), observe);
                return Ok(if is_last { hidden } else { hidden.to_host()? });
            }
            let launch = |pass: &GpuPass| GpuResult { rows: self.launch(stage, pass, None), tokens: None };
            Ok(stage.recordings.run(inputs, 0..0, launch, |result| result.rows.to_host())?)
        })
    }

    /// [`Transformer::run`], where the last stage is on a GPU: logits of the tokens `ids`, after the tokens at
    /// `positions` of the pass.
    pub(super) fn run_on_gpu(&self, rows: &mut [Row<'_>], positions: &[usize], ids: Range<usize>) -> Result<Logits> {
        let logits = self.replay(rows, (positions, &[]), &ids, |result| result.rows.to_host())?;
        self.read_logits(logits, ids)
    }

    /// [`Transformer::run_on_gpu`] that draws a token for each of `draws`, which name rows of logits. Where one of them
    /// cannot be drawn, the logits are the result. No token of `ids` is masked.
    pub(super) fn draw_on_gpu(
        &self,
        rows: &mut [Row<'_>],
        positions: &[usize],
        ids: Range<usize>,
        draws: &[GpuDraw],
    ) -> Result<Drawn> {
        self.replay(rows, (positions, draws), &ids, |result| {
            let tokens = result.tokens.as_ref().map_or(Ok(None), GpuTokens::read)?;
            Ok(match tokens {
                Some(tokens) => Drawn::Tokens(tokens),
                None => Drawn::Logits(Logits::new(result.rows.to_host()?, ids.clone())),
            })
        })
    }

    /// Makes a pass with logits of the tokens `ids`, replayed where one of its shape was recorded; `read` gets what it
    /// gives.
    fn replay<T>(
        &self,
        rows: &mut [Row<'_>],
        selected: (&[usize], &[GpuDraw]),
        ids: &Range<usize>,
        read: impl FnOnce(&GpuResult) -> lumina_nn::Result<T>,
    ) -> Result<T> {
        self.with_caches(rows, |rows, tokens| {
            let (x, stage) = self.before_last(rows, tokens, &mut None)?;
            let launch = |pass: &GpuPass| {
                let hidden = self.launch(stage, pass, None);
                let rows = self.lm_head.forward_some(&pass.select(&hidden), ids.clone());
                let tokens = pass.draw(&rows, ids.start as u32);
                GpuResult { rows, tokens }
            };
            self.with_inputs(stage, rows, tokens, x.as_ref(), selected, |inputs| {
                Ok(stage.recordings.run(inputs, ids.clone(), launch, read)?)
            })
        })
    }

    /// The launches of a stage's layers, and of the final norm where it is the last.
    fn launch(&self, stage: &Stage, pass: &GpuPass, mut observe: Option<&mut dyn FnMut(&Hidden)>) -> Hidden {
        let mut stream = Stream::from(pass.hidden().unwrap_or_else(|| self.embed_tokens.forward_on_gpu(pass)));
        let rotation = Rotation::on_gpu(pass.rotation());
        for (layer, network) in self.layers_of(stage).enumerate() {
            stream = stream.observed(&mut observe);
            stream = network.forward(stream, &rotation, PassRows::Gpu { pass, layer }, None);
        }
        self.leave(stage, stream, observe)
    }

    /// Calls `run` with what a stage's part of a pass reads, in a turn on its GPU.
    fn with_inputs<T>(
        &self,
        stage: &Stage,
        rows: &[Row<'_>],
        tokens: &[u32],
        x: Option<&Hidden>,
        (selected, draws): (&[usize], &[GpuDraw]),
        run: impl FnOnce(&GpuInputs) -> Result<T>,
    ) -> Result<T> {
        let pool = stage.kv_pool.as_ref().ok_or(Error::ForeignCache)?;
        // From here on buffers stay where they are: they grow in a turn, too.
        let _turn = pool.turn();
        let mut parts: SmallVec<[GpuRow<'_>; MAX_INLINE_ROWS]> = SmallVec::new();
        for row in rows {
            let kv = row.cache.as_deref().and_then(|cache| cache.on_gpu(pool));
            let kv = kv.ok_or(Error::ForeignCache)?;
            parts.push(GpuRow { kv, position: row.position(), len: row.len(), path: row.attention });
        }
        let angles = |part| {
            let mut values = vec![0.0; tokens.len() * self.architecture.head_dim / 2];
            write_angles(&self.architecture, rows, part, &mut values);
            values
        };
        let (cos, sin) = (angles(f32::cos), angles(f32::sin));
        let hidden = x.and_then(Hidden::as_slice).unwrap_or_default();
        let values = GpuPassValues { tokens, rotation: [&cos, &sin], hidden, selected, draws };
        run(&GpuInputs::new(&parts, values).ok_or(Error::EmptyRow)?)
    }
}
