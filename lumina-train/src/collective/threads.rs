//! Ranks that are threads of one process.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Collective, RankProblem};
use crate::{Error, Result};

/// A rank among threads of this process. Dropping it ends the rank.
#[derive(Debug)]
pub struct Threads {
    rank: usize,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    size: usize,
    limit: Duration,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    /// What was given and not yet taken, by receiver and sender.
    mail: Vec<Vec<VecDeque<Bytes>>>,
    /// Ranks that give nothing more, with why.
    ended: Vec<Option<RankProblem>>,
    /// The first rank that another one missed.
    missed: Option<(usize, RankProblem)>,
}

impl Threads {
    /// As many ranks, one for each thread. A call of one of them that waits for another longer than `limit` fails.
    ///
    /// ```
    /// use std::time::Duration;
    /// use lumina_train::collective::{Collective, Threads};
    ///
    /// let ranks = Threads::group(2, Duration::from_secs(60));
    /// let sums: Vec<f32> = std::thread::scope(|scope| {
    ///     let start = |rank: Threads| {
    ///         scope.spawn(move || {
    ///             let (own, mut sum) = (rank.rank() as f32, None);
    ///             rank.reduce_scatter(vec![vec![own + 1.0], vec![own + 10.0]], &mut sum)?;
    ///             Ok::<_, lumina_train::Error>(sum.into_iter().flatten().sum())
    ///         })
    ///     };
    ///     let threads: Vec<_> = ranks.into_iter().map(start).collect();
    ///     threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Result<_, _>>()
    /// })?;
    /// assert_eq!(sums, [3.0, 21.0]);
    /// # Ok::<(), lumina_train::Error>(())
    /// ```
    pub fn group(size: usize, limit: Duration) -> Vec<Self> {
        let mail = vec![vec![VecDeque::new(); size]; size];
        let state = Mutex::new(State { mail, ended: vec![None; size], missed: None });
        let shared = Arc::new(Shared { size, limit, state, changed: Condvar::new() });
        (0..size).map(|rank| Self { rank, shared: shared.clone() }).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, problem: RankProblem) {
        self.state().ended[self.rank].get_or_insert(problem);
        self.shared.changed.notify_all();
    }
}

impl Collective for Threads {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.shared.size
    }

    fn exchange(&self, mut to: Vec<Bytes>) -> Result<Vec<Bytes>> {
        let begun = Instant::now();
        to.resize(self.size(), Bytes::new());
        let mut state = self.state();
        // A rank that has failed gives nothing more, which could be taken for something else.
        if let Some(problem) = state.ended[self.rank].clone() {
            state.missed.get_or_insert((self.rank, problem));
        }
        if state.missed.is_none() {
            for (receiver, message) in to.into_iter().enumerate() {
                state.mail[receiver][self.rank].push_back(message);
            }
            self.shared.changed.notify_all();
        }
        loop {
            let State { mail, ended, missed } = &mut *state;
            let Some(absent) = mail[self.rank].iter().position(VecDeque::is_empty) else {
                return Ok(mail[self.rank].iter_mut().filter_map(VecDeque::pop_front).collect());
            };
            let gone = mail[self.rank].iter().zip(&*ended).position(|(mail, ended)| mail.is_empty() && ended.is_some());
            let left = self.shared.limit.checked_sub(begun.elapsed()).filter(|left| !left.is_zero());
            if missed.is_none() {
                *missed = match (gone, left) {
                    (Some(rank), _) => ended[rank].clone().map(|problem| (rank, problem)),
                    (None, None) => Some((absent, RankProblem::Stalled(self.shared.limit))),
                    (None, Some(_)) => None,
                };
            }
            if let Some((rank, problem)) = missed.clone() {
                self.shared.changed.notify_all();
                return Err(Error::Rank { rank, problem });
            }
            let wait = self.shared.changed.wait_timeout(state, left.unwrap_or_default());
            state = wait.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn fail(&self, reason: &str) {
        self.end(RankProblem::Failed(reason.to_owned()));
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.end(if std::thread::panicking() { RankProblem::Panicked } else { RankProblem::Ended });
    }
}
