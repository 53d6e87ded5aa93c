//! The events of a run, as lines for people.

use std::time::SystemTime;

use super::StepMetrics;
use crate::RunEvent;

/// Makes a line of text of each event of a run, with the speed since the run began in this process.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProgressLines {
    started: Option<SystemTime>,
    work: u64,
}

impl ProgressLines {
    /// The line of an event that happened at `now`.
    pub fn line<R: StepMetrics>(&mut self, event: &RunEvent<'_, R>, now: SystemTime) -> String {
        match event {
            RunEvent::Started { step, steps } => {
                *self = Self { started: Some(now), work: 0 };
                format!("from step {step} of {steps}")
            }
            RunEvent::Step(report) => {
                let (work, unit) = report.work();
                self.work += work;
                match self.per_second(now) {
                    Some(rate) => format!("{report}, {rate:.0} {unit}/s"),
                    None => report.to_string(),
                }
            }
            RunEvent::Saved(checkpoint) => format!("saved {}", checkpoint.display()),
        }
    }

    /// The speed; `None` before any time has passed.
    fn per_second(&self, now: SystemTime) -> Option<f64> {
        let seconds = now.duration_since(self.started?).ok()?.as_secs_f64();
        (seconds > 0.0).then(|| self.work as f64 / seconds)
    }
}
