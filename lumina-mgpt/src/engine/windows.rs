//! How many drafts each sequence has in a pass.

use std::sync::PoisonError;
use std::time::Duration;

use smallvec::SmallVec;

use super::entry::Entry;
use super::options::EngineOptions;
use super::scheduler::Scheduler;
use super::sequence::Outcome;
use crate::model::{MAX_INLINE_ROWS, ModelParts, Windows};

/// Adds drafts to the next pass of all that run, as many as their options say, or as many as pay. A sequence has none
/// where keys and values exceed the budget, or where tokens that share a pass may round otherwise than one by one.
pub(super) fn draft(parts: &ModelParts, scheduler: &mut Scheduler, options: &EngineOptions) {
    if !parts.transformer.has_independent_rows() {
        return;
    }
    let rows = scheduler.running.iter().map(|entry| entry.sequence.n_rows()).sum();
    let mut windows = parts.windows.lock().unwrap_or_else(PoisonError::into_inner);
    let Windows { image, text, .. } = &mut *windows;
    let kinds = kinds(&scheduler.running);
    let in_image = if kinds[0] { image.choose(rows) } else { 0 };
    let in_text = if kinds[1] { text.choose(rows) } else { 0 };
    for index in 0..scheduler.running.len() {
        let sequence = &mut scheduler.running[index].sequence;
        sequence.draft(match (sequence.is_auto(), sequence.in_image()) {
            (true, true) => in_image,
            (true, false) => in_text,
            (false, _) => usize::MAX,
        });
        if options.kv_budget_bytes.is_some_and(|budget| scheduler.next_kv_bytes() > budget) {
            scheduler.running[index].sequence.drop_drafts();
        }
    }
}

/// Notes what a pass of so many tokens has taken, if it had no part of a prompt, and what it brought each sequence. Not
/// where some are in images and others in text: it is not known which of them took the time.
pub(super) fn note(parts: &ModelParts, entries: &mut [Entry], tokens: usize, time: Duration) {
    let mut windows = parts.windows.lock().unwrap_or_else(PoisonError::into_inner);
    let is_warm = tokens > 0 && windows.is_warm(tokens);
    let Windows { image, text, .. } = &mut *windows;
    let in_image = |outcome: &Outcome| outcome.in_image;
    let outcomes: SmallVec<[Outcome; MAX_INLINE_ROWS]> =
        entries.iter_mut().filter_map(|entry| entry.sequence.outcome.take()).collect();
    let chooser = match (outcomes.iter().all(in_image), outcomes.iter().any(in_image)) {
        (true, true) => image,
        (false, false) => text,
        _ => return,
    };
    if is_warm {
        chooser.note_pass(tokens, time.as_secs_f64());
        for &Outcome { places, drafts, drawn, .. } in &outcomes {
            chooser.note_verified(places, drafts, drawn);
        }
    }
}

/// Whether some sequences are in images, and whether some are not.
fn kinds(entries: &[Entry]) -> [bool; 2] {
    [true, false].map(|in_image| entries.iter().any(|entry| entry.sequence.in_image() == in_image))
}
