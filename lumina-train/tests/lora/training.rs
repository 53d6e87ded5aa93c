//! Training and saving of an adapter.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Tensor, TensorData};
use lumina_checkpoint::Adapter;
use lumina_checkpoint::Dtype;
use lumina_mgpt::{Dropout, Transformer};
use lumina_nn::Compute;
use lumina_train::fine_tune::{
    ActivationMemory, Example, FineTuneOptions, LossOptions, Trainable, Trainer, gradients, loss,
};
use lumina_train::optim::EpochSchedule;
use serde_json::Value;

use super::{Place, largest_difference, placements, set, tensors, tokens};

fn options() -> FineTuneOptions {
    FineTuneOptions {
        schedule: EpochSchedule { learning_rate: 0.01, min_learning_rate: 0.01, warmup_epochs: 0.0, epochs: 1 },
        ..FineTuneOptions::default()
    }
}

/// A batch to be overfitted.
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
fn training_updates_the_adapter_alone() {
    let place = Place::new();
    let adapter = place.fresh("adapter");
    let cpu = Compute::cpu();
    let mut trainer = Trainer::with_adapter(&place.model, &adapter, options(), std::slice::from_ref(&cpu)).unwrap();
    let before = frozen(trainer.model().unwrap());
    assert!(before.len() > 20, "the model's own parameters");
    let losses = steps(&mut trainer, 8);
    assert!(losses[7] < losses[0] - 1.0, "{losses:?}");
    assert_eq!(before, frozen(trainer.model().unwrap()));

    trainer.export(&place.path("exported"), Dtype::F32).unwrap();
    let (first, last) = (tensors(&adapter), tensors(&place.path("exported")));
    assert_eq!(first.keys().collect::<Vec<_>>(), last.keys().collect::<Vec<_>>());
    assert!(first.iter().all(|(name, (_, values))| *values != last[name].1));
    assert!(!place.path("exported").join("model.safetensors").exists());

    // Inference opens what was trained: the losses agree.
    let (tokens, labels) = batch();
    let example = [Example { tokens: &tokens, labels: &labels }];
    let in_training = loss(trainer.model().unwrap(), &example, 0.0).unwrap().total;
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
        let nudged = Tensor::from_data(TensorData::new(values, tensor.shape()), &tensor.device());
        Param::from_mapped_value(id, Tensor::from_inner(nudged).require_grad(), mapper)
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
    let adapter = Adapter::open(place.trained("adapter")).unwrap();
    let trainable = Trainable::open_with_adapter(&place.model, &adapter, &Compute::cpu()).unwrap();
    let (tokens, labels) = batch();
    let example = [Example { tokens: &tokens, labels: &labels }];
    let of = |activation_memory| {
        let options = LossOptions { z_loss_weight: 1e-3, dropout: Dropout::NONE, activation_memory };
        let (_, grads) = gradients(&trainable.model, &example, &options).unwrap();
        let mut grads = Grads { grads: &grads, found: BTreeMap::new() };
        trainable.model.visit(&mut grads);
        grads.found
    };
    let (kept, again) = (of(ActivationMemory::Keep), of(ActivationMemory::Recompute));
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
fn the_models_weights_are_kept_in_the_type_of_activations() {
    struct Types(Vec<(bool, DType)>);
    impl ModuleVisitor for Types {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.push((param.val().is_require_grad(), param.val().dtype()));
        }
    }
    let place = Place::new();
    let adapter = place.fresh("adapter");
    let compute = Compute::cpu().dtype(Dtype::BF16);
    let mut trainer = Trainer::with_adapter(&place.model, &adapter, options(), &[compute]).unwrap();
    let losses = steps(&mut trainer, 5);
    assert!(losses[4] < losses[0] - 0.5, "{losses:?}");
    let mut types = Types(Vec::new());
    trainer.model().unwrap().visit(&mut types);
    assert!(types.0.iter().any(|(trained, _)| *trained));
    for (trained, dtype) in types.0 {
        assert_eq!(dtype, if trained { DType::F32 } else { DType::BF16 });
    }
}
