//! Networks with an adapter, merged or not.

use std::path::Path;

use lumina_checkpoint::Adapter;
use lumina_checkpoint::{Checkpoint, Dtype, save_safetensors};
use lumina_mgpt::{Lumina, Row, Transformer};
use lumina_nn::ops::Hidden;
use lumina_nn::{Compute, Loader};
use lumina_testing::own;
use lumina_train::fine_tune::merge;
use serde_json::{Value, json};

use super::{Place, largest_difference, placements, set, tensors, tokens, write};

fn logits(model: &Transformer, rows: &[&[u32]]) -> Vec<f32> {
    let mut rows: Vec<_> = rows.iter().map(|tokens| Row::whole(tokens)).collect();
    let hidden = model.forward(&mut rows).unwrap();
    model.logits(hidden).into_data().try_into_vec().unwrap()
}

#[test]
fn a_new_adapter_changes_nothing() {
    let place = Place::new();
    let adapter = place.fresh("adapter");
    let tokens = tokens(9, 1);
    for compute in placements() {
        let [without, with] = [None, Some(&*adapter)].map(|adapter| place.transformer(adapter, &compute).unwrap());
        assert_eq!(logits(&without, &[&tokens]), logits(&with, &[&tokens]), "{compute}");
    }
    // PEFT's initial values: uniform, of variance 1 / (3 · inputs).
    for (name, (shape, values)) in tensors(&adapter).iter().filter(|(name, _)| name.contains("lora_A")) {
        let squares: f32 = values.iter().map(|value| value * value).sum::<f32>() / values.len() as f32;
        let expected = 1.0 / (3.0 * shape[1] as f32);
        assert!((squares / expected - 1.0).abs() < 0.25, "{name}: {squares}, expected about {expected}");
        assert!(values.iter().all(|value| value.abs() <= (shape[1] as f32).sqrt().recip()), "{name}");
    }
}

#[test]
fn an_adapter_equals_the_merged_model() {
    let place = Place::new();
    let adapter = place.trained("adapter");
    let merged = place.path("merged");
    merge(&place.model, &adapter, &merged, Dtype::F32).unwrap();
    let tokens = tokens(9, 1);
    for compute in placements() {
        let base = logits(&place.transformer(None, &compute).unwrap(), &[&tokens]);
        let with = logits(&place.transformer(Some(&adapter), &compute).unwrap(), &[&tokens]);
        let merged = logits(&Transformer::open(&merged, &compute).unwrap(), &[&tokens]);
        let scale = base.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        assert!(largest_difference(&base, &with) > 0.1 * scale, "{compute}: the adapter changes next to nothing");
        // Two orders of summing in f32 through two layers.
        assert!(largest_difference(&with, &merged) < 1e-5 * scale, "{compute}: {}", largest_difference(&with, &merged));
    }
    // Only the adapter's layers differ from the model; the image encoder's tensors are there as they were.
    let [before, after] = [&place.model, &merged].map(|folder| Checkpoint::open(folder).unwrap());
    let layers: Vec<String> =
        Adapter::open(&adapter).unwrap().layers().map(|layer| format!("{layer}.weight")).collect();
    assert_eq!(before.names().collect::<Vec<_>>(), after.names().collect::<Vec<_>>());
    for name in before.names() {
        let same = before.get(name).unwrap().bytes() == after.get(name).unwrap().bytes();
        assert_eq!(same, !layers.iter().any(|layer| layer == name), "{name}");
    }
    let again = merge(&place.model, &adapter, &merged, Dtype::F32).unwrap_err();
    assert!(matches!(again, lumina_train::Error::Write { .. }), "{again}");
}

/// What PEFT and the programs around it write: lists of names for many kinds of models, and patterns of ranks and
/// scales that name no layer of this one or repeat what holds for all.
#[test]
fn settings_that_change_no_layer() {
    let place = Place::new();
    let adapter = place.trained("adapter");
    let tokens = tokens(9, 1);
    let expected = logits(&place.transformer(Some(&adapter), &Compute::cpu()).unwrap(), &[&tokens]);
    place.merged(&adapter, "expected");
    let targets = ["q_proj", "v_proj", "down_proj", "fc1", "out_proj", "query_key_value"];
    for (index, (key, value)) in [
        ("target_modules", json!(targets)),
        ("target_modules", json!(["fc1"])),
        ("rank_pattern", json!({"nothing_here": 8, "lm_head": 2})),
        ("rank_pattern", json!({"q_proj": 4, "^model\\.layers\\.\\d+": 4.0})),
        ("rank_pattern", Value::Null),
        ("alpha_pattern", json!({"self_attn": 16, "proj": 16, "layers.2.self_attn.q_proj": 16})),
        ("alpha_pattern", json!({"q_proj": 6, "k_proj": 6.0})),
        ("alpha_pattern", json!({})),
    ]
    .into_iter()
    .enumerate()
    {
        set(&adapter, key, value.clone());
        let found = logits(&place.transformer(Some(&adapter), &Compute::cpu()).unwrap(), &[&tokens]);
        assert_eq!(found, expected, "{key} {value}");
        let merged = place.merged(&adapter, &format!("merged {index}"));
        for name in merged.names() {
            let of_expected = Checkpoint::open(place.path("expected")).unwrap().get(name).unwrap();
            assert_eq!(merged.get(name).unwrap().bytes(), of_expected.bytes(), "{key} {value}: {name}");
        }
    }
}

#[test]
fn a_row_does_not_depend_on_the_batch() {
    let place = Place::new();
    let model = place.transformer(Some(&place.trained("adapter")), &Compute::cpu()).unwrap();
    let (a, b) = (tokens(7, 1), tokens(4, 2));
    let alone = [logits(&model, &[&a]), logits(&model, &[&b])].concat();
    assert_eq!(logits(&model, &[&a, &b]), alone);
}

#[test]
fn a_folder_written_by_hand() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    let bytes = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<bytes::Bytes>();
    let weight = bytes(&[1.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
    save_safetensors(&file, [("head.weight", Dtype::F32, [2, 3], || Ok(weight))]).unwrap();
    // As PEFT 0.21 writes it, unknown keys and all.
    let config = json!({
        "alora_invocation_tokens": null, "alpha_pattern": {}, "arrow_config": null, "auto_mapping": null,
        "base_model_name_or_path": null, "bias": "none", "corda_config": null, "ensure_weight_tying": false,
        "eva_config": null, "exclude_modules": null, "fan_in_fan_out": false, "inference_mode": true,
        "init_lora_weights": true, "layer_replication": null, "layers_pattern": null, "layers_to_transform": null,
        "loftq_config": {}, "lora_alpha": 8, "lora_bias": false, "lora_dropout": 0.05, "megatron_config": null,
        "megatron_core": "megatron.core", "modules_to_save": null, "peft_type": "LORA", "qalora_group_size": 16,
        "r": 2, "rank_pattern": {}, "revision": null, "target_modules": ["head"], "target_parameters": null,
        "task_type": "CAUSAL_LM", "trainable_token_indices": null, "use_dora": false, "use_qalora": false,
        "use_rslora": false,
    });
    std::fs::write(folder.path().join(Adapter::CONFIG), config.to_string()).unwrap();
    let a = (vec![2, 3], vec![1.0, 2.0, 3.0, 0.0, 1.0, 0.0]);
    let b = (vec![2, 2], vec![1.0, 0.0, 0.5, -1.0]);
    let names = ["base_model.model.head.lora_A.weight", "base_model.model.head.lora_B.weight"].map(str::to_owned);
    write(folder.path(), &names.into_iter().zip([a, b]).collect());

    let checkpoint = Checkpoint::open(&file).unwrap();
    for compute in placements() {
        // x = (1, 1, 1): W x = (1, 1), A x = (6, 1), B A x = (6, 2).
        for (rslora, scale) in [(false, 4.0), (true, 8.0 / 2.0f32.sqrt())] {
            set(folder.path(), "use_rslora", rslora.into());
            let adapter = Adapter::open(folder.path()).unwrap();
            let loader = Loader::new(&checkpoint, &compute).with_adapter(&adapter);
            let head = loader.pp("head").linear(3, 2, false);
            loader.finish(|_| false).unwrap();
            let y = head.forward(&Hidden::new(&compute, 1, 3, |values| values.fill(1.0))).to_vec().unwrap();
            assert!(largest_difference(&y, &[1.0 + 6.0 * scale, 1.0 + 2.0 * scale]) < 1e-5, "{compute}: {y:?}");
        }
    }
}

#[test]
fn a_model_generates_with_an_adapter() {
    let place = Place::new();
    let adapter = place.trained("adapter");
    merge(&place.model, &adapter, &place.path("merged"), Dtype::F32).unwrap();
    let answer = |model: &Path, adapter: Option<&Path>| {
        let model =
            Lumina::from_pretrained(model).image_tokenizer(own("vq")).compute(Compute::cpu()).target_size_px(96);
        let model = match adapter {
            Some(adapter) => model.adapter(adapter),
            None => model,
        };
        let model = model.load().unwrap();
        model.text_to_image("a red circle", (64, 64)).greedy().run().unwrap().into_raw()
    };
    let with = answer(&place.model, Some(&adapter));
    assert_eq!(with, answer(&place.path("merged"), None));
    assert_ne!(with, answer(&place.model, None));
}
