//! Who runs in a pass: admission in the order of arrival, within a budget for keys and values.

use std::collections::VecDeque;

use super::entry::Entry;
use super::options::{EngineOptions, RequestId};
use crate::Error;
use crate::trace::event;

/// The entries of an engine, by what they wait for.
#[derive(Default)]
pub(super) struct Scheduler {
    /// In the order of admission.
    pub(super) running: Vec<Entry>,
    /// In the order of arrival.
    waiting: VecDeque<Entry>,
    /// Left out of passes until their readers have caught up; with their keys and values, as far as the budget allows.
    held: Vec<Entry>,
}

impl Scheduler {
    /// Adds an entry behind those that wait.
    pub(super) fn push(&mut self, entry: Entry) {
        self.waiting.push_back(entry);
    }

    /// Every entry.
    pub(super) fn entries_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.running.iter_mut().chain(&mut self.waiting).chain(&mut self.held)
    }

    /// Whether there are no entries.
    pub(super) fn is_empty(&self) -> bool {
        !self.has_passes() && self.held.is_empty()
    }

    /// Whether there are entries for a pass.
    pub(super) fn has_passes(&self) -> bool {
        !self.running.is_empty() || !self.waiting.is_empty()
    }

    /// Leaves an entry out of passes.
    pub(super) fn hold(&mut self, id: RequestId) {
        let is_it = |entry: &Entry| entry.id == id;
        if let Some(index) = self.running.iter().position(is_it) {
            self.held.push(self.running.remove(index));
        } else if let Some(index) = self.waiting.iter().position(is_it) {
            self.held.extend(self.waiting.remove(index));
        }
    }

    /// Takes an entry back that was left out: it waits at the place of its arrival.
    pub(super) fn resume(&mut self, id: RequestId) {
        if let Some(index) = self.held.iter().position(|entry| entry.id == id) {
            let entry = self.held.remove(index);
            self.wait(entry);
        }
    }

    /// Lets an entry wait before all that arrived after it.
    fn wait(&mut self, entry: Entry) {
        let place = self.waiting.partition_point(|waiting| waiting.id < entry.id);
        self.waiting.insert(place, entry);
    }

    /// Number of entries that are held.
    pub(super) fn n_held(&self) -> usize {
        self.held.len()
    }

    /// Number of entries that wait.
    pub(super) fn n_waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Those that run in no pass, and may have keys and values yet.
    fn others(&self) -> impl Iterator<Item = &Entry> {
        self.waiting.iter().chain(&self.held)
    }

    /// Bytes of keys and values of all.
    pub(super) fn kv_bytes(&self) -> u64 {
        self.running.iter().chain(self.others()).map(|entry| entry.sequence.kv_bytes()).sum()
    }

    /// Bytes of keys and values of all in the next pass.
    pub(super) fn next_kv_bytes(&self) -> u64 {
        let running = self.running.iter().map(|entry| entry.sequence.next_kv_bytes());
        running.chain(self.others().map(|entry| entry.sequence.kv_bytes())).fold(0, u64::saturating_add)
    }

    /// Removes the entries whose sequence has ended.
    pub(super) fn remove_ended(&mut self, mut ended: impl FnMut(Entry)) {
        self.running.extract_if(.., |entry| entry.sequence.is_done()).for_each(&mut ended);
        let mut index = 0;
        while index < self.waiting.len() {
            if self.waiting[index].sequence.is_done() {
                ended(self.waiting.remove(index).expect("the index is below the length"));
            } else {
                index += 1;
            }
        }
        self.held.extract_if(.., |entry| entry.sequence.is_done()).for_each(ended);
    }

    /// Makes the sequences that run fit the budget with what they grow by in the next pass, and admits others while
    /// they fit.
    ///
    /// Where the budget is exhausted, those that are held give their keys and values up. Then the sequence that was
    /// admitted last does, and waits, before all that arrived after it. One that does not fit alone has failed: its
    /// error is returned with its index in `running`.
    pub(super) fn schedule(&mut self, options: &EngineOptions) -> Option<(usize, Error)> {
        let budget = options.kv_budget_bytes.unwrap_or(u64::MAX);
        let mut preempted = false;
        loop {
            let used = self.next_kv_bytes();
            if used <= budget {
                break;
            }
            if let Some(idle) =
                self.waiting.iter_mut().chain(&mut self.held).rfind(|entry| entry.sequence.kv_bytes() > 0)
            {
                event!(DEBUG, request = idle.id.0, "keys and values given up");
                idle.sequence.release();
                continue;
            }
            let last = if self.running.len() > 1 { self.running.pop() } else { None };
            match last {
                Some(mut entry) => {
                    event!(DEBUG, request = entry.id.0, "keys and values given up");
                    entry.sequence.release();
                    self.wait(entry);
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
        // Those that are held keep no more keys and values than those that run could have.
        let mut spare = options.max_sequences.saturating_sub(self.running.len());
        for idle in self.held.iter_mut().filter(|entry| entry.sequence.kv_bytes() > 0) {
            match spare.checked_sub(1) {
                Some(less) => spare = less,
                None => idle.sequence.release(),
            }
        }
        // What was just given up would otherwise be taken at once.
        while !preempted
            && self.running.len() < options.max_sequences
            && let Some(next) = self.waiting.front()
        {
            let used = self.next_kv_bytes() - next.sequence.kv_bytes();
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
