//! Which model an adapter belongs to.

use std::path::{Path, PathBuf};

use lumina_checkpoint::Adapter;
use serde_json::{Map, Value};

use super::read_json;
use crate::{Error, Result};

/// Where the config of an adapter names the folder of its model.
const BASE_MODEL: &str = "base_model_name_or_path";

/// The config of an adapter, with the folder of its model.
pub(crate) fn with_base_model(mut config: Map<String, Value>, model: &Path) -> Result<Map<String, Value>> {
    let model = std::path::absolute(model).map_err(|source| Error::Read { file: model.to_owned(), source })?;
    config.insert(BASE_MODEL.to_owned(), model.to_string_lossy().into());
    config.insert("inference_mode".to_owned(), true.into());
    Ok(config)
}

/// The folder of the model that the adapter in a folder belongs to; `None` where there is no adapter.
pub(crate) fn base_model(adapter: &Path) -> Result<Option<PathBuf>> {
    let file = adapter.join(Adapter::CONFIG);
    if !file.exists() {
        return Ok(None);
    }
    let config: Map<String, Value> = read_json(&file)?;
    match config.get(BASE_MODEL).and_then(Value::as_str) {
        Some(model) => Ok(Some(model.into())),
        None => Err(Error::NoBaseModel { file }),
    }
}
