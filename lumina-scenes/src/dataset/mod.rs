//! Scenes as a training set: conversations with their images, in memory or on disk.

mod ground_truth;
mod prompts;
mod record;
mod scene_dataset;
mod task;
mod write;

pub use ground_truth::GroundTruth;
pub use record::{IMAGES_FOLDER, SceneRecord};
pub use scene_dataset::{DatasetOptions, SceneDataset};
pub use task::SceneTask;
pub use write::{RECORDS_FILE, write_dataset};
