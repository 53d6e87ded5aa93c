//! Runs over a data set: stopped and resumed, in stages, in `bf16`.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lumina_checkpoint::Dtype;
use lumina_nn::Compute;
use lumina_testing::{part, small_tokenizer};
use lumina_tokenizer::{Record, RecordTurn, UniRep};
use lumina_train::collective::{Collective, Threads};
use lumina_train::data::{Dataset, PretokenizeOptions, Pretokenizer, Records, TokenItems, concatenate};
use lumina_train::fine_tune::{
    ActivationMemory, Devices, FineTune, FineTuneOptions, ImageRows, LoraOptions, NewModel, Recipe, Sharding, Stage,
    Trainer,
};
use lumina_train::optim::EpochSchedule;
use lumina_train::{Ended, Error, RunEvent};
use lumina_vq::ImageTokenizer;

/// A tiny model and a data set of texts of several lengths.
fn start(folder: &Path) -> (PathBuf, PathBuf) {
    let (tokenizer, model, tokens) = (folder.join("tokenizer"), folder.join("start"), folder.join("tokens"));
    std::fs::create_dir_all(&tokenizer).unwrap();
    small_tokenizer(16, &tokenizer);
    let shape = NewModel {
        hidden_size: 32,
        intermediate_size: 48,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        num_key_value_heads: 2,
        max_position_embeddings: 128,
        ..NewModel::default()
    };
    shape.create(&tokenizer, &model, &Compute::cpu()).unwrap();
    let records = Records::made(26, |index| {
        let turn = |from: &str, value: String| RecordTurn { from: from.to_owned(), value: Some(value) };
        let answer = format!("It is {index}.").repeat(index % 5 + 1);
        (Record { conversations: vec![turn("human", "What?".to_owned()), turn("gpt", answer)], image: vec![] }, vec![])
    });
    let images = ImageTokenizer::open(part("vq"), &Compute::cpu()).unwrap();
    let unirep = UniRep::open(&tokenizer).unwrap();
    Pretokenizer::new(&images, &unirep, PretokenizeOptions::new(64)).unwrap().run(&records, &tokens, |_| ()).unwrap();
    concatenate(&tokens).unwrap();
    let config = tokens.join("data.yaml");
    std::fs::write(&config, "META:\n  - path: record.json\n").unwrap();
    (model, config)
}

fn options() -> FineTuneOptions {
    FineTuneOptions {
        schedule: EpochSchedule { learning_rate: 1e-3, epochs: 2, ..EpochSchedule::default() },
        batch_size: 3,
        accumulation: 2,
        context_dropout: 0.3,
        checkpoint_every: 3,
        ..FineTuneOptions::default()
    }
}

fn weights(folder: &Path) -> Vec<u8> {
    std::fs::read(folder.join("model.safetensors")).unwrap()
}

#[test]
fn a_run_that_was_stopped_ends_as_one_that_was_not() {
    let folder = tempfile::tempdir().unwrap();
    let (model, config) = start(folder.path());
    let data = Dataset::open(&config).unwrap();
    let devices = [Compute::cpu()];
    let go = |name: &str, stop_after: &[u64]| {
        let folder = folder.path().join(name);
        let (mut seen, mut stops) = (Vec::new(), stop_after.iter());
        loop {
            let stop = stops.next();
            let run = FineTune::new(&model, options(), &devices);
            let (trainer, ended) = run
                .run(&data, &folder, |event| {
                    if let RunEvent::Step(step) = event {
                        seen.push(step.step);
                        if Some(&step.step) == stop {
                            return ControlFlow::Break(());
                        }
                    }
                    ControlFlow::Continue(())
                })
                .unwrap();
            if ended == Ended::Finished {
                trainer.export(&folder.join("model"), Dtype::F32).unwrap();
                let checkpoints = std::fs::read_dir(&folder).unwrap().count() - 1;
                return (weights(&folder.join("model")), seen, checkpoints);
            }
        }
    };
    let whole = go("whole", &[]);
    // 26 items make 4 steps of 6 an epoch, with 2 left over.
    assert_eq!(whole.1, (1..=8).collect::<Vec<_>>());
    assert_eq!(whole.2, options().keep_checkpoints, "checkpoints that stay");
    // Within an epoch, at a checkpoint, at the end of an epoch, and once more.
    let stopped = go("stopped", &[1, 3, 4, 7]);
    assert_eq!(stopped.1, whole.1, "no step twice");
    assert!(stopped.0 == whole.0, "the weights differ");
    // Called again, a finished run has nothing to do.
    assert_eq!(go_again(&data, &folder.path().join("whole"), &devices), 0);
}

fn go_again(data: &Dataset, folder: &Path, devices: &[Compute]) -> usize {
    let mut steps = 0;
    // There is a checkpoint, so the model is not opened.
    let run = FineTune::new("no model", options(), devices);
    run.run(data, folder, |event| steps += usize::from(matches!(event, RunEvent::Step(_)))).unwrap();
    steps
}

#[test]
fn stages_follow_each_other_and_zeroed_rows_begin_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let (model, config) = start(folder.path());
    let stage = |name: &str| Stage { name: name.to_owned(), data: config.clone(), options: options() };
    let recipe = Recipe::fp_sft(&model, vec![stage("one"), stage("two")]);
    let runs = folder.path().join("runs");
    let devices = [Compute::cpu()];
    let mut names = Vec::new();
    // Stopped in the second stage, and called again.
    let mut go = |stop_at: Option<(&str, u64)>| {
        recipe
            .run(&runs, &devices, |name, event| {
                if let RunEvent::Step(step) = event {
                    names.push((name.to_owned(), step.step));
                    if stop_at == Some((name, step.step)) {
                        return ControlFlow::Break(());
                    }
                }
                ControlFlow::Continue(())
            })
            .unwrap()
    };
    assert_eq!(go(Some(("two", 2))), Ended::Stopped);
    assert_eq!(go(None), Ended::Finished);
    let expected = ["one", "two"].into_iter().flat_map(|name| (1..=8).map(move |step| (name.to_owned(), step)));
    assert_eq!(names, expected.collect::<Vec<_>>());
    assert_eq!(recipe.result(&runs), runs.join("two/model"));
    // A stage that is done is that stage only with its options.
    let mut other = recipe.clone();
    other.stages[0].options.seed = 5;
    let refused = other.run(&runs, &devices, |_, _| ()).unwrap_err();
    assert!(matches!(&refused, Error::DifferentOptions { field, .. } if field == "seed"), "{refused}");
    lumina_mgpt::Transformer::open(recipe.result(&runs), &Compute::cpu()).unwrap();
}

#[test]
fn a_loss_that_is_not_finite_names_the_items() {
    let folder = tempfile::tempdir().unwrap();
    let (model, config) = start(folder.path());
    let mut options = options();
    options.schedule.learning_rate = 1e30;
    options.schedule.warmup_epochs = 0.0;
    let data = Dataset::open(&config).unwrap();
    let devices = [Compute::cpu()];
    let run = FineTune::new(&model, options.clone(), &devices);
    let error = run.run(&data, &folder.path().join("run"), |_| ()).err().unwrap();
    match error {
        lumina_train::Error::NotFinite { items, .. } => {
            assert_eq!(items.len(), options.batch_size * options.accumulation);
            assert!(items.iter().all(|&item| item < data.len()));
        }
        other => panic!("{other}"),
    }
}

#[test]
fn activations_in_bf16_update_weights_in_f32() {
    let folder = tempfile::tempdir().unwrap();
    let (model, config) = start(folder.path());
    let tokens = TokenItems::open(config.with_file_name("record.json")).unwrap();
    let items: Vec<_> = (0..4).map(|index| tokens.get(index).unwrap()).collect();
    let batch: Vec<_> = items
        .iter()
        .map(|item| lumina_train::fine_tune::Example { tokens: &item.tokens, labels: &item.labels })
        .collect();
    let options = FineTuneOptions { dropout: 0.0, ..options() };
    let half = Compute::flex().dtype(Dtype::BF16);
    let losses = [("f32", Compute::cpu()), ("bf16", half)].map(|(compute_name, compute)| {
        let mut trainer = Trainer::new(&model, options.clone(), &[compute]).unwrap();
        let losses = [(); 3].map(|()| trainer.step(std::slice::from_ref(&batch), 100).unwrap().loss);
        let saved = folder.path().join(compute_name);
        trainer.export(&saved, Dtype::F32).unwrap();
        let values = lumina_checkpoint::Checkpoint::open(&saved).unwrap();
        let head = values.get("lm_head.weight").unwrap().to_f32().unwrap();
        // A step of the learning rate is lost in a bf16 weight; f32 weights keep it.
        assert!(head.iter().any(|&value| half::bf16::from_f32(value).to_f32() != value));
        losses
    });
    for (full, half) in losses[0].iter().zip(losses[1]) {
        assert!((full - half).abs() < 0.02 * full, "{full} and {half}");
        assert_ne!(*full, half, "bf16 activations round");
    }
}

/// The error of a run in a folder that was begun differently: the field, and both values.
fn refusal(run: &FineTune, data: &Dataset, folder: &Path) -> (String, String, String) {
    match run.run(data, folder, |_| ()) {
        Err(Error::DifferentOptions { field, saved, given, .. }) => (field, saved, given),
        Err(other) => panic!("{other}"),
        Ok((trainer, ended)) => panic!("{ended:?} at {:?}", trainer.position()),
    }
}

#[test]
fn a_run_is_resumed_as_the_one_that_it_was_begun_as() {
    let folder = tempfile::tempdir().unwrap();
    let (model, config) = start(folder.path());
    let data = Dataset::open(&config).unwrap();
    let other_model = folder.path().join("other");
    let shape =
        NewModel { seed: 1, hidden_size: 32, intermediate_size: 48, num_hidden_layers: 2, ..NewModel::default() };
    let shape = NewModel { num_attention_heads: 2, num_key_value_heads: 2, max_position_embeddings: 128, ..shape };
    shape.create(&folder.path().join("tokenizer"), &other_model, &Compute::cpu()).unwrap();
    let devices = [Compute::cpu()];
    let of = |model: &Path| FineTune::new(model, options(), &devices);
    let lora = |rank: usize| of(&model).lora(LoraOptions::with_rank(rank));
    let [with_adapter, whole] = ["adapter run", "whole run"].map(|name| folder.path().join(name));
    let stop = |event: RunEvent<'_, _>| match event {
        RunEvent::Step(_) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    };
    assert_eq!(lora(4).run(&data, &with_adapter, stop).unwrap().1, Ended::Stopped);
    assert_eq!(of(&model).run(&data, &whole, stop).unwrap().1, Ended::Stopped);

    let of_an_older_version = |run: &Path| {
        let file = lumina_train::checkpoint::latest(run).unwrap().unwrap().join("trainer.json");
        let mut state: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        let state = state.as_object_mut().unwrap();
        assert!(state.remove("start").is_some() && state.remove("data").is_some());
        std::fs::write(&file, serde_json::to_vec(state).unwrap()).unwrap();
    };
    let text = |parts: [&str; 3]| (parts[0].to_owned(), parts[1].to_owned(), parts[2].to_owned());
    let (whole_model, adapter) = ("none: the whole model", "an adapter");
    for is_old in [false, true] {
        assert_eq!(refusal(&lora(8), &data, &with_adapter), text(["lora.rank", "4", "8"]));
        let alpha = LoraOptions { alpha: 2.0, ..LoraOptions::with_rank(4) };
        assert_eq!(refusal(&lora(4).lora(alpha), &data, &with_adapter).0, "lora.alpha");
        let targets = LoraOptions { targets: vec!["q_proj".to_owned()], ..LoraOptions::with_rank(4) };
        assert_eq!(refusal(&lora(4).lora(targets), &data, &with_adapter).0, "lora.targets");
        assert_eq!(refusal(&of(&model), &data, &with_adapter), text(["lora", adapter, whole_model]));
        assert_eq!(refusal(&lora(4), &data, &whole), text(["lora", whole_model, adapter]));
        let (field, saved, given) = refusal(&of(&other_model).lora(LoraOptions::with_rank(4)), &data, &with_adapter);
        let starts = [(&saved, &model), (&given, &other_model)];
        assert!(field == "model" && starts.iter().all(|(text, path)| text.starts_with(path.to_str().unwrap())));
        if !is_old {
            assert_eq!(refusal(&of(&other_model), &data, &whole).0, "model");
            let rows = refusal(&of(&model).image_rows(ImageRows::Zero), &data, &whole);
            assert_eq!(rows, text(["image_rows", "\"keep\"", "\"zero\""]));
            let seed = LoraOptions { seed: 1, ..LoraOptions::with_rank(4) };
            assert_eq!(refusal(&lora(4).lora(seed), &data, &with_adapter), text(["lora.seed", "0", "1"]));
            for run in [&with_adapter, &whole] {
                of_an_older_version(run);
            }
        }
    }
    // The order of targets makes no other adapter, and older states go on, with what they are told to be.
    let mut reordered = LoraOptions::with_rank(4);
    reordered.targets.reverse();
    assert_eq!(lora(4).lora(reordered).run(&data, &with_adapter, stop).unwrap().1, Ended::Stopped);
    assert_eq!(of(&model).run(&data, &whole, stop).unwrap().1, Ended::Stopped);
    assert_eq!(refusal(&of(&other_model), &data, &whole).0, "model");
    // An adapter of a run that has no checkpoint yet.
    let begun = folder.path().join("begun");
    LoraOptions::with_rank(4).create(&model, &begun.join("adapter"), &Compute::cpu()).unwrap();
    assert_eq!(refusal(&lora(8), &data, &begun), text(["lora.rank", "4", "8"]));
}

#[test]
fn a_run_goes_on_with_its_data_and_as_long_as_its_schedule_allows() {
    let folder = tempfile::tempdir().unwrap();
    let (model, config) = start(folder.path());
    let data = Dataset::open(&config).unwrap();
    let other = folder.path().join("tokens/other.yaml");
    std::fs::write(&other, "META: [{path: record.json, ratio: 0.5}]").unwrap();
    let other = Dataset::open(&other).unwrap();
    let (devices, run) = ([Compute::cpu()], folder.path().join("run"));
    let epochs = |epochs: u64, min_learning_rate: f64| {
        let schedule = EpochSchedule { epochs, min_learning_rate, ..options().schedule };
        FineTune::new(&model, FineTuneOptions { schedule, ..options() }, &devices)
    };
    epochs(1, 1e-3).run(&data, &run, |_| ()).unwrap();
    let (field, saved, given) = refusal(&epochs(1, 1e-3), &other, &run);
    assert!(field == "data" && saved == data.fingerprint() && given == other.fingerprint(), "{saved} {given}");
    assert!(saved.starts_with("26 items of "), "{saved}");
    // The same items from another place are the same data.
    let moved = folder.path().join("moved");
    std::fs::rename(folder.path().join("tokens"), &moved).unwrap();
    assert_eq!(Dataset::open(moved.join("data.yaml")).unwrap().fingerprint(), data.fingerprint());

    let mut steps = Vec::new();
    let longer = epochs(2, 1e-3).run(&data, &run, |event| {
        if let RunEvent::Step(step) = event {
            steps.push(step.step);
        }
    });
    assert_eq!((longer.unwrap().1, steps), (Ended::Finished, (5..=8).collect()));
    let shorter = refusal(&epochs(1, 1e-3), &data, &run);
    assert_eq!(shorter, ("schedule.epochs".to_owned(), "2".to_owned(), "1".to_owned()));
    // A cosine had made the steps that are done with other learning rates.
    let cosine = folder.path().join("cosine");
    epochs(1, 0.0).run(&data, &cosine, |_| ()).unwrap();
    let refused = refusal(&epochs(2, 0.0), &data, &cosine);
    assert_eq!(refused, ("schedule.epochs".to_owned(), "1".to_owned(), "2".to_owned()));
}

#[test]
fn a_second_run_in_the_same_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (model, config) = start(folder.path());
    let data = Dataset::open(&config).unwrap();
    let (devices, folder) = ([Compute::cpu()], folder.path().join("run"));
    let run = || FineTune::new(&model, options(), &devices);
    let mut trainer = Trainer::new(&model, options(), &devices).unwrap();
    let mut refused = Vec::new();
    let (_, ended) = run()
        .run(&data, &folder, |event| {
            if let RunEvent::Step(_) = event {
                refused.push(run().run(&data, &folder, |_| ()).err().unwrap());
                refused.push(trainer.run(&data, &folder, |_| ()).unwrap_err());
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!((ended, refused.len()), (Ended::Stopped, 2));
    for error in refused {
        assert!(matches!(&error, Error::FolderBusy { folder: busy } if *busy == folder), "{error}");
        assert!(error.to_string().contains("another run is writing this folder"), "{error}");
    }
    // The lock ends with the run, and leaves nothing.
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
    assert_eq!(run().run(&data, &folder, |_| ()).unwrap().1, Ended::Finished);
}

/// Ranks in one folder: one of them makes the adapter and has the lock, all stop where one stops, and all save.
#[test]
fn a_run_on_ranks_is_the_run_of_one() {
    let folder = tempfile::tempdir().unwrap();
    let (model, config) = start(folder.path());
    let lora = Some(LoraOptions::with_rank(4));
    for (lora, sharding) in [
        (None, Sharding::Optimizer),
        (None, Sharding::Full),
        (lora.clone(), Sharding::Optimizer),
        (lora, Sharding::Full),
    ] {
        let at = |name: &str| folder.path().join(format!("{name} {} {sharding:?}", lora.is_some()));
        let run =
            |options, devices| FineTune::new(&model, options, devices).lora(lora.clone()).image_rows(ImageRows::Zero);
        let alone = run(options(), Devices::from(&[Compute::cpu()]));
        let (trainer, ended) = alone.run(&Dataset::open(&config).unwrap(), &at("alone"), |_| ()).unwrap();
        assert_eq!(ended, Ended::Finished);
        trainer.export(&at("alone result"), Dtype::F32).unwrap();

        let on_ranks = |stop: Option<u64>, result: Option<PathBuf>| {
            let (run, at, result) = (&run, &at, &result);
            std::thread::scope(|scope| {
                for rank in Threads::group(2, Duration::from_secs(60)) {
                    let config = config.clone();
                    scope.spawn(move || {
                        let number = rank.rank();
                        let activation_memory = ActivationMemory::Recompute;
                        let options = FineTuneOptions { accumulation: 1, sharding, activation_memory, ..options() };
                        let run = run(options, Devices::over(rank, Compute::cpu()));
                        let data = Dataset::open(&config).unwrap();
                        let (trainer, ended) = run
                            .run(&data, &at("ranks"), |event| match event {
                                RunEvent::Step(step) if number == 1 && Some(step.step) == stop => {
                                    ControlFlow::Break(())
                                }
                                _ => ControlFlow::Continue(()),
                            })
                            .unwrap();
                        assert_eq!(ended, if stop.is_some() { Ended::Stopped } else { Ended::Finished });
                        assert!(stop.is_none_or(|stop| trainer.position().step == stop), "rank {number}");
                        if let Some(result) = result {
                            trainer.export(result, Dtype::F32).unwrap();
                        }
                    });
                }
            });
        };
        on_ranks(Some(2), None);
        on_ranks(None, Some(at("ranks result")));
        let expected = crate::small::files(&at("alone result"));
        assert!(expected.keys().any(|name| name.ends_with(".safetensors")));
        assert!(expected == crate::small::files(&at("ranks result")), "lora: {}, {sharding:?}", lora.is_some());
    }
}
