//! What a saved folder holds besides the weights.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use lumina_checkpoint::Adapter;
use lumina_checkpoint::{Dtype, save_bytes};
use serde_json::{Map, Value};

use super::folder::{TOKENIZER_FILES, read_json, write_json};
use crate::fine_tune::with_base;
use crate::{Error, Result};

/// What goes from the folder of a model or an adapter into each that is saved. In memory, as the folder may be a
/// checkpoint that is removed while the run goes on.
#[derive(Debug)]
pub(crate) enum Carried {
    /// `config.json`, the tokenizer's files and `generation_config.json`.
    Model { config: Value, files: Vec<(&'static str, Vec<u8>)> },
    /// `adapter_config.json`.
    Adapter { config: Map<String, Value> },
}

impl Carried {
    /// Of the model in a Hugging Face folder.
    pub(crate) fn of_model(folder: &Path) -> Result<Self> {
        let mut files = Vec::new();
        for name in TOKENIZER_FILES.into_iter().chain(["generation_config.json"]) {
            let file = folder.join(name);
            match fs::read(&file) {
                Ok(bytes) => files.push((name, bytes)),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(source) => return Err(Error::Read { file, source }),
            }
        }
        Ok(Self::Model { config: read_json(&folder.join("config.json"))?, files })
    }

    /// Of an adapter of the model in the folder `model`.
    pub(crate) fn of_adapter(adapter: &Adapter, model: &Path) -> Result<Self> {
        Ok(Self::Adapter { config: with_base(adapter.config().clone(), model)? })
    }

    /// Writes it into a folder, and says which file the weights go into, which will be of this type.
    pub(crate) fn write(&self, folder: &Path, dtype: Dtype) -> Result<&'static str> {
        match self {
            Self::Model { config, files } => {
                let mut config = config.clone();
                config["torch_dtype"] = match dtype {
                    Dtype::F16 => "float16",
                    Dtype::BF16 => "bfloat16",
                    _ => "float32",
                }
                .into();
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
