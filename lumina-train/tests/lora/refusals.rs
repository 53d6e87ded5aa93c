//! Adapters and options that are refused.

use lumina_checkpoint::Adapter;
use lumina_checkpoint::Dtype;
use lumina_nn::Compute;
use lumina_train::fine_tune::{FineTuneOptions, LoraOptions, Trainer, merge};
use serde_json::{Value, json};
use std::path::Path;

use super::{Place, Tensors, rewrite, set, tensors};

#[test]
fn adapters_that_do_not_fit_are_refused() {
    let q = "base_model.model.model.layers.1.self_attn.q_proj.lora_";
    let place = Place::new();
    let refused = |name: &str, expected: &[&str], change: &dyn Fn(&Path)| {
        let adapter = place.fresh(name);
        change(&adapter);
        let trained = Trainer::with_adapter(&place.model, &adapter, FineTuneOptions::default(), &[Compute::cpu()])
            .unwrap_err()
            .to_string();
        let opened = place.transformer(Some(&adapter), &Compute::cpu()).unwrap_err().to_string();
        for error in [trained, opened] {
            assert!(expected.iter().all(|part| error.contains(part)), "{name}: {error}\nlacks some of {expected:?}");
        }
    };
    refused("half", &["lora_B.weight` is missing", "adapter_model.safetensors"], &|adapter| {
        rewrite(adapter, |tensors| drop(tensors.remove(&format!("{q}B.weight"))));
    });
    refused("both", &["q_proj.lora_A.weight` [4, 64] is missing", "q_proj.lora_B.weight` [64, 4]"], &|adapter| {
        rewrite(adapter, |tensors| tensors.retain(|name, _| !name.starts_with(q)));
    });
    refused("rank", &["down_proj.lora_A.weight` has shape [4, 160]", "with rank 5"], &|adapter| {
        set(adapter, "r", 5.into())
    });
    refused("width", &["q_proj.lora_A.weight` has shape [4, 63]", "expected [4, 64]"], &|adapter| {
        rewrite(adapter, |tensors| {
            tensors.insert(format!("{q}A.weight"), (vec![4, 63], vec![0.0; 4 * 63]));
        });
    });
    refused("elsewhere", &["model.layers.2.self_attn.q_proj", "belongs to no part of this model"], &|adapter| {
        rewrite(adapter, |tensors| {
            for half in ["A", "B"] {
                let tensor = tensors[&format!("{q}{half}.weight")].clone();
                tensors.insert(format!("{q}{half}.weight").replace("layers.1", "layers.2"), tensor);
            }
        });
    });
    refused("other", &["lora_embedding_A"], &|adapter| {
        rewrite(adapter, |tensors| {
            let name = "base_model.model.model.embed_tokens.lora_embedding_A".to_owned();
            tensors.insert(name, (vec![1, 1], vec![0.0]));
        });
    });
    refused("empty", &["holds no tensor"], &|adapter| rewrite(adapter, Tensors::clear));
    refused("targets", &["`lm_head`", "target_modules"], &|adapter| {
        set(adapter, "target_modules", json!(["q_proj", "lm_head"]));
    });
    refused("embedding", &["`embed_tokens`", "target_modules"], &|adapter| {
        set(adapter, "target_modules", json!(["q_proj", "embed_tokens"]));
    });
    for (key, value) in [
        ("peft_type", json!("IA3")),
        ("use_dora", json!(true)),
        ("modules_to_save", json!(["lm_head"])),
        ("rank_pattern", json!({ "q_proj": 8 })),
        ("alpha_pattern", json!({ "q_proj": 8 })),
        ("rank_pattern", json!({ "layers.0.mlp.down_proj": 8, "nothing_here": 8 })),
        ("rank_pattern", json!({ "nothing_here|q_proj": 8 })),
        ("alpha_pattern", json!({ "model.layers...self_attn.q_proj": 8 })),
        ("alpha_pattern", json!({ "q_proj": "6" })),
        ("alpha_pattern", json!(["q_proj"])),
        ("fan_in_fan_out", json!(true)),
        ("bias", json!("all")),
        ("lora_bias", json!(true)),
        ("init_lora_weights", json!("pissa")),
        ("r", json!(0)),
        ("r", json!(-1)),
        ("r", json!(1e30)),
        ("r", Value::Null),
        ("lora_alpha", json!("8")),
    ] {
        let name = format!("{key} {value}").replace(['"', '{', '}', ':', '[', ']', '|'], "_");
        refused(&name, &[&format!("`{key}` is"), Adapter::CONFIG], &|adapter| set(adapter, key, value.clone()));
    }
    let adapter = place.fresh("dropout");
    set(&adapter, "lora_dropout", json!(0.1));
    place.transformer(Some(&adapter), &Compute::cpu()).unwrap();
    let error = Trainer::with_adapter(&place.model, &adapter, FineTuneOptions::default(), &[Compute::cpu()])
        .unwrap_err()
        .to_string();
    assert!(error.contains("lora_dropout") && error.contains("0.1"), "{error}");

    std::fs::write(adapter.join(Adapter::CONFIG), "[]").unwrap();
    assert!(matches!(Adapter::open(&adapter), Err(lumina_checkpoint::Error::Adapter { .. })));
    std::fs::remove_file(adapter.join(Adapter::CONFIG)).unwrap();
    assert!(matches!(Adapter::open(&adapter), Err(lumina_checkpoint::Error::Read { .. })));
}

#[test]
fn merging_checks_first() {
    let place = Place::new();
    let adapter = place.fresh("adapter");
    set(&adapter, "target_modules", json!(["q_proj", "lm_head"]));
    let error = merge(&place.model, &adapter, &place.path("merged"), Dtype::F32).unwrap_err().to_string();
    assert!(error.contains("`lm_head`") && error.contains("`target_modules`"), "{error}");
    set(&adapter, "target_modules", json!(["q_proj"]));
    let integers = merge(&place.model, &adapter, &place.path("merged"), Dtype::I32).unwrap_err().to_string();
    assert!(integers.contains("i32"), "{integers}");
    rewrite(&adapter, |tensors| {
        for (_, (shape, values)) in tensors.iter_mut().filter(|(name, _)| name.ends_with("0.mlp.up_proj.lora_B.weight"))
        {
            shape[0] -= 1;
            values.truncate(shape[0] * shape[1]);
        }
    });
    let error = merge(&place.model, &adapter, &place.path("merged"), Dtype::F32).unwrap_err().to_string();
    assert!(error.contains("layers.0.mlp.up_proj.weight") && error.contains("[159, 64]"), "{error}");
    assert!(!place.path("merged").exists());
}

#[test]
fn options_out_of_range() {
    let place = Place::new();
    let target = |target: &str| LoraOptions { targets: vec![target.to_owned()], ..LoraOptions::default() };
    for (options, expected) in [
        (LoraOptions { rank: 0, ..LoraOptions::default() }, "`rank` is 0"),
        (LoraOptions { rank: 65, ..LoraOptions::default() }, "`rank` is 65, expected 1 to 64"),
        (LoraOptions { alpha: f64::NAN, ..LoraOptions::default() }, "`alpha` is NaN"),
        (LoraOptions { targets: Vec::new(), ..LoraOptions::default() }, "`targets` are none"),
        (target("qproj"), "`qproj`, which is no linear layer of this model; it has down_proj, gate_proj"),
        (target("proj"), "`proj`"),
        (target("embed_tokens"), "`embed_tokens`"),
        (target("q_norm"), "`q_norm`"),
    ] {
        let error = options.create(&place.model, &place.path("adapter"), &Compute::cpu()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}\nlacks {expected}");
        assert!(!place.path("adapter").exists());
    }
    let one = target("model.layers.1.self_attn.q_proj");
    one.create(&place.model, &place.path("adapter"), &Compute::cpu()).unwrap();
    assert_eq!(tensors(&place.path("adapter")).len(), 2);
    target("lm_head").create(&place.model, &place.path("head"), &Compute::cpu()).unwrap();
    place.transformer(Some(&place.path("head")), &Compute::cpu()).unwrap();
}

#[test]
fn merged_values_that_are_not_finite_are_refused() {
    let place = Place::new();
    let name = "layers.0.mlp.up_proj";
    for (n, (value, dtype)) in
        [(f32::INFINITY, Dtype::F32), (f32::NAN, Dtype::BF16), (3e38, Dtype::F32), (1e6, Dtype::F16)]
            .into_iter()
            .enumerate()
    {
        let adapter = place.trained(&format!("adapter {n}"));
        rewrite(&adapter, |tensors| {
            for (_, (_, values)) in tensors.iter_mut().filter(|(tensor, _)| tensor.contains(name)) {
                // Both matrices, so that products overflow.
                values.fill(value);
            }
        });
        let merged = place.path("merged");
        let error = merge(&place.model, &adapter, &merged, dtype).unwrap_err().to_string();
        let named = error.contains(&format!("{name}.weight"))
            && error.contains("not finite")
            && error.contains(&dtype.to_string());
        assert!(named, "{error}");
        assert!(!merged.exists());
    }
}
