//! Who runs in a pass: admission in the order of arrival, within a budget for keys and values.

use std::collections::VecDeque;

use super::entry::Entry;
use super::options::EngineOptions;
use crate::Error;
use crate::trace::event;

/// The entries of an engine, by what they wait for.
#[derive(Default)]
pub(super) struct Scheduler {
    /// In the order of admission.
    pub(super) running: Vec<Entry>,
    /// In the order of arrival.
    waiting: VecDeque<Entry>,
}

impl Scheduler {
    /// Adds an entry behind those that wait.
    pub(super) fn push(&mut self, entry: Entry) {
        self.waiting.push_back(entry);
    }

    /// Every entry.
    pub(super) fn entries_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.running.iter_mut().chain(&mut self.waiting)
    }

    /// Whether there are no entries.
    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty()
    }

    /// Number of entries that wait.
    pub(super) fn n_waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Bytes of keys and values of all that run.
    pub(super) fn kv_bytes(&self) -> u64 {
        self.running.iter().map(|entry| entry.sequence.kv_bytes()).sum()
    }

    /// Bytes of keys and values of all that run in the next pass.
    pub(super) fn next_kv_bytes(&self) -> u64 {
        self.running.iter().map(|entry| entry.sequence.next_kv_bytes()).fold(0, u64::saturating_add)
    }

    /// Removes the entries whose sequence has ended.
    pub(super) fn remove_ended(&mut self, mut ended: impl FnMut(Entry)) {
        let mut index = 0;
        while index < self.running.len() {
            if self.running[index].sequence.is_done() {
                ended(self.running.remove(index));
            } else {
                index += 1;
            }
        }
        let mut index = 0;
        while index < self.waiting.len() {
            if self.waiting[index].sequence.is_done() {
                ended(self.waiting.remove(index).expect("the index is below the length"));
            } else {
                index += 1;
            }
        }
    }

    /// Makes the sequences that run fit the budget with what they grow by in the next pass, and admits others while
    /// they fit.
    ///
    /// Where the budget is exhausted, the sequence that was admitted last gives its keys and values up and waits,
    /// before all that arrived after it. One that does not fit alone has failed: its error is returned with its index
    /// in `running`.
    pub(super) fn schedule(&mut self, options: &EngineOptions) -> Option<(usize, Error)> {
        let budget = options.kv_budget_bytes.unwrap_or(u64::MAX);
        let mut preempted = false;
        loop {
            let used = self.next_kv_bytes();
            if used <= budget {
                break;
            }
            let last = if self.running.len() > 1 { self.running.pop() } else { None };
            match last {
                Some(mut entry) => {
                    event!(DEBUG, request = entry.id.0, "keys and values given up");
                    entry.sequence.release();
                    let place = self.waiting.partition_point(|waiting| waiting.id < entry.id);
                    self.waiting.insert(place, entry);
                    preempted = true;
                }
                None => {
                    let index = self.running.len() - 1;
                    return Some((
                        index,
                        Error::KvBudget { needed: self.running[index].sequence.next_kv_bytes(), budget },
                    ));
                }
            }
        }
        // What was just given up would otherwise be taken at once.
        while !preempted
            && self.running.len() < options.max_sequences
            && let Some(next) = self.waiting.front()
        {
            let used = self.next_kv_bytes();
            let whole = next.sequence.whole_bytes();
            if used.saturating_add(whole) > budget
                && !(self.running.is_empty() && next.sequence.next_kv_bytes() <= budget)
            {
                break;
            }
            self.running.extend(self.waiting.pop_front());
        }
        None
    }
}
