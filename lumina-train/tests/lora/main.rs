//! LoRA: forward passes, training, saving, merging, and adapters that are refused.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests: a panic is the failure")]

mod forward;
mod refusals;
mod training;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lumina_checkpoint::Adapter;
use lumina_checkpoint::{Checkpoint, Dtype, save_safetensors};
use lumina_mgpt::{ModelConfig, Transformer};
use lumina_nn::{Compute, Loader};
use lumina_testing::{lcg, own};
use lumina_train::fine_tune::{LoraOptions, merge};
use serde_json::Value;
use tempfile::TempDir;

/// The tests' model, and a folder to write into.
struct Place {
    model: PathBuf,
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { model: own("model/prenorm"), folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A new adapter.
    fn fresh(&self, name: &str) -> PathBuf {
        let adapter = self.path(name);
        LoraOptions { rank: 4, alpha: 6.0, seed: 3, ..LoraOptions::default() }
            .create(&self.model, &adapter, &Compute::cpu())
            .unwrap();
        adapter
    }

    /// An adapter that changes the model much, as after training.
    fn trained(&self, name: &str) -> PathBuf {
        let adapter = self.fresh(name);
        rewrite(&adapter, |tensors| {
            let mut random = lcg(11);
            for (name, (_, values)) in tensors.iter_mut().filter(|(name, _)| name.contains("lora_B")) {
                assert!(values.iter().all(|&value| value == 0.0), "{name}");
                values.fill_with(|| (random.next().unwrap() >> 8) as f32 / (1 << 24) as f32 * 0.4 - 0.2);
            }
        });
        adapter
    }

    /// The model with an adapter's updates in its weights.
    fn merged(&self, adapter: &Path, name: &str) -> Checkpoint {
        merge(&self.model, adapter, &self.path(name), Dtype::F32).unwrap();
        Checkpoint::open(self.path(name)).unwrap()
    }

    fn transformer(&self, adapter: Option<&Path>, compute: &Compute) -> lumina_mgpt::Result<Transformer> {
        let file = self.model.join("config.json");
        let architecture = ModelConfig::open(&file)?.resolve(&file)?;
        let checkpoint = Checkpoint::open(&self.model)?;
        let adapter = adapter.map(Adapter::open).transpose()?;
        let loader = Loader::new(&checkpoint, compute);
        let loader = match &adapter {
            Some(adapter) => loader.with_adapter(adapter),
            None => loader,
        };
        Transformer::from_loader(&loader, architecture)
    }
}

type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

fn tensors(adapter: &Path) -> Tensors {
    let checkpoint = Checkpoint::open(adapter.join(Adapter::WEIGHTS)).unwrap();
    let views = checkpoint.names().map(|name| checkpoint.get(name).unwrap());
    views.map(|view| (view.name().to_owned(), (view.shape().to_vec(), view.to_f32().unwrap()))).collect()
}

fn write(adapter: &Path, tensors: &Tensors) {
    let tensors = tensors.iter().map(|(name, (shape, values))| {
        (name, Dtype::F32, shape, || Ok(values.iter().flat_map(|value| value.to_le_bytes()).collect()))
    });
    save_safetensors(adapter.join(Adapter::WEIGHTS), tensors).unwrap();
}

fn rewrite(adapter: &Path, change: impl FnOnce(&mut Tensors)) {
    let mut found = tensors(adapter);
    change(&mut found);
    write(adapter, &found);
}

fn set(adapter: &Path, key: &str, value: Value) {
    let file = adapter.join(Adapter::CONFIG);
    let mut config: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    config[key] = value;
    std::fs::write(&file, config.to_string()).unwrap();
}

fn tokens(count: usize, seed: u32) -> Vec<u32> {
    lcg(seed).map(|value| (value >> 8) % 9616).take(count).collect()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).fold(0.0, |largest, (a, b)| largest.max((a - b).abs()))
}

fn placements() -> [Compute; 2] {
    [Compute::cpu(), Compute::flex()]
}
