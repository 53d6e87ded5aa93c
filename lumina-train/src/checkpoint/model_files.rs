//! The files of a model or an adapter besides its weights.

use std::path::Path;

use lumina_checkpoint::{Adapter, save_bytes};
use serde_json::{Map, Value};

use super::{TOKENIZER_FILES, WeightType, read_if_present, read_json, with_base_model, write_json};
use crate::Result;

/// The files that each folder saved of a model or an adapter gets. They are kept in memory, as the folder that they
/// came from may be a checkpoint that is removed during the run.
#[derive(Debug)]
pub(crate) enum ModelFiles {
    /// `config.json`, the tokenizer's files and `generation_config.json`.
    Model { config: Value, files: Vec<(&'static str, Vec<u8>)> },
    /// `adapter_config.json`.
    Adapter { config: Map<String, Value> },
}

impl ModelFiles {
    /// Those of the model in a Hugging Face folder.
    pub(crate) fn of_model(folder: &Path) -> Result<Self> {
        let mut files = Vec::new();
        for name in TOKENIZER_FILES.into_iter().chain(["generation_config.json"]) {
            if let Some(bytes) = read_if_present(&folder.join(name))? {
                files.push((name, bytes));
            }
        }
        Ok(Self::Model { config: read_json(&folder.join("config.json"))?, files })
    }

    /// Those of an adapter of the model in the folder `model`.
    pub(crate) fn of_adapter(adapter: &Adapter, model: &Path) -> Result<Self> {
        Ok(Self::Adapter { config: with_base_model(adapter.config().clone(), model)? })
    }

    /// Writes them into a folder. Returns the name of the file for the weights, which will be of this type.
    pub(crate) fn write(&self, folder: &Path, weights: WeightType) -> Result<&'static str> {
        match self {
            Self::Model { config, files } => {
                let mut config = config.clone();
                config["torch_dtype"] = weights.torch_name().into();
                write_json(&folder.join("config.json"), &config)?;
                for (name, bytes) in files {
                    save_bytes(folder.join(name), bytes)?;
                }
                Ok("model.safetensors")
            }
            Self::Adapter { config } => {
                write_json(&folder.join(Adapter::CONFIG), config)?;
                Ok(Adapter::WEIGHTS)
            }
        }
    }
}
