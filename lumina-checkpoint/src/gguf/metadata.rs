//! The metadata of a GGUF file.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::value::{Array, Value};
use crate::{Error, Result};

/// The metadata of a GGUF file: values by key.
///
/// Got from [`Checkpoint::metadata`](crate::Checkpoint::metadata).
#[derive(Debug, Clone)]
pub struct Metadata {
    file: Arc<Path>,
    entries: BTreeMap<String, Value>,
}

impl Metadata {
    pub(super) fn new(file: &Path, entries: BTreeMap<String, Value>) -> Self {
        Self { file: file.into(), entries }
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entries.get(key)
    }

    /// All keys and values, in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// `general.architecture`, or nothing where it is no text.
    pub fn architecture(&self) -> &str {
        self.get("general.architecture").and_then(Value::as_str).unwrap_or_default()
    }

    /// The value of a key that must be a whole number where it is there. An array of one number, as some files have for
    /// each layer, is that number.
    ///
    /// # Errors
    /// [`Error::Metadata`] where it is something else.
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

    /// The value of a key that must be a finite number where it is there.
    ///
    /// # Errors
    /// [`Error::Metadata`] where it is something else.
    pub fn float(&self, key: &str) -> Result<Option<f64>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let wrong = || self.wrong(key, "it is no finite number".to_owned());
        let float = match *value {
            // The decimal that was meant, 1e-5, not what its nearest `f32` is as an `f64`.
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
