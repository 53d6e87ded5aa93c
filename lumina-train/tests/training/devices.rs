//! Passes on several devices, and passes one after the other.

use lumina_nn::Compute;
use lumina_train::fine_tune::{FineTuneOptions, StepReport, Trainer};
use lumina_train::optim::{AdamWOptions, EpochSchedule};

use crate::small::{STEPS, Sequence, folder_of, options, passes, sequences, shape, state, train};

/// To the bit: gradients are summed in the order of the passes, on whichever device they were computed.
#[test]
fn the_number_of_devices_does_not_matter() {
    let (_folder, model) = folder_of(&shape());
    let of = |devices: usize, accumulation: usize| {
        let options = FineTuneOptions { accumulation, ..options() };
        let devices = vec![Compute::cpu(); devices];
        let mut trainer = Trainer::new(&model, options, &devices).unwrap();
        assert_eq!(trainer.passes(), devices.len() * accumulation);
        train(&mut trainer, 3);
        state(&trainer)
    };
    assert!(of(1, 2) == of(2, 1), "two passes");
    let six = of(1, 6);
    assert!(six == of(3, 2), "six passes on three devices");
    assert!(six == of(2, 3), "six passes on two devices");
}

/// The mean of passes with equally many predicted tokens is the mean over all of them. In f32 sums of another order
/// differ by some 1e-7 of what is summed. AdamW's `epsilon` is large here, as it else blows up what is left of a
/// gradient of zero.
#[test]
fn passes_of_a_step_are_one_large_pass() {
    let (_folder, model) = folder_of(&shape());
    let rows: Vec<Sequence> = (0..4).map(|row| Sequence::new(row, 12, 4)).collect();
    let of = |accumulation: usize| -> (StepReport, Vec<f32>) {
        let options = FineTuneOptions {
            schedule: EpochSchedule { learning_rate: 0.1, min_learning_rate: 0.1, warmup_epochs: 0.0, epochs: 1 },
            adamw: AdamWOptions { epsilon: 1.0, ..AdamWOptions::default() },
            dropout: 0.0,
            accumulation,
            ..options()
        };
        let mut trainer = Trainer::new(&model, options, &[Compute::cpu()]).unwrap();
        let examples: Vec<_> = rows.iter().map(Sequence::example).collect();
        let passes: Vec<_> = examples.chunks(rows.len() / accumulation).map(<[_]>::to_vec).collect();
        let report = trainer.step(&passes, STEPS).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let saved = folder.path().join("model");
        trainer.export(&saved, lumina_checkpoint::Dtype::F32).unwrap();
        let checkpoint = lumina_checkpoint::Checkpoint::open(&saved).unwrap();
        (report, checkpoint.names().flat_map(|name| checkpoint.get(name).unwrap().to_f32().unwrap()).collect())
    };
    let (one, expected) = of(1);
    for accumulation in [2, 4] {
        let (several, found) = of(accumulation);
        let close = |a: f64, b: f64| (a - b).abs() <= 1e-6 * b.abs();
        assert!(
            close(several.loss, one.loss) && close(several.gradient_norm, one.gradient_norm),
            "{several:?}, {one:?}"
        );
        assert_eq!((several.tokens, several.predicted), (one.tokens, one.predicted));
        let largest = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(largest <= 1e-6, "weights differ by {largest}");
    }
}

#[test]
fn passes_that_do_not_fit_are_refused() {
    let (_folder, model) = folder_of(&shape());
    let new = |devices: &[Compute]| Trainer::new(&model, options(), devices);
    assert!(new(&[]).unwrap_err().to_string().contains("devices"));
    // Each device has a whole network.
    let shared = || Compute::cpu().then(Compute::cpu());
    for devices in [[Compute::cpu(), shared()], [shared(), Compute::cpu()]] {
        assert!(new(&devices).unwrap_err().to_string().contains("cannot share a model"));
    }
    let mut trainer = new(&[Compute::cpu()]).unwrap();
    let before = state(&trainer);
    for n in [0, 2] {
        let error = trainer.step(&passes(&sequences(0, n)), STEPS).unwrap_err().to_string();
        assert!(error.contains("passes"), "{error}");
    }
    let error = trainer.step(&[vec![]], STEPS).unwrap_err().to_string();
    assert!(error.contains("labels"), "{error}");
    let mut bad = Sequence::new(1, 5, 1);
    bad.labels[3] = 1_000_000;
    let error = trainer.step(&[vec![bad.example()]], STEPS).unwrap_err().to_string();
    assert!(error.contains("1000000"), "{error}");
    let mut bad = Sequence::new(1, 5, 1);
    bad.tokens[2] = 1_000_000;
    let error = trainer.step(&[vec![bad.example()]], STEPS).unwrap_err().to_string();
    assert!(error.contains("1000000"), "{error}");
    bad.labels.pop();
    assert!(trainer.step(&[vec![bad.example()]], STEPS).is_err());
    assert!(before == state(&trainer) && trainer.position().step == 0, "nothing has changed");
}
