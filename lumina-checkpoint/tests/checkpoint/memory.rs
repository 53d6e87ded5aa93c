//! Files in memory are read as files on disk are.

use std::path::Path;

use bytes::Bytes;
use lumina_checkpoint::{Adapter, Checkpoint, Dtype, Error, save_safetensors};
use lumina_testing::own;

use crate::build::{Pickle, torch, two_bytes};
use crate::gguf::build::Gguf;
use crate::shared::{f32_bytes, read_all};

/// The files of a folder on disk, by name.
fn files_of(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let files = entries.filter(|entry| entry.path().is_file());
    files.map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())).collect()
}

fn assert_same(disk: &Checkpoint, memory: &Checkpoint) {
    assert_eq!(disk.names().collect::<Vec<_>>(), memory.names().collect::<Vec<_>>());
    assert!(read_all(memory) > 0);
    for name in disk.names() {
        let (disk, memory) = (disk.get(name).unwrap(), memory.get(name).unwrap());
        assert_eq!((disk.dtype(), disk.shape(), disk.file()), (memory.dtype(), memory.shape(), memory.file()));
        assert_eq!(disk.bytes(), memory.bytes(), "{name}");
    }
}

#[test]
fn folders() {
    for name in ["prenorm", "swin"] {
        let folder = own(&format!("model/{name}"));
        let disk = Checkpoint::open(&folder).unwrap();
        let memory = Checkpoint::from_files(&folder, files_of(&folder)).unwrap();
        assert_same(&disk, &memory);
        assert_eq!(memory.path(), folder);
        for document in ["config.json", "tokenizer.json", "absent.json"] {
            assert_eq!(disk.document(document).unwrap(), memory.document(document).unwrap(), "{document}");
        }
    }
}

#[test]
fn single_files() {
    let pickle = Pickle::new().op(b"}").text("w").vector("0", 2).op(b"s").end();
    let files = [
        ("model.safetensors", two_bytes("w")),
        ("weights.ckpt", torch(&pickle, &[("0", f32_bytes([1.0, 2.0]))])),
        ("model.gguf", Gguf::new().string("general.name", "small").floats("w", &[2], [1.0, 2.0]).end()),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        let path = folder.path().join(name);
        std::fs::write(&path, &bytes).unwrap();
        let bytes = Bytes::from(bytes);
        let memory = Checkpoint::from_bytes(&path, bytes.clone()).unwrap();
        assert_same(&Checkpoint::open(&path).unwrap(), &memory);
        assert!(memory.document("config.json").unwrap().is_none());
        // Nothing is copied.
        let tensor = memory.get("w").unwrap().bytes().clone();
        assert!(bytes.as_ptr_range().contains(&tensor.as_ptr()), "{name}");
    }
}

#[test]
fn errors_have_the_given_name() {
    let error = |result: Result<Checkpoint, Error>| result.unwrap_err().to_string();
    let none: [(&str, &[u8]); 0] = [];
    for (error, says) in [
        (error(Checkpoint::from_bytes("upload 7", Bytes::new())), "upload 7: damaged: the file is empty"),
        (error(Checkpoint::from_bytes("upload 7", &b"<html>"[..])), "upload 7: neither safetensors"),
        (error(Checkpoint::from_files("upload", none)), "upload: holds no checkpoint"),
        (
            error(Checkpoint::from_files(
                "upload",
                [("model.safetensors.index.json", &br#"{"weight_map":{"w":"a.safetensors"}}"#[..])],
            )),
            "the shard `a.safetensors`",
        ),
        (
            error(Checkpoint::from_files("upload", [("model.safetensors", two_bytes("w")[..9].to_vec())])),
            "model.safetensors: cut short",
        ),
    ] {
        assert!(error.contains("upload") && error.contains(says), "no `{says}` in `{error}`");
    }
}

#[test]
fn adapters() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b] = Adapter::tensor_names("model.layers.0.mlp.up_proj");
    let zeros = |elements: usize| move || Ok(vec![0; 4 * elements].into());
    save_safetensors(
        folder.path().join(Adapter::WEIGHTS),
        [(a, Dtype::F32, [2, 8], zeros(16)), (b, Dtype::F32, [4, 2], zeros(8))],
    )
    .unwrap();
    let config = br#"{"peft_type": "LORA", "r": 2, "lora_alpha": 8, "target_modules": ["up_proj"]}"#;
    std::fs::write(folder.path().join(Adapter::CONFIG), config).unwrap();

    let disk = Adapter::open(folder.path()).unwrap();
    let memory = Adapter::from_files(folder.path(), files_of(folder.path())).unwrap();
    assert_eq!((memory.rank(), memory.scale(), memory.config()), (2, 4.0, disk.config()));
    assert_eq!(memory.layers().collect::<Vec<_>>(), disk.layers().collect::<Vec<_>>());
    assert_same(disk.checkpoint(), memory.checkpoint());

    let error = Adapter::from_files("upload", [(Adapter::CONFIG, &config[..])]).unwrap_err().to_string();
    assert!(error.contains(Adapter::WEIGHTS) && error.contains("upload"), "{error}");
    let error = Adapter::from_files("upload", [(Adapter::CONFIG, &b"[]"[..])]).unwrap_err();
    assert!(matches!(error, Error::Adapter { .. }), "{error}");
}
