//! Model folders as other programs write them: shards with left-overs, and other places and forms of settings in
//! `config.json`. Each is the model of the reference data, so it has the same logits to the bit.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests: a panic is the failure")]

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use lumina_checkpoint::gguf::Value as Entry;
use lumina_checkpoint::{Checkpoint, Dtype, save_safetensors};
use lumina_mgpt::convert::{self, QuantiseOptions, RowOrder, quantise};
use lumina_mgpt::{Compute, Lumina, Row, Transformer};
use serde_json::{Value, json};
use tempfile::TempDir;

const SHARDS: [&str; 2] = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];

/// The project's own copy of a model in two shards, also where the reference data is elsewhere.
fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/reference/model/prenorm")
}

/// A copy of the model with another `config.json`.
fn with_config(change: impl FnOnce(&mut Value)) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in SHARDS.into_iter().chain(["model.safetensors.index.json"]) {
        std::fs::copy(model().join(name), folder.path().join(name)).unwrap();
    }
    let mut config: Value = serde_json::from_slice(&std::fs::read(model().join("config.json")).unwrap()).unwrap();
    change(&mut config);
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    folder
}

/// Logits after each of some tokens.
fn logits(path: &Path) -> Vec<f32> {
    let model = Transformer::open(path, &Compute::cpu()).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let tokens = [0, 9000, 9001, 9100, 9200, 9300, 40, 41, 8710, 9003];
    let hidden = model.forward(&mut [Row::whole(&tokens)]).unwrap();
    let logits = model.logits_at(&hidden, &(0..tokens.len()).collect::<Vec<_>>()).unwrap();
    logits.rows().flatten().copied().collect()
}

/// A GGUF file of a folder's model, in `f32`.
fn gguf(folder: &Path, order: RowOrder) -> lumina_checkpoint::Result<PathBuf> {
    let path = folder.join("written.gguf");
    let options = QuantiseOptions::new(Dtype::F32).embedding(Dtype::F32).row_order(order);
    quantise(&convert::open(folder)?, &path, &options, &mut |_| ControlFlow::Continue(()))?;
    Ok(path)
}

/// A shard that was reused: its own tensors, and what the index leaves out.
#[test]
fn shards_with_tensors_that_the_index_leaves_out() {
    let expected = logits(&model());
    let [first, second] = SHARDS.map(|name| Checkpoint::open(model().join(name)).unwrap());
    let stale = first.names().find(|name| name.ends_with("_proj.weight")).unwrap();
    for (name, shape) in [(stale, first.get(stale).unwrap().shape()), ("model.layers.7.old.weight", &[2, 2][..])] {
        let folder = with_config(|_| {});
        let kept = second.names().map(|name| second.get(name).unwrap());
        let kept = kept.map(|view| (view.name().to_owned(), view.dtype(), view.shape().to_vec(), view.bytes().clone()));
        let zeros = vec![0; shape.iter().product::<usize>() * 4].into();
        let tensors = kept.chain([(name.to_owned(), Dtype::F32, shape.to_vec(), zeros)]);
        let tensors = tensors.map(|(name, dtype, shape, bytes)| (name, dtype, shape, move || Ok(bytes)));
        save_safetensors(folder.path().join(SHARDS[1]), tensors).unwrap();
        assert!(logits(folder.path()) == expected, "`{name}` counts");
    }
}

/// transformers 5 takes `rope_scaling` for `rope_parameters`, and a base there counts before the one at the top level.
#[test]
fn the_rotary_base_in_every_place() {
    let scaling = json!({"rope_theta": 5000.0, "rope_type": "default"});
    let folders = [
        with_config(|config| config["rope_theta"] = json!(5000.0)),
        with_config(|config| {
            config.as_object_mut().unwrap().remove("rope_theta");
            config["rope_scaling"] = scaling.clone();
        }),
        with_config(|config| {
            config["rope_theta"] = json!(10_000.0);
            config["rope_scaling"] = scaling.clone();
        }),
    ];
    let expected = logits(folders[0].path());
    assert!(expected != logits(&model()), "the base changes nothing");
    for folder in folders {
        assert!(logits(folder.path()) == expected, "{}", folder.path().display());
        for (order, architecture) in [(RowOrder::HuggingFace, "lumina"), (RowOrder::LlamaCpp, "chameleon")] {
            let file = gguf(folder.path(), order).unwrap();
            let checkpoint = Checkpoint::open(&file).unwrap();
            let base = checkpoint.metadata().unwrap().get(&format!("{architecture}.rope.freq_base"));
            assert_eq!(base, Some(&Entry::F32(5000.0)));
            assert!(logits(&file) == expected, "{order:?}");
        }
    }
}

#[test]
fn settings_that_are_the_defaults() {
    let expected = logits(&model());
    let factor = |config: &mut Value| config["rope_scaling"] = json!({"type": "default", "factor": 1.0});
    let nulls = |config: &mut Value| {
        for key in ["attention_bias", "swin_norm", "model_parallel_size", "rope_scaling", "mlp_bias", "head_dim"] {
            config[key] = Value::Null;
        }
    };
    for folder in [with_config(factor), with_config(nulls)] {
        assert!(logits(folder.path()) == expected);
        assert!(logits(&gguf(folder.path(), RowOrder::HuggingFace).unwrap()) == expected);
        assert!(logits(&gguf(folder.path(), RowOrder::LlamaCpp).unwrap()) == expected);
    }
}

/// llama.cpp has no rotary positions that are stretched with the length, so only a file for it is refused.
#[test]
fn dynamic_rotary_positions_in_our_own_order() {
    let dynamic = with_config(|config| {
        config["max_position_embeddings"] = json!(6);
        config["rope_scaling"] = json!({"type": "dynamic", "factor": 3.0});
    });
    let expected = logits(dynamic.path());
    assert!(expected != logits(&model()), "the scaling changes nothing");
    let error = gguf(dynamic.path(), RowOrder::LlamaCpp).unwrap_err().to_string();
    assert!(error.contains("`rope_scaling`") && error.contains("llama.cpp"), "{error}");
    let file = gguf(dynamic.path(), RowOrder::HuggingFace).unwrap();
    // The file alone is the model.
    let alone = tempfile::tempdir().unwrap();
    std::fs::rename(&file, alone.path().join("model.gguf")).unwrap();
    assert!(logits(alone.path()) == expected);
}

/// Meta's folder is `tokenizer` in that of its checkpoint, so the folder around it is taken, too.
#[test]
fn an_image_tokenizer_in_a_subfolder() {
    let outer = tempfile::tempdir().unwrap();
    let inner = outer.path().join("tokenizer");
    std::fs::create_dir(&inner).unwrap();
    for name in ["vqgan.yaml", "vqgan.ckpt"] {
        let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/reference/vq");
        std::fs::copy(reference.join(name), inner.join(name)).unwrap();
    }
    for folder in [outer.path(), &inner] {
        let model = Lumina::from_pretrained(model()).image_tokenizer(folder).compute(Compute::cpu()).load().unwrap();
        assert!(model.image_tokenizer().unwrap().has_decoder());
    }
}
