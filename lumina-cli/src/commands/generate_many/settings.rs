//! What a folder was begun with: `run.json`. A run with anything else would put other images among its images.

use std::fs;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use lumina_checkpoint::save_bytes;
use lumina_core::{file, shown};
use lumina_mgpt::Compute;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::manifest::is_of_a_rank;
use super::requests::Requests;
use crate::Rank;
use crate::args::CheckpointArgs;
use crate::files::hex;

/// The name of the file.
const FILE: &str = "run.json";

/// What all ranks of a run have in common.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Settings {
    /// Number of requests.
    pub(super) requests: u64,
    /// The SHA-256 of their file.
    requests_sha256: String,
    /// A digest of the model's files.
    model_sha256: String,
    /// Kind of device, and data types.
    compute: String,
    target_size_px: Option<u32>,
    /// Number of ranks, on which it depends who has which requests.
    pub(super) ranks: u64,
    /// The version of the program.
    version: String,
}

impl Settings {
    /// The settings of a run.
    ///
    /// # Errors
    /// Where the model's files cannot be read.
    pub(super) fn new(requests: &Requests, model: &CheckpointArgs, rank: Rank) -> Result<Self> {
        Ok(Self {
            requests: requests.len() as u64,
            requests_sha256: requests.sha256().to_owned(),
            model_sha256: digest_of_model(&model.paths()?)?,
            compute: compute_kind(&model.compute()),
            target_size_px: model.target_size_px(),
            ranks: rank.of(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        })
    }

    /// Reads those of a folder; `None` where it has none.
    ///
    /// # Errors
    /// Where the file cannot be read, or is another program's.
    pub(super) fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(FILE);
        let text = match file::read_document_text(&path) {
            Ok(text) => text,
            Err(lumina_core::Error::Read { source, .. }) if source.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let read = serde_json::from_str(&text).map_err(|error| lumina_core::Cause::new(&error));
        read.map(Some).with_context(|| format!("{}: is not of this program; choose another folder", shown(&path)))
    }

    /// Checks that a folder is empty, or this run's. Returns whether it has settings already.
    ///
    /// # Errors
    /// Whose it is.
    pub(super) fn check(&self, folder: &Path) -> Result<bool> {
        if let Some(found) = Self::read(folder)? {
            self.compare(&found).with_context(|| format!("{}: is the folder of another run", shown(folder)))?;
            return Ok(true);
        }
        for entry in fs::read_dir(folder).with_context(|| format!("{}: cannot be read", shown(folder)))? {
            let entry = entry.with_context(|| format!("{}: cannot be read", shown(folder)))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // Another rank may have begun just now. Folders and hidden files are the file system's, mostly.
            let is_other = entry.file_type().is_ok_and(|kind| kind.is_file()) && !name.starts_with('.');
            if is_other && !name.starts_with(FILE) && !is_of_a_rank(&name) {
                bail!("{}: has files, but no {FILE}; choose a new folder, or an empty one", shown(folder));
            }
        }
        Ok(false)
    }

    /// Writes the settings into a folder that has none, unless another rank is faster: then they have to be the same.
    ///
    /// # Errors
    /// Where they cannot be written, or the other rank's are different.
    pub(super) fn publish(&self, folder: &Path, rank: Rank) -> Result<()> {
        let json = serde_json::to_vec_pretty(self).context("settings have a JSON form")?;
        let whole = folder.join(format!("{FILE}.{}-of-{}", rank.rank(), rank.of()));
        save_bytes(&whole, &json)?;
        // Unlike a rename, a link does not replace what another rank has put there.
        let linked = fs::hard_link(&whole, folder.join(FILE));
        let published = match linked {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Ok(save_bytes(folder.join(FILE), &json)?),
            _ => Ok(()),
        };
        let _ = fs::remove_file(&whole);
        published.and_then(|()| self.check(folder).map(drop))
    }

    /// Checks that two are the same.
    fn compare(&self, found: &Self) -> Result<()> {
        let values = |settings: &Self| serde_json::to_value(settings).context("settings have a JSON form");
        let (given, found) = (values(self)?, values(found)?);
        for (key, given) in given.as_object().into_iter().flatten() {
            let found = &found[key];
            if given != found {
                let rule = match key.as_str() {
                    "ranks" => "; give `--ranks` as before",
                    _ => "",
                };
                bail!("its `{key}` is {found}, and now it would be {given}{rule}; or choose another folder");
            }
        }
        Ok(())
    }
}

/// The devices by kind, and the data types. Which of several GPUs a rank has, and of how many, makes no difference.
fn compute_kind(compute: &Compute) -> String {
    let name = compute.to_string();
    let (devices, types) = name.split_once(' ').unwrap_or((&name, ""));
    let mut kinds: Vec<&str> = devices.split('+').map(|device| device.split(':').next().unwrap_or(device)).collect();
    kinds.dedup();
    let (kv_cache, activations) = (compute.kv_dtype(), compute.activations());
    format!("{} {types}, KV cache {kv_cache}, activations {activations:?}", kinds.join("+"))
}

/// The documents that a model is opened with.
const DOCUMENTS: [&str; 5] =
    ["config.json", "generation_config.json", "tokenizer.json", "vqgan.yaml", "adapter_config.json"];
/// The ends of names of weights.
const WEIGHTS: [&str; 6] = ["safetensors", "gguf", "bin", "pt", "pth", "ckpt"];
/// The subfolders of a model in which its image tokenizer can be.
const SUBFOLDERS: [&str; 3] = ["", "tokenizer", "original_tokenizers"];

/// A digest of the files of a model and its parts: their names, and what is in them ([`add_file`]).
fn digest_of_model(paths: &[PathBuf]) -> Result<String> {
    let mut digest = Sha256::new();
    for path in paths {
        let mut files = Vec::new();
        if path.is_file() {
            // By whatever name.
            files.push((String::new(), path.clone()));
        }
        for subfolder in SUBFOLDERS {
            for entry in fs::read_dir(path.join(subfolder)).into_iter().flatten() {
                let file = entry.with_context(|| format!("{}: cannot be read", shown(path)))?.path();
                let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let extension = file.extension().unwrap_or_default().to_string_lossy();
                if file.is_file() && (DOCUMENTS.contains(&name.as_str()) || WEIGHTS.contains(&&*extension)) {
                    files.push((format!("{subfolder}/{name}"), file));
                }
            }
        }
        files.sort();
        digest.update((files.len() as u64).to_le_bytes());
        for (name, file) in files {
            digest.update((name.len() as u64).to_le_bytes());
            digest.update(name);
            add_file(&mut digest, &file)?;
        }
    }
    Ok(hex(&digest.finalize()))
}

/// Bytes of a sample of a large file, and how many there are: 16 MiB, so that each rank of many need not read a model
/// twice.
const SAMPLE: usize = 64 << 10;
const SAMPLES: u64 = 256;

/// Adds a file to a digest: its length, and all that is in it, or of a large one samples from its start to its end.
fn add_file(digest: &mut Sha256, path: &Path) -> Result<()> {
    let (mut file, length) = file::open(path)?;
    digest.update(length.to_le_bytes());
    let read = |error| lumina_core::Error::Read { file: path.to_owned(), source: error };
    if length <= SAMPLES * SAMPLE as u64 {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(read)?;
        digest.update(&bytes);
        return Ok(());
    }
    let mut sample = vec![0; SAMPLE];
    for index in 0..SAMPLES {
        let last = length - SAMPLE as u64;
        let place = (u128::from(last) * u128::from(index) / u128::from(SAMPLES - 1)) as u64;
        file.seek(SeekFrom::Start(place)).and_then(|_| file.read_exact(&mut sample)).map_err(read)?;
        digest.update(&sample);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_file_or_weight_is_another_model() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
        let digest = || digest_of_model(&[folder.path().to_owned()]).unwrap();
        fs::create_dir(folder.path().join("tokenizer")).unwrap();
        write("config.json", b"{}");
        let large: Vec<u8> = (0..SAMPLES * SAMPLE as u64 + 1000).map(|index| (index % 251) as u8).collect();
        write("model.safetensors", &large);
        let first = digest();
        // What is for people, or other programs.
        write("README.md", b"a model");
        assert_eq!(digest(), first);
        write("tokenizer/vqgan.yaml", b"a: 1");
        let with_images = digest();
        assert_ne!(with_images, first);
        // Samples have gaps, which are short here. Other weights differ everywhere.
        for changed in [0..1, large.len() / 2..large.len() / 2 + 64, large.len() - 1..large.len()] {
            let mut other = large.clone();
            other[changed.clone()].iter_mut().for_each(|byte| *byte ^= 1);
            write("model.safetensors", &other);
            assert_ne!(digest(), with_images, "{changed:?}");
        }
        write("model.safetensors", &large[1..]);
        assert_ne!(digest(), with_images);
        write("model.safetensors", &large);
        assert_eq!(digest(), with_images);
        let file = folder.path().join("config.json");
        let alone = digest_of_model(std::slice::from_ref(&file)).unwrap();
        assert_ne!(alone, digest_of_model(&[file, folder.path().into()]).unwrap());
    }

    #[test]
    fn which_gpu_it_is_makes_no_difference() {
        let kind = compute_kind(&Compute::cpu());
        assert!(kind.starts_with("cpu f32"), "{kind}");
        let bf16 = compute_kind(&Compute::cpu().kv_cache(lumina_mgpt::Dtype::BF16));
        assert_ne!(kind, bf16);
    }
}
