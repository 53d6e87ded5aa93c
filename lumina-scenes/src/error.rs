//! The errors of this crate: what, where, and what to do.

use std::path::PathBuf;

/// Shorthand for this crate's results.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong in `lumina-scenes`.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A text is no caption of a scene.
    #[error("caption `{text}`: expected {expected} at byte {at}, found {found}")]
    Caption {
        /// The text.
        text: String,
        /// Where it goes wrong, in bytes from its start.
        at: usize,
        /// The word that is there.
        found: String,
        /// What could be there.
        expected: String,
    },
    /// A caption has no or too many objects.
    #[error("a caption of {found} objects; scenes have 1 to {most}")]
    ObjectCount {
        /// Objects in the caption.
        found: usize,
        /// The most that a scene has.
        most: usize,
    },
    /// A scene cannot be drawn as it is stated.
    #[error("impossible scene: {reason}")]
    Scene {
        /// What is wrong with it.
        reason: String,
    },
    /// An edit does not fit its scene.
    #[error("edit `{edit}` cannot be made: {reason}")]
    Edit {
        /// The instruction.
        edit: String,
        /// What is wrong.
        reason: String,
    },
    /// There are no picture sizes for the target.
    #[error("no picture sizes for this data set")]
    TargetSize(#[source] lumina_core::Error),
    /// No task has a weight.
    #[error("the weights of all tasks are zero; give at least one task of `tasks` a positive weight")]
    NoTask,
    /// A file or folder cannot be written.
    #[error("{}: cannot be written; is the folder writable, and is there space?", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A picture cannot be encoded.
    #[error("{}: the picture cannot be encoded as PNG", path.display())]
    Encode {
        /// The file it was meant for.
        path: PathBuf,
        /// Why.
        #[source]
        source: image::ImageError,
    },
    /// A line of a records file says nothing about a scene.
    #[error("a record without its scene; was it written by `lumina-scenes`?")]
    Truth(#[source] serde_json::Error),
    /// Two pictures that are to be compared differ in size.
    #[error("pictures of {}x{} and {}x{} pixels cannot be compared", first.0, first.1, second.0, second.1)]
    Sizes {
        /// Width and height of the first, in pixels.
        first: (u32, u32),
        /// Width and height of the second, in pixels.
        second: (u32, u32),
    },
}
