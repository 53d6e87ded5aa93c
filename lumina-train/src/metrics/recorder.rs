//! The events of a run, written to files.

use std::fmt::{self, Display};
use std::path::Path;
use std::time::SystemTime;

use super::{JsonLines, TensorBoard};
use crate::{Error, Result, RunEvent};

/// The report of a step, as metrics see it: [`Display`] is a line for people, [`serde::Serialize`] all of its numbers.
pub trait StepMetrics: Display + serde::Serialize {
    /// Number of the step, from 1 on.
    fn step(&self) -> u64;
    /// The numbers to plot, by name.
    fn scalars(&self) -> Vec<(&'static str, f64)>;
    /// How much the step was trained on, and in what unit: `(3072, "tokens")`.
    fn work(&self) -> (u64, &'static str);
}

/// A step for a [`MetricsWriter`].
#[derive(Debug)]
pub struct StepRecord {
    /// Number of the step, from 1 on.
    pub step: u64,
    /// When it was made.
    pub time: SystemTime,
    /// The numbers to plot, by name.
    pub scalars: Vec<(&'static str, f64)>,
    /// All of the report, as a JSON object in one line.
    pub json: String,
}

/// Where the numbers of a run are written to.
pub trait MetricsWriter {
    /// The run begins, or continues, after `step` steps. What was written of later steps is of no use: it will be
    /// written again.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Write`].
    fn resume(&mut self, step: u64, time: SystemTime) -> Result<()>;

    /// Writes a step.
    ///
    /// # Errors
    /// [`Error::Write`].
    fn write(&mut self, step: &StepRecord) -> Result<()>;
}

/// Writes the events of a run to files.
#[derive(Default)]
pub struct Recorder {
    writers: Vec<Box<dyn MetricsWriter>>,
}

impl Recorder {
    /// Writes to `steps.jsonl` and to an event file of TensorBoard in a folder, which is made if absent.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Write`].
    pub fn create(folder: &Path, now: SystemTime) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(|source| Error::Write { file: folder.to_owned(), source })?;
        let recorder = Self::default().with(JsonLines::append(&folder.join("steps.jsonl"))?);
        Ok(recorder.with(TensorBoard::create(folder, now)?))
    }

    /// Writes to this writer as well. [`Recorder::default`] begins without any.
    #[must_use]
    pub fn with(mut self, writer: impl MetricsWriter + 'static) -> Self {
        self.writers.push(Box::new(writer));
        self
    }

    /// Writes an event of a run, which happened at `now`.
    ///
    /// # Errors
    /// Those of the writers; [`Error::Report`].
    pub fn record<R: StepMetrics>(&mut self, event: &RunEvent<'_, R>, now: SystemTime) -> Result<()> {
        match event {
            RunEvent::Started { step, .. } => self.writers.iter_mut().try_for_each(|writer| writer.resume(*step, now)),
            RunEvent::Step(report) => {
                let json = serde_json::to_string(report).map_err(|source| Error::Report { source })?;
                let record = StepRecord { step: report.step(), time: now, scalars: report.scalars(), json };
                self.writers.iter_mut().try_for_each(|writer| writer.write(&record))
            }
            RunEvent::Saved(_) => Ok(()),
        }
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("writers", &self.writers.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;
    use crate::fine_tune::StepReport;

    /// A writer of one's own.
    struct Log(Rc<RefCell<Vec<String>>>);

    impl MetricsWriter for Log {
        fn resume(&mut self, step: u64, _: SystemTime) -> Result<()> {
            self.0.borrow_mut().push(format!("resume {step}"));
            Ok(())
        }
        fn write(&mut self, step: &StepRecord) -> Result<()> {
            let loss = step.scalars.iter().find(|(name, _)| *name == "loss").map(|(_, value)| *value);
            self.0.borrow_mut().push(format!("{} {loss:?}", step.step));
            Ok(())
        }
    }

    #[test]
    fn a_resumed_run_has_each_step_once_in_every_writer() {
        let folder = tempfile::tempdir().unwrap();
        let log = Rc::default();
        for (start, end) in [(0, 4), (2, 5)] {
            let now = SystemTime::UNIX_EPOCH;
            let mut recorder = Recorder::create(folder.path(), now).unwrap().with(Log(Rc::clone(&log)));
            recorder.record::<StepReport>(&RunEvent::Started { step: start, steps: 9 }, now).unwrap();
            for step in start + 1..=end {
                let report = StepReport { step, loss: 0.5, ..StepReport::default() };
                recorder.record(&RunEvent::Step(&report), now).unwrap();
            }
            recorder.record::<StepReport>(&RunEvent::Saved(folder.path()), now).unwrap();
        }
        let lines = std::fs::read_to_string(folder.path().join("steps.jsonl")).unwrap();
        let steps: Vec<u64> = lines
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["step"].as_u64().unwrap())
            .collect();
        assert_eq!(steps, [1, 2, 3, 4, 5]);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3, "one file of lines, two of events");
        let log = log.borrow();
        assert_eq!(log[..2], ["resume 0", "1 Some(0.5)"]);
        assert_eq!(log[5..7], ["resume 2", "3 Some(0.5)"]);
    }
}
