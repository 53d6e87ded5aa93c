//! One pass over the weights for all sequences that run.
//!
//! A pass runs what each branch has pending: a chunk of its prompt, or the tokens since the last draw. So prompts are
//! prefilled in chunks together with rows that already decode; a token that the grammar forces has no pass of its own
//! but waits for the next drawn one; and under guidance the unconditional branch, which sees the current image alone,
//! is a second row of the same pass.

use std::ops::Range;
use std::time::Duration;

use lumina_sampling::LogitsRow;
use smallvec::SmallVec;

use super::branch::Chunk;
use super::clock::{Clock, now};
use super::entry::Entry;
use super::sequence::Sequence;
use crate::error::catch;
use crate::model::{Drawn, MAX_INLINE_ROWS, Row, RowDraw, Transformer};
use crate::{Error, Result};

/// A row of the pass.
#[derive(Clone, Copy)]
struct Ran {
    entry: usize,
    is_unconditional: bool,
    chunk: Chunk,
    /// The rows of logits after the last of its tokens that are certain and after each draft, where they decide draws.
    logits: Option<usize>,
}

/// What a step has brought.
pub(super) struct Stepped {
    /// The errors of draws, each with the index of its entry.
    pub(super) failed: Vec<(usize, Error)>,
    /// Tokens of the pass, where it had no part of a prompt; else 0.
    pub(super) decoded: usize,
    /// Time of pass and draws.
    pub(super) time: Duration,
}

/// Runs one pass for the entries: each gets one or more drawn tokens and the forced ones after them, or another chunk
/// of its prompt is run.
///
/// An entry's draw that fails does not affect the others.
///
/// # Errors
/// [`Error::Nn`] where the device fails, [`Error::Panicked`] where a backend or the clock does; the sequences cannot go
/// on then.
pub(super) fn step(transformer: &Transformer, entries: &mut [Entry], clock: &dyn Clock) -> Result<Stepped> {
    let started = now(clock)?;
    let (result, ran) = catch("a pass over the weights", || run(transformer, entries))??;
    let time = now(clock)?.saturating_sub(started);
    for row in &ran {
        let sequence = &mut entries[row.entry].sequence;
        let branch = sequence.branches_mut().nth(usize::from(row.is_unconditional));
        branch.expect("the pass ran this branch").advance(row.chunk);
        if !row.is_unconditional {
            note_pass(sequence, time);
        }
    }
    for entry in entries.iter_mut() {
        let bytes = entry.sequence.kv_bytes();
        entry.sequence.stats.kv_cache_bytes = entry.sequence.stats.kv_cache_bytes.max(bytes);
    }

    let mut failed = Vec::new();
    let is_decode = ran.iter().all(|row| row.logits.is_some() && row.chunk.is_decode());
    let decoded = if is_decode { ran.iter().map(|row| row.chunk.len).sum() } else { 0 };
    let Some(result) = result else { return Ok(Stepped { failed, decoded, time }) };
    let mut drawn = match &result {
        Drawn::Tokens(tokens) => tokens.as_slice(),
        Drawn::Logits(_) => &[],
    };
    for (at, row) in ran.iter().enumerate().filter(|(_, row)| !row.is_unconditional) {
        let Some(conditional) = row.logits else { continue };
        let sequence = &mut entries[row.entry].sequence;
        let logits = match &result {
            Drawn::Tokens(_) => {
                let (own, others) = drawn.split_at((sequence.n_drafts() + 1).min(drawn.len()));
                drawn = others;
                sequence.take_drawn(own, transformer);
                continue;
            }
            Drawn::Logits(logits) => logits,
        };
        let unconditional = ran.get(at + 1).filter(|next| next.entry == row.entry).and_then(|next| next.logits);
        let rows = |node| {
            let row = |first: usize| logits.sampler_row(first + node);
            (row(conditional), unconditional.map(row))
        };
        if let Err(error) = draw(sequence, rows, transformer, clock) {
            sequence.fail();
            failed.push((row.entry, error));
        }
    }
    Ok(Stepped { failed, decoded, time: now(clock)?.saturating_sub(started) })
}

/// Draws from the rows of logits of the conditional and the unconditional branch, and notes the time.
fn draw<'r>(
    sequence: &mut Sequence,
    rows: impl Fn(usize) -> (LogitsRow<'r>, Option<LogitsRow<'r>>),
    transformer: &Transformer,
    clock: &dyn Clock,
) -> Result<()> {
    let started = now(clock)?;
    sequence.draw(rows, transformer)?;
    sequence.stats.sampling += now(clock)?.saturating_sub(started);
    Ok(())
}

/// The pass itself: tokens or the logits of all draws, and which rows ran.
fn run(transformer: &Transformer, entries: &mut [Entry]) -> Result<(Option<Drawn>, SmallVec<[Ran; MAX_INLINE_ROWS]>)> {
    let vocab_size = transformer.architecture().vocab_size();
    let mut rows: SmallVec<[Row<'_>; MAX_INLINE_ROWS]> = SmallVec::new();
    let mut ran: SmallVec<[Ran; MAX_INLINE_ROWS]> = SmallVec::new();
    // The candidates of all draws: one product with the head serves them.
    let mut ids: Option<Range<usize>> = None;
    // Where a device draws, it draws all of a pass, from the same ids.
    let mut plain: Option<SmallVec<[RowDraw; MAX_INLINE_ROWS]>> = transformer.draws_on_device().then(SmallVec::new);
    let mut n_logits = 0;
    for (index, entry) in entries.iter_mut().enumerate() {
        let sequence = &mut entry.sequence;
        let draws = sequence.draws_next();
        let n_nodes = sequence.n_drafts() + 1;
        let chunks = sequence.chunks();
        if draws {
            let own = sequence.candidate_range(vocab_size);
            ids = Some(match ids {
                Some(others) => others.start.min(own.start)..others.end.max(own.end),
                None => own,
            });
            let unconditional = chunks[1].map(|_| n_logits + n_nodes);
            plain = plain.filter(|plain| {
                let first = plain.first().map(|first| first.draw.ids.clone());
                sequence.plain_draw().is_some_and(|own| first.is_none_or(|ids| ids == own.ids))
            });
            if let Some(plain) = &mut plain {
                plain.extend(sequence.plain_draws().enumerate().map(|(node, draw)| RowDraw {
                    draw,
                    conditional: n_logits + node,
                    unconditional: unconditional.map(|first| first + node),
                }));
            }
        }
        for (is_unconditional, (branch, chunk)) in [false, true].into_iter().zip(sequence.branches_mut().zip(chunks)) {
            let Some(chunk) = chunk else { continue };
            let logits = draws.then_some(n_logits);
            n_logits += if draws { n_nodes } else { 0 };
            ran.push(Ran { entry: index, is_unconditional, chunk, logits });
            rows.push(Row {
                tokens: &branch.pending[..chunk.len],
                cache: Some(&mut branch.cache),
                planned_len: branch.len,
                logits: if draws { chunk.len - n_nodes..chunk.len } else { 0..0 },
                attention: chunk.attention,
                parents: &branch.parents,
            });
        }
    }
    if rows.is_empty() {
        return Ok((None, ran));
    }
    let result = match ids {
        Some(ids) => Some(transformer.run_and_draw(&mut rows, ids, plain.as_deref())?),
        None => {
            transformer.forward(&mut rows)?;
            None
        }
    };
    Ok((result, ran))
}

/// Adds a pass to the statistics of a sequence that took part in it.
fn note_pass(sequence: &mut Sequence, time: Duration) {
    let is_prefill = sequence.answer().len() == sequence.stats.forced_tokens;
    let stats = &mut sequence.stats;
    stats.passes += 1;
    *(if is_prefill { &mut stats.prefill } else { &mut stats.decode }) += time;
}
