//! What the answers of a record are evaluated against.

use super::task::SceneTask;
use crate::{Caption, Edit, Error, Result, Scene};

/// What the answers of a record are evaluated against.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct GroundTruth {
    /// The task.
    pub task: SceneTask,
    /// The scene. A caption is correct if it is equivalent to [`Scene::caption`].
    pub scene: Scene,
    /// What must be true of the image to be drawn, if the task has one. The record asks for it in some [wording].
    ///
    /// [wording]: crate::Wording
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<Caption>,
    /// The requested edit, if the task has one. [`Edit::apply`] returns the correct result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edit: Option<Edit>,
    /// The answer to the question about the image, if the task has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
}

impl GroundTruth {
    /// Parses a line of a records file.
    ///
    /// # Errors
    /// [`Error::GroundTruth`] if the line is not JSON or lacks the keys that this crate writes.
    pub fn from_json(line: &str) -> Result<Self> {
        serde_json::from_str(line).map_err(Error::GroundTruth)
    }
}
