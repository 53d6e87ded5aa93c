//! The numbers of a run: in files for programs and for TensorBoard, and in lines for people.
//!
//! A [`Recorder`] writes the events of a run to any number of [`MetricsWriter`]s; by default to [`JsonLines`] and to
//! [`TensorBoard`]. When a run is resumed, what was written of later steps is dropped, so each step is there once.
//! [`ProgressLines`] makes a line of text of each event.
//!
//! Nothing here is global and nothing reads a clock: times come from the caller.
//!
//! ```
//! use std::time::{Duration, SystemTime};
//! use lumina_train::RunEvent;
//! use lumina_train::fine_tune::StepReport;
//! use lumina_train::metrics::{ProgressLines, Recorder};
//!
//! # let place = tempfile::tempdir()?;
//! # let folder = place.path();
//! let start = SystemTime::now();
//! let (mut recorder, mut progress) = (Recorder::create(folder, start)?, ProgressLines::default());
//! // A run calls its observer with such events.
//! let report = StepReport { step: 1, cross_entropy: 7.5, tokens: 300, ..StepReport::default() };
//! let events = [RunEvent::Started { step: 0, steps: 9 }, RunEvent::Step(&report)];
//! let mut lines = Vec::new();
//! for (seconds, event) in (0..).zip(&events) {
//!     let now = start + Duration::from_secs(seconds);
//!     recorder.record(event, now)?;
//!     lines.push(progress.line(event, now));
//! }
//! assert_eq!(lines, ["from step 0 of 9", "step 1: loss 7.5000, 300 tokens/s"]);
//! assert!(std::fs::read_to_string(folder.join("steps.jsonl"))?.starts_with(r#"{"step":1,"#));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod json_lines;
mod progress_lines;
mod recorder;
mod tensorboard;

pub use json_lines::JsonLines;
pub use progress_lines::ProgressLines;
pub use recorder::{MetricsWriter, Recorder, StepMetrics, StepRecord};
pub use tensorboard::TensorBoard;
