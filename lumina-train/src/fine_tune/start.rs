//! What a run began with, so that it is not resumed as another one.

use std::fs;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use lumina_checkpoint::Adapter;
use lumina_core::file;
use serde_json::{Map, Value, json};

use super::{ImageRows, LoraOptions};
use crate::checkpoint::{base_model, different, read_json};
use crate::{Error, Result};

/// What a run began with, besides its options and its data.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub(super) struct Start {
    /// Absent where the run was resumed after its model was gone.
    model: Option<StartModel>,
    /// Absent where all weights are trained.
    lora: Option<LoraOptions>,
    image_rows: ImageRows,
}

/// The model that a run began with.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
struct StartModel {
    folder: PathBuf,
    /// CRC-32 of its config and of samples of its weights.
    crc32: u32,
}

/// The LoRA options that the results depend on, in the order in which a difference is reported.
const LORA_FIELDS: [&str; 4] = ["rank", "alpha", "targets", "seed"];

impl Start {
    pub(super) fn new(model: &Path, lora: Option<&LoraOptions>, image_rows: ImageRows) -> Result<Self> {
        Ok(Self { model: StartModel::of(model)?, lora: lora.cloned(), image_rows })
    }

    /// An error where the run of a checkpoint began with something else; `saved` is what its state says, which older
    /// ones do not. A model that is no longer there cannot be compared, and is not needed.
    pub(super) fn check_same(&self, checkpoint: &Path, saved: Option<&Self>) -> Result<()> {
        let adapter = checkpoint.join(Adapter::CONFIG);
        let trains_adapter = adapter.exists();
        if trains_adapter != self.lora.is_some() {
            let kind = |is_adapter| if is_adapter { "an adapter" } else { "none: the whole model" };
            return Err(different(checkpoint, "lora", kind(trains_adapter), kind(self.lora.is_some())));
        }
        if let Some(lora) = &self.lora {
            match saved.and_then(|saved| saved.lora.as_ref()) {
                Some(saved) => check_same_lora(checkpoint, &to_json(saved), lora)?,
                None => check_same_adapter(checkpoint, lora)?,
            }
        }
        let saved_model = match saved.and_then(|saved| saved.model.clone()) {
            None if trains_adapter => base_model(checkpoint)?.map_or(Ok(None), |folder| StartModel::of(&folder))?,
            saved => saved,
        };
        if let Some((saved, given)) = saved_model.zip(self.model.as_ref())
            && saved.crc32 != given.crc32
        {
            return Err(different(checkpoint, "model", &saved.to_string(), &given.to_string()));
        }
        match saved.map(|saved| saved.image_rows) {
            Some(rows) if rows != self.image_rows => {
                let [saved, given] = [rows, self.image_rows].map(|rows| to_json(&rows).to_string());
                Err(different(checkpoint, "image_rows", &saved, &given))
            }
            _ => Ok(()),
        }
    }

    /// An error where the adapter that a run is to begin with is not one of its options, or of another model.
    pub(super) fn check_adapter(&self, adapter: &Path) -> Result<()> {
        if adapter.join(Adapter::CONFIG).exists() { self.check_same(adapter, None) } else { Ok(()) }
    }
}

fn to_json(value: &impl serde::Serialize) -> Value {
    serde_json::to_value(value).expect("options have a JSON form")
}

/// An error where the config of the adapter in a folder is not that of the options.
fn check_same_adapter(folder: &Path, given: &LoraOptions) -> Result<()> {
    let config: Map<String, Value> = read_json(&folder.join(Adapter::CONFIG))?;
    let names = [("rank", "r"), ("alpha", "lora_alpha"), ("targets", "target_modules")];
    let known = names.into_iter().filter_map(|(field, key)| Some((field.to_owned(), config.get(key)?.clone())));
    // Targets may also be a pattern, which is not compared with a list.
    let saved = known.filter(|(field, value)| field != "targets" || value.is_array()).collect();
    check_same_lora(folder, &Value::Object(saved), given)
}

/// An error that names the first of the options that differs. What `saved` does not have is not compared.
fn check_same_lora(checkpoint: &Path, saved: &Value, given: &LoraOptions) -> Result<()> {
    // PEFT writes whole numbers where this crate writes fractions, and lists of targets are sets.
    let normal = |value: &Value| match value {
        Value::Array(targets) => {
            let mut targets: Vec<String> = targets.iter().map(Value::to_string).collect();
            targets.sort();
            json!(targets)
        }
        Value::Number(number) if !number.is_u64() => json!(number.as_f64()),
        Value::Number(number) => json!(number.as_u64().map(|number| number as f64)),
        other => other.clone(),
    };
    let given = to_json(given);
    for field in LORA_FIELDS {
        if let (Some(saved), Some(given)) = (saved.get(field), given.get(field))
            && normal(saved) != normal(given)
        {
            return Err(different(checkpoint, &format!("lora.{field}"), &saved.to_string(), &given.to_string()));
        }
    }
    Ok(())
}

impl StartModel {
    /// The model in a folder; `None` where there is none.
    fn of(folder: &Path) -> Result<Option<Self>> {
        let config = folder.join("config.json");
        if !config.exists() {
            return Ok(None);
        }
        let failed = |source| Error::Read { file: folder.to_owned(), source };
        let mut crc32 = crc32fast::Hasher::new();
        let text = file::read_document_text(&config)?;
        file::check_json(&config, text.as_bytes())?;
        // Spaces do not make another model.
        match serde_json::from_str::<Value>(&text) {
            Ok(config) => crc32.update(config.to_string().as_bytes()),
            Err(_) => crc32.update(text.as_bytes()),
        }
        let mut weights = Vec::new();
        for entry in fs::read_dir(folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let is_weights = path.extension().and_then(|end| end.to_str()).is_some_and(|end| WEIGHTS.contains(&end));
            if is_weights && path.is_file() {
                weights.push(path);
            }
        }
        weights.sort();
        for file in weights {
            sample(&file, &mut crc32)?;
        }
        let folder = std::path::absolute(folder).map_err(failed)?;
        Ok(Some(Self { folder, crc32: crc32.finalize() }))
    }
}

impl std::fmt::Display for StartModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (CRC-32 {:08x})", self.folder.display(), self.crc32)
    }
}

/// The ends of names of files with weights.
const WEIGHTS: [&str; 4] = ["safetensors", "bin", "pth", "gguf"];
/// Samples of a file of weights, and their bytes.
const SAMPLES: u64 = 64;
const SAMPLE_BYTES: u64 = 4096;

/// Adds the size of a file and samples of it, from its first byte to its last.
fn sample(path: &Path, crc32: &mut crc32fast::Hasher) -> Result<()> {
    let failed = |source| Error::Read { file: path.to_owned(), source };
    let (mut file, bytes) = file::open(path)?;
    crc32.update(&bytes.to_le_bytes());
    let last = bytes.saturating_sub(SAMPLE_BYTES);
    let mut sample = Vec::new();
    for index in 0..SAMPLES {
        let position = (u128::from(last) * u128::from(index) / u128::from(SAMPLES - 1)) as u64;
        sample.clear();
        match file.seek(SeekFrom::Start(position)).and_then(|_| (&file).take(SAMPLE_BYTES).read_to_end(&mut sample)) {
            Err(error) if error.kind() != ErrorKind::UnexpectedEof => return Err(failed(error)),
            _ => crc32.update(&sample),
        }
    }
    Ok(())
}
