//! LoRA: what an adapter adds, how it is trained, saved, merged, and refused.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests: a panic is the failure")]
#![cfg(feature = "flex")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::{Tensor, TensorData};
use lumina_core::checkpoint::{Checkpoint, Dtype, save_safetensors};
use lumina_core::{Adapter, Compute, Loader, Weights};
use lumina_mgpt::{Dropout, Lumina, ModelConfig, Row, Transformer};
use lumina_testing::{lcg, part};
use lumina_train::fine_tune::{
    Activations, Example, FineTuneOptions, LoraOptions, LossOptions, Schedule, Trainable, Trainer, gradients, loss,
    merge,
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The tests' model, and a folder to write into.
struct Place {
    model: PathBuf,
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { model: part("model/prenorm"), folder: tempfile::tempdir().unwrap() }
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

    /// An adapter that changes a lot, as after training.
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

fn logits(model: &Transformer, rows: &[&[u32]]) -> Vec<f32> {
    let mut rows: Vec<_> = rows.iter().map(|tokens| Row::whole(tokens)).collect();
    let hidden = model.forward(&mut rows).unwrap();
    model.logits(hidden).into_data().try_into_vec().unwrap()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).fold(0.0, |largest, (a, b)| largest.max((a - b).abs()))
}

fn placements() -> [Compute; 2] {
    [Compute::cpu(), Compute::cpu().weights(Weights::Tensor)]
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
    // PEFT's first values: uniform, of variance 1 / (3 · inputs).
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
        assert!(largest_difference(&base, &with) > 0.1 * scale, "{compute}: the adapter does next to nothing");
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
            let y: Vec<f32> = head.forward(Tensor::ones([1, 3], compute.options())).into_data().try_into_vec().unwrap();
            assert!(largest_difference(&y, &[1.0 + 6.0 * scale, 1.0 + 2.0 * scale]) < 1e-5, "{compute}: {y:?}");
        }
    }
}

fn options() -> FineTuneOptions {
    FineTuneOptions {
        schedule: Schedule { lr: 0.01, min_lr: 0.01, warmup_epochs: 0.0, epochs: 1 },
        ..FineTuneOptions::default()
    }
}

/// A batch to be learnt by heart.
fn batch() -> (Vec<u32>, Vec<i64>) {
    let tokens = tokens(12, 5);
    let labels = tokens.iter().map(|&token| token.into()).collect();
    (tokens, labels)
}

fn steps(trainer: &mut Trainer, count: usize) -> Vec<f64> {
    let (tokens, labels) = batch();
    let passes = vec![vec![Example { tokens: &tokens, labels: &labels }]; trainer.passes()];
    (0..count).map(|_| trainer.step(&passes, 100).unwrap().loss).collect()
}

#[test]
fn training_moves_the_adapter_alone() {
    let place = Place::new();
    let adapter = place.fresh("adapter");
    let cpu = Compute::cpu();
    let mut trainer = Trainer::with_adapter(&place.model, &adapter, options(), std::slice::from_ref(&cpu)).unwrap();
    let before = frozen(trainer.model());
    assert!(before.len() > 20, "the model's own parameters");
    let losses = steps(&mut trainer, 8);
    assert!(losses[7] < losses[0] - 1.0, "{losses:?}");
    assert_eq!(before, frozen(trainer.model()));

    trainer.export(&place.path("exported"), Dtype::F32).unwrap();
    let (first, last) = (tensors(&adapter), tensors(&place.path("exported")));
    assert_eq!(first.keys().collect::<Vec<_>>(), last.keys().collect::<Vec<_>>());
    assert!(first.iter().all(|(name, (_, values))| *values != last[name].1));
    assert!(!place.path("exported").join("model.safetensors").exists());

    // What was trained is what inference opens: the tokens' losses agree.
    let (tokens, labels) = batch();
    let example = [Example { tokens: &tokens, labels: &labels }];
    let in_training = loss(trainer.model(), &example, 0.0).unwrap().total;
    for compute in placements() {
        let opened = place.transformer(Some(&place.path("exported")), &compute).unwrap();
        let found = loss(&opened, &example, 0.0).unwrap().total;
        assert!((found - in_training).abs() < 1e-4 * in_training, "{compute}: {found}, in training {in_training}");
    }

    // A 16-bit export opens as well, and is close.
    trainer.export(&place.path("half"), Dtype::BF16).unwrap();
    let half = place.transformer(Some(&place.path("half")), &cpu).unwrap();
    assert!((loss(&half, &example, 0.0).unwrap().total - in_training).abs() < 0.05 * in_training);
}

/// The values of the parameters that record no gradients.
fn frozen(model: &Transformer) -> Vec<Vec<f32>> {
    struct Frozen(Vec<Vec<f32>>);
    impl ModuleVisitor for Frozen {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if !param.val().is_require_grad() {
                self.0.push(param.val().into_data().try_into_vec().unwrap());
            }
        }
    }
    let mut frozen = Frozen(Vec::new());
    model.visit(&mut frozen);
    frozen.0
}

#[test]
fn a_resumed_run_is_the_same_run() {
    let place = Place::new();
    let adapter = place.fresh("adapter");
    // Two devices: replicas have the adapter, too.
    let devices = [Compute::cpu(), Compute::cpu()];
    let mut whole = Trainer::with_adapter(&place.model, &adapter, options(), &devices).unwrap();
    let mut first = Trainer::with_adapter(&place.model, &adapter, options(), &devices).unwrap();
    steps(&mut whole, 4);
    steps(&mut first, 2);
    first.save(&place.path("checkpoint")).unwrap();
    let mut second = Trainer::resume(&place.path("checkpoint"), options(), &devices).unwrap();
    assert_eq!(second.position(), first.position());
    steps(&mut second, 2);
    for (name, trainer) in [("a", &whole), ("b", &second)] {
        trainer.save(&place.path(name)).unwrap();
    }
    for file in [Adapter::WEIGHTS, Adapter::CONFIG, "optimizer.safetensors", "trainer.json"] {
        let [a, b] = ["a", "b"].map(|name| std::fs::read(place.path(name).join(file)).unwrap());
        assert_eq!(a, b, "{file}");
    }

    set(&place.path("a"), "base_model_name_or_path", Value::Null);
    let error = Trainer::resume(&place.path("a"), options(), &devices).unwrap_err().to_string();
    assert!(error.contains("base_model_name_or_path"), "{error}");
}

/// Adds to one element of a parameter.
struct Nudge {
    id: ParamId,
    at: usize,
    by: f32,
}

impl ModuleMapper for Nudge {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, tensor, mapper) = param.consume();
        if id != self.id {
            return Param::from_mapped_value(id, tensor, mapper);
        }
        let tensor = tensor.inner();
        let mut values: Vec<f32> = tensor.to_data().try_into_vec().unwrap();
        values[self.at] += self.by;
        let moved = Tensor::from_data(TensorData::new(values, tensor.shape()), &tensor.device());
        Param::from_mapped_value(id, Tensor::from_inner(moved).require_grad(), mapper)
    }
}

struct Grads<'a> {
    grads: &'a GradientsParams,
    found: BTreeMap<u64, Vec<f32>>,
}

impl ModuleVisitor for Grads<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = self.grads.get::<D>(param.id) {
            self.found.insert(param.id.val(), grad.into_data().try_into_vec().unwrap());
        }
    }
}

#[test]
fn gradients_are_finite_differences() {
    let place = Place::new();
    let adapter = place.trained("adapter");
    let trainable = Trainable::open_with_adapter(&place.model, &adapter, &Compute::cpu()).unwrap();
    let (tokens, labels) = batch();
    let example = [Example { tokens: &tokens, labels: &labels }];
    let of = |activations| {
        let options = LossOptions { z_loss_weight: 1e-3, dropout: Dropout::NONE, activations };
        let (_, grads) = gradients(&trainable.model, &example, &options).unwrap();
        let mut grads = Grads { grads: &grads, found: BTreeMap::new() };
        trainable.model.visit(&mut grads);
        grads.found
    };
    let (kept, again) = (of(Activations::Keep), of(Activations::Recompute));
    assert_eq!(kept.len(), trainable.names.len(), "each of the adapter's matrices, and nothing else, has a gradient");
    for (id, name) in &trainable.names {
        let (kept, again) = (&kept[&id.val()], &again[&id.val()]);
        let norm = kept.iter().map(|value| value * value).sum::<f32>().sqrt();
        assert!(largest_difference(kept, again) <= 1e-4 * norm, "{name}: kept and recomputed");
        // Of 28 matrices the two of a projection in each layer; at the largest gradient, where f32 has digits to spare.
        if !name.contains("v_proj") && !name.contains("down_proj") {
            continue;
        }
        let at = (0..kept.len()).max_by(|&a, &b| kept[a].abs().total_cmp(&kept[b].abs())).unwrap();
        let step = 2e-2;
        let [up, down] = [step, -step].map(|by| {
            let model = trainable.model.clone().map(&mut Nudge { id: *id, at, by });
            loss(&model, &example, 1e-3).unwrap().total
        });
        let difference = ((up - down) / f64::from(2.0 * step)) as f32;
        assert!((difference - kept[at]).abs() < 0.02 * kept[at].abs(), "{name}[{at}]: {difference}, not {}", kept[at]);
    }
}

#[test]
fn a_model_generates_with_an_adapter() {
    let place = Place::new();
    let adapter = place.trained("adapter");
    merge(&place.model, &adapter, &place.path("merged"), Dtype::F32).unwrap();
    let answer = |model: &Path, adapter: Option<&Path>| {
        let model =
            Lumina::from_pretrained(model).image_tokenizer(part("vq")).compute(Compute::cpu()).target_size_px(96);
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

#[test]
fn what_does_not_fit_is_refused() {
    let q = "base_model.model.model.layers.1.self_attn.q_proj.lora_";
    let place = Place::new();
    let refused = |name: &str, expected: &[&str], change: &dyn Fn(&Path)| {
        let adapter = place.fresh(name);
        change(&adapter);
        let trained = Trainable::open_with_adapter(&place.model, &adapter, &Compute::cpu()).unwrap_err().to_string();
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
    refused("rank", &["lora_A.weight` has shape [4, 64]", "with rank 5"], &|adapter| set(adapter, "r", 5.into()));
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
    for (key, value) in [
        ("peft_type", json!("IA3")),
        ("use_dora", json!(true)),
        ("modules_to_save", json!(["lm_head"])),
        ("rank_pattern", json!({ "q_proj": 8 })),
        ("alpha_pattern", json!({ "q_proj": 8 })),
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
        let name = format!("{key} {value}").replace(['"', '{', '}', ':', '[', ']'], "_");
        refused(&name, &[&format!("`{key}` is"), Adapter::CONFIG], &|adapter| set(adapter, key, value.clone()));
    }
    let adapter = place.fresh("dropout");
    set(&adapter, "lora_dropout", json!(0.1));
    place.transformer(Some(&adapter), &Compute::cpu()).unwrap();
    let error = Trainable::open_with_adapter(&place.model, &adapter, &Compute::cpu()).unwrap_err().to_string();
    assert!(error.contains("lora_dropout") && error.contains("0.1"), "{error}");

    std::fs::write(adapter.join(Adapter::CONFIG), "[]").unwrap();
    assert!(matches!(Adapter::open(&adapter), Err(lumina_core::Error::Adapter { .. })));
    std::fs::remove_file(adapter.join(Adapter::CONFIG)).unwrap();
    assert!(matches!(Adapter::open(&adapter), Err(lumina_core::Error::Read { .. })));
}

#[test]
fn merging_checks_first() {
    let place = Place::new();
    let adapter = place.fresh("adapter");
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
