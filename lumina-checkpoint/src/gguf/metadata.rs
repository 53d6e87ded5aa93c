//! The metadata of a GGUF file.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::value::{Array, Value};
use crate::{Error, Result};

/// The metadata of a GGUF file: values by key. Cloning copies no values.
///
/// Returned by [`Checkpoint::metadata`](crate::Checkpoint::metadata).
#[derive(Clone)]
pub struct Metadata {
    file: Arc<Path>,
    entries: Arc<BTreeMap<String, Value>>,
}

impl Metadata {
    pub(super) fn new(file: &Path, entries: BTreeMap<String, Value>) -> Self {
        Self { file: file.into(), entries: Arc::new(entries) }
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entries.get(key)
    }

    /// All keys and values, in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The value of `general.architecture`; empty where that is missing or not a text.
    pub fn architecture(&self) -> &str {
        self.get("general.architecture").and_then(Value::as_str).unwrap_or_default()
    }

    /// The value of a key as an unsigned integer; `None` where there is no such key. An array counts as a number if all
    /// its elements are equal, since some files have one value for each layer.
    ///
    /// # Errors
    /// [`Error::Metadata`] where the value is something else.
    pub fn u64(&self, key: &str) -> Result<Option<u64>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let same = |first: Option<u64>, all: bool| first.filter(|_| all);
        let number = match value {
            Value::Array(Array::U32(values)) => {
                same(values.first().map(|&value| value.into()), values.windows(2).all(|pair| pair[0] == pair[1]))
            }
            Value::Array(Array::I32(values)) => {
                let first = values.first().and_then(|&value| value.try_into().ok());
                same(first, values.windows(2).all(|pair| pair[0] == pair[1]))
            }
            value => value.as_u64(),
        };
        number.map(Some).ok_or_else(|| self.wrong(key, "it is no whole number from 0 on".to_owned()))
    }

    /// The value of a key as a finite number; `None` where there is no such key.
    ///
    /// # Errors
    /// [`Error::Metadata`] where the value is something else.
    pub fn float(&self, key: &str) -> Result<Option<f64>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let wrong = || self.wrong(key, "it is no finite number".to_owned());
        let float = match *value {
            // By way of its shortest decimal: 1e-5 as `f32`, cast to `f64`, would be 9.999999747378752e-6.
            Value::F32(value) => value.to_string().parse().map_err(|_| wrong())?,
            ref value => value.as_f64().ok_or_else(wrong)?,
        };
        if float.is_finite() { Ok(Some(float)) } else { Err(wrong()) }
    }

    /// The error that a key is missing.
    pub fn missing(&self, key: &str) -> Error {
        self.wrong(key, "it is missing".to_owned())
    }

    /// The error that a key has a value that cannot be used.
    pub fn wrong(&self, key: &str, reason: String) -> Error {
        Error::Metadata { file: self.file.to_path_buf(), key: key.to_owned(), reason }
    }
}

impl std::fmt::Debug for Metadata {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metadata")
            .field("file", &self.file)
            .field("entries", &self.entries.len())
            .finish_non_exhaustive()
    }
}
