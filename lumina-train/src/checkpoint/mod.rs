//! What a training run writes: checkpoints, and models and adapters as folders that inference opens.
//!
//! The folder of a run has its checkpoints, `step-0000001000` after 1,000 steps, of which the newest few are kept. Each
//! holds the weights with their config, the optimizer's state, and `trainer.json`: options and position of the run. It
//! is written under a temporary name and then renamed, so a checkpoint is complete or absent. [`latest`] finds the
//! newest.
//!
//! A model's checkpoint opens in inference as it is. [`convert`] writes it with weights in another type, [`average`]
//! the mean of several.

mod adapter_config;
mod export;
mod files;
mod model_files;
pub(crate) mod run_folder;
mod same_options;
mod state_values;
mod whole_folder;

pub(crate) use adapter_config::{base_model, with_base_model};
pub(crate) use export::{WeightType, tensor_bytes};
pub use export::{average, convert, save_parameters};
pub(crate) use files::{TOKENIZER_FILES, check_regular, copy_if_present, read_if_present, read_json, write_json};
pub(crate) use model_files::ModelFiles;
pub use run_folder::latest;
pub(crate) use same_options::{check_same_options, different};
pub(crate) use state_values::state_values;
pub(crate) use whole_folder::{FolderLock, create, create_together};
