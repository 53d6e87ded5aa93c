//! How many drafts each sequence has in a pass.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lumina_sampling::speculation::WindowChooser;

use super::entry::Entry;
use super::options::EngineOptions;
use super::scheduler::Scheduler;
use crate::model::ModelParts;

/// Adds drafts to the next pass of all that run, as many as their options say, or as many as pay. A sequence has none
/// where keys and values exceed the budget, or where tokens that share a pass may round otherwise than one by one.
pub(super) fn draft(parts: &ModelParts, scheduler: &mut Scheduler, options: &EngineOptions) {
    if !parts.transformer.compute().has_independent_rows() {
        return;
    }
    let budget = options.kv_budget_bytes.unwrap_or(u64::MAX);
    let rows = scheduler.running.iter().map(|entry| entry.sequence.n_rows()).sum();
    let auto = parts.windows.lock().unwrap_or_else(PoisonError::into_inner).choose(rows);
    for index in 0..scheduler.running.len() {
        let sequence = &mut scheduler.running[index].sequence;
        sequence.draft(if sequence.is_auto() { auto } else { usize::MAX });
        if scheduler.next_kv_bytes() > budget {
            scheduler.running[index].sequence.drop_drafts();
        }
    }
}

/// Notes what a pass of so many tokens has taken, where all that ran decode, and what it brought each of them.
pub(super) fn note(chooser: &Mutex<WindowChooser>, entries: &mut [Entry], tokens: usize, time: Duration) {
    let outcomes = entries.iter_mut().map(|entry| (entry.sequence.is_auto(), entry.sequence.outcome.take()));
    let mut chooser = chooser.lock().unwrap_or_else(PoisonError::into_inner);
    if tokens > 0 {
        chooser.note_pass(tokens, time.as_secs_f64());
    }
    for (is_auto, outcome) in outcomes {
        if let Some(outcome) = outcome
            && is_auto
            && tokens > 0
        {
            chooser.note_verified(outcome.places, outcome.drafts, outcome.drawn);
        }
    }
}
