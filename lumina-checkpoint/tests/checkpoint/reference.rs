//! Every checkpoint of the reference data is readable to its last tensor.

use std::path::{Path, PathBuf};

use lumina_checkpoint::{Checkpoint, TensorView};
use lumina_testing::{part, reference, report};

use crate::shared::read_all;

fn model_folders() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> =
        std::fs::read_dir(part("model")).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.retain(|folder| folder.is_dir());
    folders.sort();
    folders
}

fn finite(view: &TensorView) -> bool {
    view.to_f32().is_ok_and(|values| values.iter().all(|value| value.is_finite()))
}

#[test]
fn model_folders_are_read_whole() {
    let folders = model_folders();
    for folder in &folders {
        let checkpoint = Checkpoint::open(folder).unwrap();
        assert!(read_all(&checkpoint) > 0);
        for view in checkpoint.names().filter_map(|name| checkpoint.get(name)) {
            assert!(finite(&view), "{view:?}");
            assert_eq!(view.file().parent(), Some(&**folder));
        }
    }
    report("checkpoint: model folders", folders.len());
}

#[test]
fn the_image_tokenizer_is_read_whole() {
    let path = part("vq/vqgan.ckpt");
    let checkpoint = Checkpoint::open(&path).unwrap();
    let tensors = read_all(&checkpoint);
    for view in checkpoint.names().filter_map(|name| checkpoint.get(name)) {
        assert!(finite(&view), "{view:?}");
        assert_eq!(view.file(), path);
    }
    for key in ["epoch", "state_dict", "callbacks", "optimizer_states"] {
        assert!(!checkpoint.contains(key), "{key}");
    }
    report("checkpoint: tensors of the image tokenizer", tensors);
}

/// A model folder has the encoder of the image tokenizer it was trained with, from another program and in another
/// format. Where its codebook is that of `vqgan.ckpt`, every tensor is, up to the rounding of its type, and so the
/// views in another order of memory are read as torch reads them.
#[test]
fn the_image_tokenizer_agrees_with_its_copies_in_model_folders() {
    const PREFIX: &str = "model.vqmodel.";
    const CODEBOOK: &str = "quantize.embedding.weight";
    let tokenizer = Checkpoint::open(part("vq/vqgan.ckpt")).unwrap();
    let mut compared = 0;
    for folder in model_folders() {
        let model = Checkpoint::open(&folder).unwrap();
        let agree = |name: &str| {
            let (Some(here), Some(there)) = (tokenizer.get(name), model.get(&format!("{PREFIX}{name}"))) else {
                return None;
            };
            let close = |(a, b): (&f32, &f32)| (a - b).abs() <= a.abs() / 256.0;
            let same = here.to_f32().unwrap().iter().zip(&there.to_f32().unwrap()).all(close);
            Some(here.shape() == there.shape() && same)
        };
        if agree(CODEBOOK) != Some(true) {
            continue;
        }
        for name in model.names().filter_map(|name| name.strip_prefix(PREFIX)) {
            if let Some(same) = agree(name) {
                assert!(same, "`{name}` in {} is not that of the image tokenizer", folder.display());
                compared += 1;
            }
        }
    }
    eprintln!("checkpoint: {compared} tensors of the image tokenizer have an equal copy in {}", reference().display());
}

/// Every other safetensors file of the reference data.
#[test]
fn cases_are_read_whole() {
    fn visit(folder: &Path, read: &mut usize) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                visit(&path, read);
            } else if path.extension().is_some_and(|extension| extension == "safetensors") {
                assert!(read_all(&Checkpoint::open(&path).unwrap()) > 0, "{}", path.display());
                *read += 1;
            }
        }
    }
    let mut read = 0;
    visit(&reference(), &mut read);
    report("checkpoint: safetensors files", read);
}
