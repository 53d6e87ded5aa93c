//! Broken model folders: each gives an error that names the file and what is wrong, and nothing panics.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "helpers of tests: a panic is the failure, a print the report"
)]

use std::path::{Path, PathBuf};

use lumina_checkpoint::{Checkpoint, Dtype, TensorView, save_safetensors};
use lumina_mgpt::{Compute, Dtype as ComputeDtype, Lumina};
use lumina_testing::{part, whole_message};
use serde_json::{Value, json};

/// A folder of the reference data without QK-norm by heads or masks: the plain case.
fn source() -> PathBuf {
    let mut folders: Vec<_> = std::fs::read_dir(part("model")).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    folders.remove(0)
}

/// A copy of the model in one file, with its tensors and config changed.
fn folder(
    change: impl Fn(&TensorView) -> Option<(String, Dtype, Vec<usize>, Vec<u8>)>,
    config: impl Fn(&mut Value),
) -> tempfile::TempDir {
    let (source, target) = (source(), tempfile::tempdir().unwrap());
    for entry in std::fs::read_dir(&source).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_some_and(|extension| extension == "json") && !file.to_string_lossy().contains("index") {
            std::fs::copy(&file, target.path().join(file.file_name().unwrap())).unwrap();
        }
    }
    let file = target.path().join("config.json");
    let mut parsed: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    config(&mut parsed);
    std::fs::write(&file, parsed.to_string()).unwrap();
    let checkpoint = Checkpoint::open(&source).unwrap();
    let tensors = checkpoint.names().filter_map(|name| change(&checkpoint.get(name).unwrap()));
    save_safetensors(
        target.path().join("model.safetensors"),
        tensors.map(|(name, dtype, shape, bytes)| (name, dtype, shape, move || Ok(bytes.into()))),
    )
    .unwrap();
    target
}

fn same(view: &TensorView) -> Option<(String, Dtype, Vec<usize>, Vec<u8>)> {
    Some((view.name().to_owned(), view.dtype(), view.shape().to_vec(), view.bytes().to_vec()))
}

fn open(folder: &Path) -> Result<Lumina, lumina_mgpt::Error> {
    let tokenizer = if source().join("tokenizer.json").exists() { source() } else { part("tokenizer") };
    Lumina::from_pretrained(folder).tokenizer(tokenizer).image_tokenizer(part("vq")).compute(Compute::cpu()).load()
}

fn message(folder: &Path) -> String {
    open(folder).expect_err("the folder is broken").to_string()
}

#[test]
fn a_copy_opens() {
    open(folder(same, |_| {}).path()).unwrap();
    let newer = folder(same, |config| {
        config["rope_scaling"] = json!({"type": "linear", "rope_type": "linear", "factor": 2.0});
        config["vocabulary_map"] = Value::Null;
        config["some_new_key"] = json!([1, 2]);
    });
    open(newer.path()).unwrap();
}

#[test]
fn tensors_that_are_missing_misshaped_or_not_the_models_are_all_named() {
    let broken = folder(
        |view| match view.name() {
            "model.norm.weight" => None,
            "model.layers.0.mlp.up_proj.weight" => {
                let [rows, columns] = view.shape().try_into().unwrap();
                Some((view.name().to_owned(), view.dtype(), vec![columns, rows], view.bytes().to_vec()))
            }
            "model.layers.0.self_attn.q_proj.weight" => {
                let n = view.shape().iter().product::<usize>();
                Some((view.name().to_owned(), Dtype::I8, view.shape().to_vec(), vec![0; n]))
            }
            "lm_head.weight" => {
                Some(("lm_heat.weight".to_owned(), view.dtype(), view.shape().to_vec(), view.bytes().to_vec()))
            }
            _ => same(view),
        },
        |_| {},
    );
    let message = message(broken.path());
    for what in [
        "5 tensors",
        "`model.norm.weight`",
        "is missing",
        "`model.layers.0.mlp.up_proj.weight` has shape",
        "expected [",
        "`model.layers.0.self_attn.q_proj.weight` has type i8",
        "`lm_head.weight`",
        "`lm_heat.weight`",
        "belongs to no part",
        "model.safetensors",
    ] {
        assert!(message.contains(what), "{message}\nexpected: {what}");
    }
}

#[test]
fn configs_that_are_broken_or_not_supported_are_refused() {
    let with = |key: &str, value: Value| message(folder(same, |config| config[key] = value.clone()).path());
    let config: Value = serde_json::from_slice(&std::fs::read(source().join("config.json")).unwrap()).unwrap();
    let beyond = |key: &str| config[key].as_u64().unwrap() + 1;
    for (key, value, what) in [
        ("hidden_size", json!(0), "`hidden_size` is 0"),
        ("hidden_size", json!(-1), "config.json"),
        ("num_hidden_layers", json!(1_000_000_000_000u64), "`num_hidden_layers`"),
        ("num_attention_heads", json!(beyond("hidden_size")), "no multiple of"),
        ("num_key_value_heads", json!(beyond("num_attention_heads")), "no multiple of"),
        ("model_parallel_size", json!(beyond("num_attention_heads")), "no multiple of"),
        ("hidden_act", json!("gelu"), "`hidden_act` `gelu`"),
        ("model_type", json!("llama"), "`llama`"),
        ("rms_norm_eps", json!(0.0), "positive"),
        ("rope_scaling", json!({"type": "yarn", "factor": 2.0}), "`yarn`"),
        ("rope_scaling", json!({"type": "linear", "factor": 0.0}), "linear"),
        ("head_dim", json!(3), "`head_dim`"),
        ("vocab_size", json!(100), "100"),
    ] {
        let message = with(key, value);
        assert!(message.contains(what), "{message}\nexpected: {what}");
    }
    let no_names = folder(same, |config| {
        config["mask_image_logits"] = json!(true);
        config["vocabulary_map"] = json!({});
    });
    assert!(message(no_names.path()).contains("`vocabulary_map`"));
    let intermediate = beyond("intermediate_size");
    let wrong_size = folder(same, |config| config["intermediate_size"] = json!(intermediate));
    let wrong_size = message(wrong_size.path());
    assert!(wrong_size.contains(&format!("expected [{intermediate}, ")), "{wrong_size}");

    let broken = folder(same, |_| {});
    std::fs::write(broken.path().join("config.json"), "{").unwrap();
    assert!(message(broken.path()).contains("config.json"));
    std::fs::remove_file(broken.path().join("config.json")).unwrap();
    assert!(message(broken.path()).contains("config.json"));
    assert!(message(Path::new("/nowhere")).contains("/nowhere"));
}

#[test]
fn image_tokenizers_that_do_not_belong_are_refused() {
    let vq = tempfile::tempdir().unwrap();
    std::fs::copy(part("vq/vqgan.ckpt"), vq.path().join("vqgan.ckpt")).unwrap();
    let yaml = std::fs::read_to_string(part("vq/vqgan.yaml")).unwrap();
    let open = |yaml: &str| {
        std::fs::write(vq.path().join("vqgan.yaml"), yaml).unwrap();
        let tokenizer = if source().join("tokenizer.json").exists() { source() } else { part("tokenizer") };
        Lumina::from_pretrained(source()).tokenizer(tokenizer).image_tokenizer(vq.path()).compute(Compute::cpu()).load()
    };
    open(&yaml).unwrap();
    let n_embed = yaml.lines().find(|line| line.trim().starts_with("n_embed")).unwrap();
    let indent = &n_embed[..n_embed.len() - n_embed.trim_start().len()];
    for (changed, what) in [
        (yaml.replace(n_embed, ""), "n_embed"),
        (yaml.replace(n_embed, &format!("{indent}n_embed: 7")), "quantize.embedding.weight"),
        (yaml.replace("double_z: false", "double_z: true"), "double_z"),
        (yaml.replace("in_channels: 3", "in_channels: 4"), "in_channels"),
        ("model: [".to_owned(), "vqgan.yaml"),
        (String::new(), "vqgan.yaml"),
    ] {
        assert_ne!(changed, yaml, "the file spells `{what}` otherwise");
        let message = whole_message(&open(&changed).expect_err("broken"));
        assert!(message.contains(what), "{message}\nexpected: {what}");
    }
    std::fs::remove_file(vq.path().join("vqgan.ckpt")).unwrap();
    let message = open(&yaml).expect_err("no weights").to_string();
    assert!(message.contains("vqgan.ckpt"), "{message}");
}

#[test]
fn a_model_without_image_tokenizer_answers_in_text_and_says_what_it_lacks() {
    let without = folder(|view| if view.name().starts_with("model.vqmodel") { None } else { same(view) }, |_| {});
    let tokenizer = if source().join("tokenizer.json").exists() { source() } else { part("tokenizer") };
    let model = Lumina::from_pretrained(without.path()).tokenizer(tokenizer).compute(Compute::cpu()).load().unwrap();
    let text = lumina_mgpt::SamplingOptions::default().modality(lumina_mgpt::Modality::Text);
    let mut request = lumina_mgpt::Request::new(lumina_mgpt::Conversation::new().human("Hello"));
    request.options.sampling = text;
    request.options.max_new_tokens = 5;
    model.generate(request).run().unwrap();
    let message = model.text_to_image("a tree", (64, 32)).run().unwrap_err().to_string();
    assert!(message.contains("vqgan.ckpt"), "{message}");
    assert!(model.text_to_image("a tree", (64, 32)).stream().is_err(), "said before the first pass");
    let message = model.caption(image::RgbImage::new(64, 64)).run().unwrap_err().to_string();
    assert!(message.contains("image_tokenizer"), "{message}");
}

#[test]
fn targets_that_cannot_compute_as_asked_are_refused() {
    let open = |compute: Compute| {
        Lumina::from_pretrained(source()).compute(compute).load().expect_err("not possible").to_string()
    };
    assert!(open(Compute::cpu().dtype(ComputeDtype::BF16)).contains("Compute::flex()"));
    assert!(open(Compute::cpu().dtype(ComputeDtype::I8)).contains("i8"));
    let unknown = "tpu".parse::<Compute>().unwrap_err().to_string();
    assert!(unknown.contains("`tpu`") && unknown.contains("cpu"), "{unknown}");
}
