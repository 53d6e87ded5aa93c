//! The loop of a run, the same for the transformer and the image tokenizer: steps, checkpoints, an observer.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::checkpoint::{FolderLock, run_folder};
use crate::collective::{Alone, Collective, lead};
use crate::{Error, Result};

/// What a run reports to its observer. `R` is the report of a step: [`StepReport`](crate::fine_tune::StepReport) or
/// [`VqStepReport`](crate::vq::VqStepReport).
#[derive(Debug)]
pub enum RunEvent<'a, R> {
    /// The run begins, or continues from a checkpoint.
    Started {
        /// Steps done.
        step: u64,
        /// Steps of the whole run.
        steps: u64,
    },
    /// A step was made.
    Step(&'a R),
    /// A checkpoint was saved in this folder.
    Saved(&'a Path),
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All steps are done.
    Finished,
    /// The observer stopped it. The same call continues it.
    Stopped,
}

/// What an observer returns: nothing, whether the run continues, or a `Result` of either.
///
/// With `ControlFlow::Break`, and with an error, the run saves a checkpoint and ends.
///
/// ```
/// use std::ops::ControlFlow;
/// use lumina_train::ObserverResult;
///
/// assert_eq!(().into_flow()?, ControlFlow::Continue(()));
/// assert_eq!(ControlFlow::Break(()).into_flow()?, ControlFlow::Break(()));
/// let failed: Result<(), Box<dyn std::error::Error>> = Err("no space".into());
/// assert!(failed.into_flow().is_err());
/// # Ok::<(), lumina_train::Error>(())
/// ```
pub trait ObserverResult {
    /// What the run fails with: the observer's error, or this crate's.
    type Error: From<Error>;

    /// Whether the run continues.
    ///
    /// # Errors
    /// The observer's.
    fn into_flow(self) -> Result<ControlFlow<()>, Self::Error>;
}

impl ObserverResult for () {
    type Error = Error;
    fn into_flow(self) -> Result<ControlFlow<()>> {
        Ok(ControlFlow::Continue(()))
    }
}

impl ObserverResult for ControlFlow<()> {
    type Error = Error;
    fn into_flow(self) -> Result<ControlFlow<()>> {
        Ok(self)
    }
}

impl<E: From<Error>> ObserverResult for Result<(), E> {
    type Error = E;
    fn into_flow(self) -> Result<ControlFlow<()>, E> {
        self.map(ControlFlow::Continue)
    }
}

impl<E: From<Error>> ObserverResult for Result<ControlFlow<()>, E> {
    type Error = E;
    fn into_flow(self) -> Self {
        self
    }
}

/// A trainer with its data: what the loop needs of it.
pub(crate) trait Steps<E> {
    /// What it reports of a step.
    type Report;
    /// Steps done.
    fn done(&self) -> u64;
    /// Steps left.
    fn left(&self) -> u64;
    /// Makes the next step.
    fn step(&mut self) -> Result<Self::Report, E>;
    /// Writes a checkpoint from which the run can be resumed.
    fn save(&self, checkpoint: &Path) -> Result<()>;
    /// The processes that make the steps together. Rank 0 of them has the folder.
    fn processes(&self) -> &dyn Collective {
        &Alone
    }
}

/// Where checkpoints are saved, how often, and how many are kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Checkpoints<'a> {
    pub(crate) folder: &'a Path,
    pub(crate) every: u64,
    pub(crate) keep: usize,
}

impl Checkpoints<'_> {
    /// Saves one after this step, unless it is there already.
    fn save<E>(&self, steps: &impl Steps<E>) -> Result<Option<PathBuf>> {
        let checkpoint = run_folder::checkpoint(self.folder, steps.done());
        let is_new = !run_folder::is_checkpoint(&checkpoint);
        if is_new {
            steps.save(&checkpoint)?;
        }
        lead(steps.processes(), || run_folder::keep_last(self.folder, self.keep))?;
        Ok(is_new.then_some(checkpoint))
    }
}

/// Makes the steps that are left, until the observer stops the run.
///
/// However it ends, there is a checkpoint of the last step; only a step that fails leaves none. Where there are several
/// processes, all stop after the same step: when the observer of one stops.
pub(crate) fn run<S, O>(
    steps: &mut S,
    checkpoints: Checkpoints<'_>,
    mut observe: impl FnMut(RunEvent<'_, S::Report>) -> O,
) -> Result<Ended, O::Error>
where
    S: Steps<O::Error>,
    O: ObserverResult,
{
    // Held until the run ends. What another one saved meanwhile is seen after it.
    let _lock = lead(steps.processes(), || {
        let lock = FolderLock::new(checkpoints.folder)?;
        run_folder::refuse_later(checkpoints.folder, steps.done())?;
        Ok(Some(lock))
    })?;
    let started = RunEvent::Started { step: steps.done(), steps: steps.done() + steps.left() };
    let mut flow = together(steps, observe(started))?;
    while steps.left() > 0 && matches!(flow, Ok(ControlFlow::Continue(()))) {
        let report = steps.step()?;
        flow = together(steps, observe(RunEvent::Step(&report)))?;
        if steps.done().is_multiple_of(checkpoints.every)
            && matches!(flow, Ok(ControlFlow::Continue(())))
            && let Some(checkpoint) = checkpoints.save(steps)?
        {
            flow = together(steps, observe(RunEvent::Saved(&checkpoint)))?;
        }
    }
    let saved = checkpoints.save(steps);
    // The observer's error comes first: it is why the run ended.
    let _ = flow?;
    if let Some(checkpoint) = saved? {
        // The run has ended, whatever the observer returns.
        let _ = observe(RunEvent::Saved(&checkpoint)).into_flow()?;
    }
    Ok(if steps.left() == 0 { Ended::Finished } else { Ended::Stopped })
}

/// What the observer says, or `Break` where that of another process stops the run.
fn together<S, O>(steps: &S, said: O) -> Result<Result<ControlFlow<()>, O::Error>>
where
    S: Steps<O::Error>,
    O: ObserverResult,
{
    let flow = said.into_flow();
    let goes_on = matches!(flow, Ok(ControlFlow::Continue(())));
    let all = steps.processes().all_gather(Bytes::from(vec![u8::from(goes_on)]))?;
    let all_go_on = all.iter().all(|said| **said == [1]);
    Ok(if goes_on && !all_go_on { Ok(ControlFlow::Break(())) } else { flow })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts to ten.
    struct Count(u64);

    impl<E> Steps<E> for Count {
        type Report = u64;
        fn done(&self) -> u64 {
            self.0
        }
        fn left(&self) -> u64 {
            10 - self.0
        }
        fn step(&mut self) -> Result<u64, E> {
            self.0 += 1;
            Ok(self.0)
        }
        fn save(&self, checkpoint: &Path) -> Result<()> {
            std::fs::create_dir_all(checkpoint).unwrap();
            std::fs::write(checkpoint.join("trainer.json"), self.0.to_string()).unwrap();
            Ok(())
        }
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = entries.collect();
        names.sort();
        names
    }

    #[test]
    fn every_end_leaves_a_checkpoint_and_each_is_reported_once() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints { folder: folder.path(), every: 4, keep: 2 };
        let mut count = Count(0);
        let mut seen = Vec::new();
        let mut go = |count: &mut Count, stop: u64| {
            run(count, checkpoints, |event| match event {
                RunEvent::Step(&step) if step == stop => ControlFlow::Break(()),
                RunEvent::Saved(checkpoint) => {
                    seen.push(checkpoint.file_name().unwrap().to_str().unwrap().to_owned());
                    ControlFlow::Continue(())
                }
                _ => ControlFlow::Continue(()),
            })
            .unwrap()
        };
        assert_eq!(go(&mut count, 5), Ended::Stopped);
        assert_eq!(go(&mut count, 8), Ended::Stopped);
        assert_eq!(go(&mut count, 10), Ended::Finished, "nothing is left after the last step");
        assert_eq!(go(&mut count, 10), Ended::Finished);
        assert_eq!(seen, ["step-0000000004", "step-0000000005", "step-0000000008", "step-0000000010"]);
        assert_eq!(names(folder.path()), ["step-0000000008", "step-0000000010"]);
        let refused = run(&mut Count(3), checkpoints, |_| ()).unwrap_err();
        assert!(matches!(refused, Error::LaterCheckpoint { step: 3, .. }), "{refused}");
    }

    #[test]
    fn the_error_of_an_observer_ends_the_run_with_a_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints { folder: folder.path(), every: 100, keep: 2 };
        let mut count = Count(0);
        let failed: Result<Ended, Box<dyn std::error::Error>> = run(&mut count, checkpoints, |event| match event {
            RunEvent::Step(3) => Err("no space".into()),
            _ => Ok(()),
        });
        assert_eq!(failed.unwrap_err().to_string(), "no space");
        assert_eq!((count.0, names(folder.path())), (3, vec!["step-0000000003".to_owned()]));
    }
}
