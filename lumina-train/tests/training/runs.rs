//! Runs over a data set: stopped and resumed, in stages, in `bf16`.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use lumina_checkpoint::Dtype;
use lumina_nn::Compute;
use lumina_testing::{part, small_tokenizer};
use lumina_tokenizer::{Record, RecordTurn, UniRep};
use lumina_train::data::{Dataset, PretokenizeOptions, Pretokenizer, Records, TokenItems, concatenate};
use lumina_train::fine_tune::{FineTune, FineTuneOptions, NewModel, Recipe, Stage, Trainer};
use lumina_train::optim::EpochSchedule;
use lumina_train::{Ended, RunEvent};
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
