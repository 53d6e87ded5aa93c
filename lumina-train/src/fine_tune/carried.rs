//! What a model's folder has besides weights.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use lumina_core::checkpoint::Dtype;

use super::folder::{self, TOKENIZER_FILES, read_json, write_json};
use crate::{Error, Result};

/// Config and tokenizer of a model's folder, held in memory: the folder may be an older checkpoint, and be removed while
/// the run goes on.
#[derive(Debug)]
pub(crate) struct Carried {
    config: serde_json::Value,
    files: Vec<(&'static str, Vec<u8>)>,
}

impl Carried {
    /// Reads them.
    pub(crate) fn of(folder: &Path) -> Result<Self> {
        let mut files = Vec::new();
        for name in TOKENIZER_FILES.into_iter().chain(["generation_config.json"]) {
            let file = folder.join(name);
            match fs::read(&file) {
                Ok(bytes) => files.push((name, bytes)),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(source) => return Err(Error::Read { file, source }),
            }
        }
        Ok(Self { config: read_json(&folder.join("config.json"))?, files })
    }

    /// Writes them beside weights of type `dtype`.
    pub(crate) fn write(&self, folder: &Path, dtype: Dtype) -> Result<()> {
        let mut config = self.config.clone();
        config["torch_dtype"] = match dtype {
            Dtype::F16 => "float16",
            Dtype::BF16 => "bfloat16",
            _ => "float32",
        }
        .into();
        write_json(&folder.join("config.json"), &config)?;
        self.files.iter().try_for_each(|(name, bytes)| folder::write(&folder.join(name), bytes))
    }
}
