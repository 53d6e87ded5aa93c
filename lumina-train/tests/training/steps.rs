//! Reports of steps, and steps that fail.

use lumina_checkpoint::{Checkpoint, Dtype, save_safetensors};
use lumina_mgpt::Dropout;
use lumina_nn::Compute;
use lumina_train::Error;
use lumina_train::fine_tune::{
    ActivationMemory, FineTuneOptions, LossOptions, Position, Trainable, Trainer, gradients,
};
use lumina_train::optim::EpochSchedule;

use crate::small::{STEPS, Sequence, by_name, folder_of, options, passes, sequences, shape, state};

#[test]
fn reports_and_positions() {
    let (_folder, model) = folder_of(&shape());
    let schedule = EpochSchedule { learning_rate: 1e-2, min_learning_rate: 1e-3, warmup_epochs: 0.02, epochs: 2 };
    let options = FineTuneOptions { schedule, accumulation: 2, ..options() };
    let mut trainer = Trainer::new(&model, options, &[Compute::cpu()]).unwrap();
    assert_eq!(trainer.position(), Position::default());
    for step in 0..4 {
        let report = trainer.step(&passes(&sequences(step, 2)), STEPS).unwrap();
        assert_eq!(report.step, step + 1);
        assert_eq!(report.epoch, step as f64 / STEPS as f64);
        assert_eq!(report.learning_rate, schedule.learning_rate_at(report.epoch));
        // Rows of 9 and 6 tokens, of which 2 and 1 are given.
        assert_eq!((report.tokens, report.predicted), (30, 24));
        assert!((report.loss - report.cross_entropy - 1e-5 * report.z_loss).abs() <= 1e-6 * report.loss);
        let after = Position { epoch: 0, step_in_epoch: step + 1, step: step + 1, tokens: 30 * (step + 1) };
        assert_eq!(trainer.position(), after);
    }
}

/// The gradient differs by how the operands of products are rounded, where the processor multiplies `bf16`, and only
/// so: each by 2⁻⁸ of itself at most, in some ten products one after the other. A small part of it, such as that of a
/// bias whose terms cancel, may differ by more of itself.
#[test]
fn gradients_in_mixed_precision_are_near_those_in_f32() {
    let (_folder, model) = folder_of(&shape());
    let sequence = Sequence::new(7, 60, 10);
    let options =
        LossOptions { z_loss_weight: 1e-5, dropout: Dropout::NONE, activation_memory: ActivationMemory::Keep };
    let [exact, mixed] = [Compute::cpu(), Compute::cpu().bf16_activations()].map(|compute| {
        let trainable = Trainable::open(&model, &compute).unwrap();
        let (_, grads) = gradients(&trainable.model, &[sequence.example()], &options).unwrap();
        by_name(&trainable, &grads)
    });
    let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|value| value * value).sum::<f32>().sqrt();
    let [all_exact, all_mixed] = [&exact, &mixed].map(|grads| grads.values().flatten().copied());
    let error = norm(&mut all_exact.clone().zip(all_mixed).map(|(exact, mixed)| exact - mixed));
    let whole = norm(&mut all_exact.clone());
    assert!(error < 0.03 * whole, "{error} of {whole}");
    let n_rounded = exact.iter().filter(|(name, grad)| **grad != mixed[*name]).count();
    assert!(n_rounded == 0 || n_rounded == exact.len(), "{n_rounded} of {}", exact.len());
}

#[test]
fn a_fixed_batch_is_learned() {
    let (_folder, model) = folder_of(&shape());
    let mut trainer = Trainer::new(&model, FineTuneOptions { dropout: 0.0, ..options() }, &[Compute::cpu()]).unwrap();
    let sequences = sequences(0, 1);
    let losses: Vec<f64> = (0..20).map(|_| trainer.step(&passes(&sequences), STEPS).unwrap().cross_entropy).collect();
    assert!(losses.windows(2).all(|pair| pair[1] < pair[0]), "{losses:?}");
    assert!(losses[19] < 0.8 * losses[0], "{losses:?}");
}

#[test]
fn a_loss_that_is_not_finite_stops_the_run() {
    let (_folder, model) = folder_of(&shape());
    let schedule = EpochSchedule { learning_rate: 1e30, min_learning_rate: 1e30, warmup_epochs: 0.0, epochs: 1 };
    let mut trainer = Trainer::new(&model, FineTuneOptions { schedule, ..options() }, &[Compute::cpu()]).unwrap();
    trainer.step(&passes(&sequences(0, 1)), STEPS).unwrap();
    let (before, position) = (state(&trainer), trainer.position());
    let error = trainer.step(&passes(&sequences(1, 1)), STEPS).unwrap_err();
    assert!(matches!(error, Error::NotFinite { step: 2, .. }), "{error}");
    assert!(error.to_string().contains("step 2"), "{error}");
    assert!(before == state(&trainer) && position == trainer.position(), "nothing has changed");
}

#[test]
fn a_weight_that_is_nan_stops_the_run() {
    let (_folder, model) = folder_of(&shape());
    let file = model.join("model.safetensors");
    let damaged = {
        let checkpoint = Checkpoint::open(&model).unwrap();
        let names: Vec<&str> = checkpoint.names().collect();
        let tensors: Vec<_> = names.into_iter().map(|name| checkpoint.get(name).unwrap()).collect();
        let tensors = tensors.into_iter().map(|view| {
            let mut bytes = view.bytes().to_vec();
            if view.name() == "model.norm.weight" {
                bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes());
            }
            (view.name().to_owned(), Dtype::F32, view.shape().to_vec(), move || Ok(bytes.into()))
        });
        let damaged = model.join("damaged");
        save_safetensors(&damaged, tensors).unwrap();
        damaged
    };
    std::fs::rename(damaged, file).unwrap();
    let mut trainer = Trainer::new(&model, options(), &[Compute::cpu()]).unwrap();
    let before = state(&trainer);
    let error = trainer.step(&passes(&sequences(0, 1)), STEPS).unwrap_err();
    assert!(matches!(error, Error::NotFinite { step: 1, loss, .. } if loss.is_nan()), "{error}");
    assert!(before == state(&trainer), "nothing has changed");
}
