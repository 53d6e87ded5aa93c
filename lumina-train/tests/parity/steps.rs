//! Loss, gradients, and three steps of AdamW.

use std::collections::{BTreeMap, HashMap};

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use lumina_checkpoint::Checkpoint;
use lumina_mgpt::{Dropout, ModelConfig};
use lumina_nn::Compute;
use lumina_testing::{cases, integers, part, report};
use lumina_train::fine_tune::{ActivationMemory, Example, LossOptions, Trainable, gradients};
use lumina_train::optim::{AdamW, AdamWOptions, EpochSchedule, clip_factor, global_norm, scale};
use serde_json::Value;

/// Opens the case's model with the fields of its config that the case replaces.
fn open(case: &Value) -> Trainable {
    let folder = part("model").join(case["model"].as_str().unwrap());
    let file = folder.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    for (field, value) in case["config"].as_object().unwrap() {
        config[field] = value.clone();
    }
    let architecture = serde_json::from_value::<ModelConfig>(config).unwrap().resolve(&file).unwrap();
    Trainable::from_checkpoint(&Checkpoint::open(&folder).unwrap(), architecture, &Compute::cpu()).unwrap()
}

/// The batch, cut to the model's context.
fn batch(case: &Value, longest: usize) -> Vec<(Vec<u32>, Vec<i64>)> {
    let rows = case["tokens"].as_array().unwrap().iter().zip(case["labels"].as_array().unwrap());
    let cut = |(tokens, labels)| {
        let (mut tokens, mut labels) = (integers::<u32>(tokens), integers::<i64>(labels));
        tokens.truncate(longest);
        labels.truncate(longest);
        (tokens, labels)
    };
    rows.map(cut).collect()
}

fn examples(batch: &[(Vec<u32>, Vec<i64>)]) -> Vec<Example<'_>> {
    batch.iter().map(|(tokens, labels)| Example { tokens, labels }).collect()
}

/// The values of all parameters, or of their gradients, by name.
struct Values<'a> {
    names: &'a HashMap<ParamId, String>,
    grads: Option<&'a GradientsParams>,
    values: BTreeMap<String, Vec<f32>>,
}

impl ModuleVisitor for Values<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let tensor = match self.grads {
            Some(grads) => grads.get::<D>(param.id),
            None => Some(param.val().inner()),
        };
        if let Some(tensor) = tensor {
            let values = tensor.into_data().try_into_vec().unwrap();
            self.values.insert(self.names[&param.id].clone(), values);
        }
    }
}

fn values(trainable: &Trainable, grads: Option<&GradientsParams>) -> BTreeMap<String, Vec<f32>> {
    let mut values = Values { names: &trainable.names, grads, values: BTreeMap::new() };
    trainable.model.visit(&mut values);
    values.values
}

fn close(what: &str, found: f64, expected: &Value, tolerance: f64) {
    let expected = expected.as_f64().unwrap();
    assert!((found - expected).abs() <= tolerance, "{what}: {found}, expected {expected} within {tolerance:e}");
}

fn norm(values: &[f32]) -> f64 {
    values.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt()
}

#[test]
fn losses_and_gradients() {
    let mut ran = 0;
    for case in cases("training/steps.json") {
        let trainable = open(&case);
        let batch = batch(&case, trainable.model.architecture().max_positions());
        for activation_memory in [ActivationMemory::Keep, ActivationMemory::Recompute] {
            let name = format!("{} ({activation_memory:?})", case["name"]);
            let options = LossOptions {
                z_loss_weight: case["z_loss_weight"].as_f64().unwrap(),
                dropout: Dropout::NONE,
                activation_memory,
            };
            let (loss, grads) = gradients(&trainable.model, &examples(&batch), &options).unwrap();
            assert_eq!(loss.counted as u64, case["counted_labels"].as_u64().unwrap(), "{name}");
            for (part, found) in [("cross_entropy", loss.cross_entropy), ("z_loss", loss.z_loss), ("loss", loss.total)]
            {
                close(&format!("{name}: {part}"), found, &case[part], 1e-5 * case[part].as_f64().unwrap().abs());
            }
            let found = values(&trainable, Some(&grads));
            let expected = case["gradients"].as_object().unwrap();
            assert_eq!(
                found.keys().collect::<Vec<_>>(),
                expected.keys().collect::<std::collections::BTreeSet<_>>().into_iter().collect::<Vec<_>>(),
                "{name}"
            );
            for (parameter, expected) in expected {
                let (found, what) = (&found[parameter], format!("{name}: gradient of {parameter}"));
                let at: Vec<usize> = integers(&expected["index"]);
                let largest = expected["value"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .filter_map(Value::as_f64)
                    .fold(0.0f64, |a, b| a.max(b.abs()));
                for (index, value) in at.iter().zip(expected["value"].as_array().unwrap()) {
                    close(&format!("{what}[{index}]"), found[*index].into(), value, 1e-3 * largest);
                }
                close(
                    &format!("{what}: norm"),
                    norm(found),
                    &expected["norm"],
                    1e-3 * expected["norm"].as_f64().unwrap(),
                );
            }
            ran += 1;
        }
    }
    report("losses and gradients", ran);
}

#[test]
fn steps_of_adamw() {
    let mut ran = 0;
    for case in cases("training/steps.json").iter().filter(|case| case["optimizer"].is_object()) {
        let settings = &case["optimizer"];
        let schedule: EpochSchedule = serde_json::from_value(settings.clone()).unwrap();
        let betas = settings["betas"].as_array().unwrap();
        let options = AdamWOptions {
            beta_1: betas[0].as_f64().unwrap(),
            beta_2: betas[1].as_f64().unwrap(),
            epsilon: settings["eps"].as_f64().unwrap(),
            weight_decay: settings["weight_decay"].as_f64().unwrap(),
        };
        let mut trainable = open(case);
        let batch = batch(case, trainable.model.architecture().max_positions());
        let mut optimizer = AdamW::new(options, trainable.names.clone());
        let mut small: BTreeMap<String, Vec<bool>> = BTreeMap::new();
        for (index, step) in settings["steps"].as_array().unwrap().iter().enumerate() {
            let name = format!("{} step {index}", case["name"]);
            let loss_options = LossOptions {
                z_loss_weight: case["z_loss_weight"].as_f64().unwrap(),
                dropout: Dropout::NONE,
                activation_memory: ActivationMemory::Keep,
            };
            let (loss, grads) = gradients(&trainable.model, &examples(&batch), &loss_options).unwrap();
            close(&format!("{name}: loss"), loss.total, &step["loss"], 1e-5 * step["loss"].as_f64().unwrap());
            let norm = global_norm(&trainable.model, &grads).unwrap();
            close(&format!("{name}: norm"), norm, &step["grad_norm"], 1e-3 * step["grad_norm"].as_f64().unwrap());
            let lr = schedule.learning_rate_at(step["epoch"].as_f64().unwrap());
            close(&format!("{name}: lr"), lr, &step["lr"], 1e-9 * lr.abs());
            // Where a gradient is noise compared to the tensor's largest, its sign may be either, and so may the step.
            for (parameter, grad) in values(&trainable, Some(&grads)) {
                let largest = grad.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
                let small = small.entry(parameter).or_insert_with(|| vec![false; grad.len()]);
                for (small, grad) in small.iter_mut().zip(&grad) {
                    *small |= grad.abs() < 1e-5 * largest;
                }
            }
            let factor = clip_factor(norm, settings["clip_grad"].as_f64().unwrap());
            let grads = scale(&trainable.model, grads, factor);
            trainable.model = optimizer.step(lr, trainable.model, grads);
            let found = values(&trainable, None);
            for (parameter, expected) in step["parameters"].as_object().unwrap() {
                let at: Vec<usize> = integers(&expected["index"]);
                for (&at, value) in at.iter().zip(expected["value"].as_array().unwrap()) {
                    let tolerance = if small[parameter][at] { 2.0 * lr * (index + 1) as f64 } else { 0.01 * lr };
                    // The reference's values are rounded to nine digits.
                    let tolerance = tolerance
                        + 1e-8 * value.as_f64().unwrap().abs()
                        + f64::from(f32::EPSILON) * value.as_f64().unwrap().abs();
                    close(&format!("{name}: {parameter}[{at}]"), found[parameter][at].into(), value, tolerance);
                }
            }
            ran += 1;
        }
    }
    report("steps of AdamW", ran);
}
