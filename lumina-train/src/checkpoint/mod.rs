//! What is written of a training run: folders that appear whole, with weights, configs and tokenizers.

mod export;
pub(crate) mod folder;
mod model_files;

pub(crate) use export::{bytes_of, to_bytes};
pub use export::{convert, save_parameters};
pub(crate) use model_files::Carried;
