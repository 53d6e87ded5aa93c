//! The errors of this crate: what is wrong, where, and what to do.

use std::path::PathBuf;

use crate::dataset::SceneTask;

/// Shorthand for this crate's results.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong in `lumina-scenes`.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A text is not a caption of a scene.
    #[error("caption `{text}`: expected {expected} at byte {at}, found {found}")]
    Caption {
        /// The text.
        text: String,
        /// The byte offset of the first word that is wrong.
        at: usize,
        /// The word at that offset.
        found: String,
        /// What was expected there.
        expected: String,
    },
    /// A caption has no objects or too many.
    #[error("a caption of {found} objects; scenes have 1 to {most}")]
    ObjectCount {
        /// Objects in the caption.
        found: usize,
        /// The most that a scene has.
        most: usize,
    },
    /// A scene is invalid.
    #[error("invalid scene: {reason}")]
    Scene {
        /// What is wrong with it.
        reason: String,
    },
    /// An edit cannot be applied to a scene.
    #[error("edit `{edit}` cannot be applied: {reason}")]
    Edit {
        /// The instruction.
        edit: String,
        /// What is wrong.
        reason: String,
    },
    /// There are no image sizes for the target size.
    #[error("no image sizes for this dataset")]
    TargetSize(#[source] lumina_core::Error),
    /// The weights of all tasks are zero.
    #[error("the weights of all tasks are zero; give at least one task of `tasks` a positive weight")]
    NoTask,
    /// A task needs a prompt, an edit or an answer that its ground truth lacks.
    #[error(
        "the ground truth of the task `{task}` lacks its prompt, edit or answer; was it written by `lumina-scenes`?"
    )]
    NoPrompt {
        /// The task.
        task: SceneTask,
    },
    /// A file or folder cannot be written.
    #[error("{}: cannot be written; is the folder writable, and is there space?", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// An image cannot be encoded.
    #[error("{}: the image cannot be encoded as PNG", path.display())]
    Encode {
        /// The file to be written.
        path: PathBuf,
        /// The encoder's error.
        #[source]
        source: image::ImageError,
    },
    /// A line of a records file contains no ground truth.
    #[error("a record without ground truth; was it written by `lumina-scenes`?")]
    GroundTruth(#[source] serde_json::Error),
    /// Two images to be compared differ in size.
    #[error("images of {}x{} and {}x{} pixels cannot be compared", first.0, first.1, second.0, second.1)]
    SizeMismatch {
        /// Width and height of the first, in pixels.
        first: (u32, u32),
        /// Width and height of the second, in pixels.
        second: (u32, u32),
    },
}
