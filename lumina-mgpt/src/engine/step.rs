//! One pass over the weights for all sequences that run.
//!
//! A pass runs what each branch has pending: a chunk of its prompt, or the tokens since the last draw. So prompts are
//! prefilled in chunks together with rows that already decode; a token that the grammar forces has no pass of its own
//! but waits for the next drawn one; and under guidance the unconditional branch, which sees the current image alone,
//! is a second row of the same pass.

use std::ops::Range;
use std::time::Duration;

use lumina_sampling::{LogitsRow, PlainDraw};
use smallvec::SmallVec;

use super::clock::{Clock, now};
use super::entry::Entry;
use super::sequence::{Chunk, Sequence};
use crate::error::catch;
use crate::model::{Drawn, Logits, MAX_INLINE_ROWS, Row, Transformer};
use crate::{Error, Result};

/// A row of the pass.
#[derive(Clone, Copy)]
struct Ran {
    entry: usize,
    is_unconditional: bool,
    chunk: Chunk,
    /// Whether its logits decide a draw.
    draws: bool,
}

/// Runs one pass for the entries: each gets a drawn token and the forced ones after it, or another chunk of its prompt
/// is run.
///
/// The error of an entry's draw is returned with the entry's index; others are not affected.
///
/// # Errors
/// [`Error::Nn`] where the device fails, [`Error::Panicked`] where a backend or the clock does; the sequences cannot go
/// on then.
pub(super) fn step(transformer: &Transformer, entries: &mut [Entry], clock: &dyn Clock) -> Result<Vec<(usize, Error)>> {
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
    let logits = match result {
        Some(Drawn::Tokens(tokens)) => {
            let mut drawing = ran.iter().filter(|row| row.draws && !row.is_unconditional).map(|row| row.entry);
            for token in tokens {
                let Some(index) = drawing.next() else { break };
                entries[index].sequence.take(token, transformer);
            }
            return Ok(failed);
        }
        Some(Drawn::Logits(logits)) => Some(logits),
        None => None,
    };
    let rows = logits.iter().flat_map(Logits::sampler_rows);
    let mut rows = ran.iter().filter(|row| row.draws).map(|row| row.entry).zip(rows).peekable();
    while let Some((index, conditional)) = rows.next() {
        let unconditional = rows.next_if(|(next, _)| *next == index).map(|(_, logits)| logits);
        let sequence = &mut entries[index].sequence;
        if let Err(error) = draw(sequence, conditional, unconditional, transformer, clock) {
            sequence.fail();
            failed.push((index, error));
        }
    }
    Ok(failed)
}

/// Draws from the logits of the conditional and the unconditional row, and notes the time.
fn draw(
    sequence: &mut Sequence,
    conditional: LogitsRow<'_>,
    unconditional: Option<LogitsRow<'_>>,
    transformer: &Transformer,
    clock: &dyn Clock,
) -> Result<()> {
    let started = now(clock)?;
    sequence.draw(conditional, unconditional, transformer)?;
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
    let mut plain: Option<SmallVec<[PlainDraw; MAX_INLINE_ROWS]>> = transformer.draws_on_device().then(SmallVec::new);
    for (index, entry) in entries.iter_mut().enumerate() {
        let sequence = &mut entry.sequence;
        let draws = sequence.draws_next();
        if draws {
            let own = sequence.candidate_range(vocab_size);
            ids = Some(match ids {
                Some(others) => others.start.min(own.start)..others.end.max(own.end),
                None => own,
            });
            plain = match (plain, sequence.plain_draw()) {
                (Some(mut draws), Some(draw)) if draws.first().is_none_or(|first| first.ids == draw.ids) => {
                    draws.push(draw);
                    Some(draws)
                }
                _ => None,
            };
        }
        let chunks = sequence.chunks();
        for (is_unconditional, (branch, chunk)) in [false, true].into_iter().zip(sequence.branches_mut().zip(chunks)) {
            let Some(chunk) = chunk else { continue };
            ran.push(Ran { entry: index, is_unconditional, chunk, draws });
            rows.push(Row {
                tokens: &branch.pending[..chunk.len],
                cache: Some(&mut branch.cache),
                planned_len: branch.len,
                logits: if draws { chunk.len - 1..chunk.len } else { 0..0 },
                attention: chunk.attention,
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
