//! Saving and resuming.

use std::path::Path;

use lumina_nn::Compute;
use lumina_train::Error;
use lumina_train::fine_tune::{FineTuneOptions, NewModel, Trainer};
use lumina_train::optim::{EpochSchedule, MuonOptions};

use crate::small::{files, folder_of, options, shape, train};

#[test]
fn a_resumed_run_is_the_run() {
    resume_with(None);
}

#[test]
fn a_resumed_run_with_muon_is_the_run() {
    resume_with(Some(MuonOptions::default()));
}

fn resume_with(muon: Option<MuonOptions>) {
    let (folder, model) = folder_of(&shape());
    let at = |name: &str| folder.path().join(name);
    let cosine = EpochSchedule { learning_rate: 1e-2, min_learning_rate: 0.0, warmup_epochs: 0.02, epochs: 1 };
    let options = FineTuneOptions { schedule: cosine, muon, ..options() };
    let mut whole = Trainer::new(&model, options.clone(), &[Compute::cpu()]).unwrap();
    train(&mut whole, 3);
    whole.save(&at("half")).unwrap();
    train(&mut whole, 6);
    whole.save(&at("whole")).unwrap();
    let mut resumed = Trainer::resume(&at("half"), options, &[Compute::cpu()]).unwrap();
    assert_eq!(resumed.position().step, 3);
    resumed.save(&at("half again")).unwrap();
    assert!(files(&at("half")) == files(&at("half again")), "saved at once");
    // The checkpoint may be removed during the run.
    std::fs::rename(at("half"), at("renamed")).unwrap();
    train(&mut resumed, 6);
    resumed.save(&at("resumed")).unwrap();
    let (expected, found) = (files(&at("whole")), files(&at("resumed")));
    assert!(expected.keys().eq(found.keys()));
    for (name, bytes) in &expected {
        assert!(*bytes == found[name], "{name}");
    }
    assert!(files(&at("renamed"))["model.safetensors"] != found["model.safetensors"]);
}

#[test]
fn other_options_are_refused() {
    let (folder, model) = folder_of(&shape());
    let checkpoint = folder.path().join("checkpoint");
    let mut trainer = Trainer::new(&model, options(), &[Compute::cpu()]).unwrap();
    train(&mut trainer, 1);
    trainer.save(&checkpoint).unwrap();
    let schedule = EpochSchedule { learning_rate: 2e-3, ..options().schedule };
    let others = [
        ("schedule.learning_rate", FineTuneOptions { schedule, ..options() }),
        ("accumulation", FineTuneOptions { accumulation: 2, ..options() }),
        ("dropout", FineTuneOptions { dropout: 0.2, ..options() }),
        ("muon", FineTuneOptions { muon: Some(MuonOptions::default()), ..options() }),
        ("seed", FineTuneOptions { seed: 1, ..options() }),
        ("max_gradient_norm", FineTuneOptions { max_gradient_norm: 1.0, ..options() }),
    ];
    for (name, other) in others {
        let error = Trainer::resume(&checkpoint, other, &[Compute::cpu()]).unwrap_err();
        assert!(matches!(&error, Error::DifferentOptions { field, .. } if field == name), "{error}");
    }
    let error = Trainer::resume(&checkpoint, options(), &[Compute::cpu(), Compute::cpu()]).unwrap_err();
    assert!(matches!(error, Error::DifferentDevices { saved: 1, given: 2, .. }), "{error}");
    // What does not change the numbers.
    let other = FineTuneOptions { checkpoint_every: 7, keep_checkpoints: 9, ..options() };
    assert_eq!(Trainer::resume(&checkpoint, other, &[Compute::cpu()]).unwrap().position().step, 1);
}

#[test]
fn nothing_is_overwritten() {
    let (folder, model) = folder_of(&shape());
    let trainer = Trainer::new(&model, options(), &[Compute::cpu()]).unwrap();
    let checkpoint = folder.path().join("checkpoint");
    std::fs::create_dir(&checkpoint).unwrap();
    std::fs::write(checkpoint.join("notes.txt"), "mine").unwrap();
    for error in [trainer.save(&checkpoint).unwrap_err(), trainer.save(&model).unwrap_err()] {
        assert!(matches!(error, Error::Write { .. }), "{error}");
    }
    assert_eq!(files(&checkpoint)["notes.txt"], b"mine");
}

#[test]
fn damaged_checkpoints_are_errors_that_name_the_file() {
    let (folder, model) = folder_of(&shape());
    let at = |name: &str| folder.path().join(name);
    let mut trainer = Trainer::new(&model, options(), &[Compute::cpu()]).unwrap();
    train(&mut trainer, 1);
    trainer.save(&at("good")).unwrap();
    let (_other, other) = folder_of(&NewModel { intermediate_size: 64, ..shape() });
    let mut trainer = Trainer::new(&other, options(), &[Compute::cpu()]).unwrap();
    train(&mut trainer, 1);
    trainer.save(&at("other")).unwrap();
    let deeper = NewModel { num_hidden_layers: 3, ..shape() };
    let (_deeper, deeper) = folder_of(&deeper);
    let mut trainer = Trainer::new(&deeper, options(), &[Compute::cpu()]).unwrap();
    train(&mut trainer, 1);
    trainer.save(&at("deeper")).unwrap();

    type Damage<'a> = Box<dyn Fn(&Path) -> std::io::Result<()> + 'a>;
    let cut = |part: fn(usize) -> usize| -> Damage<'_> {
        Box::new(move |file| std::fs::read(file).and_then(|bytes| std::fs::write(file, &bytes[..part(bytes.len())])))
    };
    let with = |bytes: &'static [u8]| -> Damage<'_> { Box::new(move |file| std::fs::write(file, bytes)) };
    let missing = || -> Damage<'_> { Box::new(|file| std::fs::remove_file(file)) };
    let of = |name: &'static str| -> Damage<'_> {
        Box::new(move |file| std::fs::copy(at(name).join(file.file_name().unwrap()), file).map(|_| ()))
    };
    let empty_header = b"\x02\0\0\0\0\0\0\0{}";
    let damages: Vec<(&str, &str, Damage<'_>)> = vec![
        ("optimizer.safetensors", "missing", missing()),
        ("optimizer.safetensors", "cut in half", cut(|n| n / 2)),
        ("optimizer.safetensors", "cut in the header", cut(|_| 20)),
        ("optimizer.safetensors", "empty", cut(|_| 0)),
        ("optimizer.safetensors", "without tensors", with(empty_header)),
        ("optimizer.safetensors", "of another width", of("other")),
        ("optimizer.safetensors", "of a deeper model", of("deeper")),
        ("trainer.json", "missing", missing()),
        ("trainer.json", "garbage", with(b"\xff{]")),
        ("trainer.json", "of other content", with(b"{\"position\": 3}")),
        ("trainer.json", "cut", cut(|n| n - 4)),
        ("model.safetensors", "missing", missing()),
        ("model.safetensors", "cut", cut(|n| n - 1)),
        ("model.safetensors", "of another width", of("other")),
        ("config.json", "missing", missing()),
        ("config.json", "garbage", with(b"{")),
    ];
    let bad = at("bad");
    for (file, what, damage) in damages {
        std::fs::create_dir(&bad).unwrap();
        for (name, bytes) in files(&at("good")) {
            std::fs::write(bad.join(name), bytes).unwrap();
        }
        damage(&bad.join(file)).unwrap();
        let error = Trainer::resume(&bad, options(), &[Compute::cpu()]).err();
        let error = error.unwrap_or_else(|| panic!("{file} {what}: no error")).to_string();
        // Where the model's file is missing, the folder is what is named.
        let named = if (file, what) == ("model.safetensors", "missing") { "bad" } else { file };
        assert!(error.contains(named), "{file} {what}: {error}");
        std::fs::remove_dir_all(&bad).unwrap();
    }
    assert!(Trainer::resume(&at("absent"), options(), &[Compute::cpu()]).is_err());
}
