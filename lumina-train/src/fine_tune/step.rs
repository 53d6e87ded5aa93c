//! A step of fine-tuning on all ranks of this process: devices, each with a thread where there are several.

use std::time::Duration;

use super::rank::{Rank, Step};
use super::{Example, StepReport, Trainer};
use crate::collective::{Collective, Threads, messages, tell};
use crate::{Error, Result};

impl Trainer {
    /// Makes one step: the mean gradient of the passes, clipped, updates all parameters. If it fails, nothing has
    /// changed; but after an [`Error::Rank`] the run has to be resumed from its last checkpoint.
    ///
    /// Where there are other processes, `passes` are those of this one, and all make the step together.
    ///
    /// # Errors
    /// [`Error::PassCount`] where there are no passes, or more than [`Trainer::passes`]; [`Error::NotFinite`] where the
    /// loss or the gradients are not finite; those of [`gradients`](super::gradients); [`Error::Rank`] where another
    /// process failed.
    pub fn step(&mut self, passes: &[Vec<Example<'_>>], steps_per_epoch: u64) -> Result<StepReport> {
        // A step is thousands of small pieces of parallel work. From a thread of the pool they are shared at once; from
        // another thread each piece wakes the pool and puts the thread to sleep. The pool is the trainer's own, so that
        // a thread that waits for its piece can only steal work of this step.
        let report = match self.pool.clone() {
            Some(pool) => pool.install(|| self.step_in_pool(passes, steps_per_epoch)),
            None => self.step_in_pool(passes, steps_per_epoch),
        };
        report.inspect_err(|error| tell(&*self.devices.processes, error))
    }

    fn step_in_pool(&mut self, passes: &[Vec<Example<'_>>], steps_per_epoch: u64) -> Result<StepReport> {
        if passes.is_empty() || passes.len() > self.passes() {
            return Err(Error::PassCount { found: passes.len(), max: self.passes() });
        }
        let step = Step { options: &self.options, position: self.position, steps_per_epoch };
        let n_ranks = self.ranks.len();
        let of_rank = |rank: usize| passes.iter().skip(rank).step_by(n_ranks).map(Vec::as_slice).collect();
        let report = match &mut *self.ranks {
            [rank] => rank.step(&*self.devices.processes, &step, of_rank(0)),
            ranks => on_threads(ranks, |number, rank, all| rank.step(all, &step, of_rank(number))),
        }?;
        self.position = self.position.after_step(report.tokens);
        Ok(report)
    }

    /// The most passes that a step has on this process: `accumulation` on each of its devices.
    pub fn passes(&self) -> usize {
        self.ranks.len() * self.options.accumulation
    }
}

/// Runs each rank on a thread. Where one fails, the others end with it, and its error is the result.
fn on_threads(
    ranks: &mut [Rank],
    run: impl Fn(usize, &mut Rank, &dyn Collective) -> Result<StepReport> + Sync,
) -> Result<StepReport> {
    let run = &run;
    // A thread of this process ends its part or panics, so that no time limit is needed.
    let group = Threads::group(ranks.len(), Duration::MAX);
    let results: Vec<Result<StepReport>> = std::thread::scope(|scope| {
        let mut threads = Vec::with_capacity(ranks.len());
        for (rank, member) in ranks.iter_mut().zip(group) {
            threads.push(scope.spawn(move || {
                let result = run(member.rank(), rank, &member);
                if let Err(error) = &result {
                    member.fail(&messages(error));
                }
                result
            }));
        }
        let joined = threads.into_iter().enumerate();
        joined.map(|(device, thread)| thread.join().unwrap_or(Err(Error::DeviceThread { device }))).collect()
    });
    let (mut first, mut of_others) = (None, None);
    for result in results {
        match result {
            Ok(report) => first = first.or(Some(Ok(report))),
            Err(error @ Error::Rank { .. }) => of_others = of_others.or(Some(error)),
            Err(error) => return Err(error),
        }
    }
    match of_others {
        Some(error) => Err(error),
        None => first.unwrap_or(Err(Error::NoDevices)),
    }
}
