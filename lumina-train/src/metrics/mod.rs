//! Numbers of a run in files: JSON lines for programs, event files for TensorBoard.
//!
//! Nothing here is global and nothing reads the clock: the program that watches a run passes on what it wants kept.
//!
//! ```
//! # use lumina_train::metrics::{JsonLines, TensorBoard};
//! # use std::time::{Duration, SystemTime};
//! # let folder = std::env::temp_dir().join(format!("lumina-metrics-{}", std::process::id()));
//! # std::fs::create_dir_all(&folder)?;
//! let mut lines = JsonLines::append(&folder.join("steps.jsonl"))?;
//! let mut board = TensorBoard::create(&folder, SystemTime::now())?;
//! lines.write(&serde_json::json!({ "step": 1, "loss": 7.5 }))?;
//! board.scalars(1, SystemTime::now(), &[("loss", 7.5)])?;
//! # std::fs::remove_dir_all(&folder)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod json_lines;
mod tensorboard;

pub use json_lines::JsonLines;
pub use tensorboard::TensorBoard;
