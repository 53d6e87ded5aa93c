//! Weights that are shared out: what a rank holds, who may ask for the network, and ranks that fail in the middle.

use std::fmt;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use lumina_checkpoint::Checkpoint;
use lumina_nn::Compute;
use lumina_train::collective::{Collective, RankProblem, Threads};
use lumina_train::fine_tune::{ActivationMemory, Devices, FineTuneOptions, LoraOptions, NewModel, Sharding, Trainer};
use lumina_train::{Error, Result};

use crate::ranks::{Start, on_each, options_for, tensors, train};
use crate::small::{STEPS, Sequence, folder_of, passes, sequences, shape};

/// The number of values in a folder's weights.
fn n_weights(folder: &Path) -> usize {
    let checkpoint = Checkpoint::open(folder).unwrap();
    checkpoint.names().map(|name| checkpoint.get(name).unwrap().shape().iter().product::<usize>()).sum()
}

#[test]
fn each_rank_has_a_part_of_the_weights() {
    // No parameter is as large as a quarter of it.
    let (folder, model) = folder_of(&NewModel { hidden_size: 64, num_hidden_layers: 12, ..shape() });
    let adapter = folder.path().join("adapter");
    LoraOptions::with_rank(4).create(&model, &adapter, &Compute::cpu()).unwrap();
    let total = n_weights(&model);
    let n_tensors = Checkpoint::open(&model).unwrap().names().count();
    for adapter in [None, Some(adapter)] {
        let start = Start { model: model.clone(), adapter };
        // With an adapter, what is frozen is shared out as well.
        let of_adapter = start.adapter.as_ref().map_or(0, |_| 2 * 7 * 12);
        let placeholders = n_tensors + of_adapter;
        let total = start.trainer(options_for(1, Sharding::Full), &[Compute::cpu()]).weights_held()[0].max(total);
        let check = |held: &[usize], when: &str| {
            let sum: usize = held.iter().sum();
            // A value stands for each parameter of another rank.
            assert!((total..=total + held.len() * placeholders).contains(&sum), "{when}: {held:?} of {total}");
            let share = total / held.len();
            assert!(held.iter().all(|&held| held <= share + share / 8 + placeholders), "{when}: {held:?} of {total}");
        };
        for ranks in [2, 4] {
            let name = format!("saved {ranks} {}", of_adapter > 0);
            let held = on_each(ranks, |rank, devices| {
                let mut trainer = start.trainer(options_for(ranks, Sharding::Full), devices);
                let opened = trainer.weights_held()[0];
                train(&mut trainer, rank, ranks, 2);
                let trained = trainer.weights_held()[0];
                trainer.save(&folder.path().join(&name)).unwrap();
                (opened, trained, trainer.weights_held()[0])
            });
            check(&held.iter().map(|held| held.0).collect::<Vec<_>>(), "opened");
            check(&held.iter().map(|held| held.1).collect::<Vec<_>>(), "trained");
            check(&held.iter().map(|held| held.2).collect::<Vec<_>>(), "saved");
            let devices = start.trainer(options_for(ranks, Sharding::Full), &vec![Compute::cpu(); ranks]);
            check(&devices.weights_held(), "devices of a process");
        }
        let whole = start.trainer(options_for(2, Sharding::Optimizer), &[Compute::cpu(), Compute::cpu()]);
        assert_eq!(whole.weights_held(), [total; 2]);
    }
}

#[test]
fn activations_that_are_kept_are_refused() {
    let (_folder, model) = folder_of(&shape());
    let options = FineTuneOptions { activation_memory: ActivationMemory::Keep, ..options_for(1, Sharding::Full) };
    let error = Trainer::new(&model, options, &[Compute::cpu()]).unwrap_err();
    assert!(matches!(error, Error::KeptActivations), "{error}");
    assert!(error.to_string().contains("set `activation_memory` to recompute"), "{error}");
}

#[test]
fn the_network_is_there_where_a_device_has_it() {
    let (_folder, model) = folder_of(&shape());
    let of = |devices: usize, sharding| {
        let devices = vec![Compute::cpu(); devices];
        Trainer::new(&model, options_for(devices.len(), sharding), &devices).unwrap()
    };
    for (devices, sharding) in [(1, Sharding::None), (2, Sharding::Optimizer), (1, Sharding::Full)] {
        assert!(of(devices, sharding).model().is_ok());
    }
    let trainer = of(2, Sharding::Full);
    let error = trainer.model().unwrap_err();
    assert!(matches!(error, Error::WeightsSharedOut { ranks: 2 }), "{error}");
}

#[test]
fn rows_of_a_head_that_another_rank_has_become_zero() {
    let (folder, model) = folder_of(&shape());
    let [alone, ranks] = ["alone", "ranks"].map(|name| folder.path().join(name));
    let tokens: Vec<u32> = (0..1400).step_by(3).collect();
    let zeroed = |trainer: Trainer| trainer.zero_head_rows(&tokens);
    zeroed(Trainer::new(&model, options_for(1, Sharding::None), &[Compute::cpu()]).unwrap()).save(&alone).unwrap();
    on_each(4, |_, devices| {
        zeroed(Trainer::new(&model, options_for(4, Sharding::Full), devices).unwrap()).save(&ranks).unwrap();
    });
    assert!(tensors(&alone) == tensors(&ranks));
}

/// How a rank leaves its run.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Leaves {
    Fails,
    Panics,
}

/// A rank whose exchanges a function makes.
struct ExchangesBy<F> {
    rank: Threads,
    exchange: F,
}

impl<F> fmt::Debug for ExchangesBy<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExchangesBy").field("rank", &self.rank).finish_non_exhaustive()
    }
}

impl<F: Fn(&Threads, Vec<Bytes>) -> Result<Vec<Bytes>> + Send + Sync> Collective for ExchangesBy<F> {
    fn rank(&self) -> usize {
        self.rank.rank()
    }

    fn size(&self) -> usize {
        self.rank.size()
    }

    fn exchange(&self, to: Vec<Bytes>) -> Result<Vec<Bytes>> {
        (self.exchange)(&self.rank, to)
    }

    fn fail(&self, reason: &str) {
        self.rank.fail(reason);
    }
}

/// A device of a rank that leaves instead of its exchange after so many others.
fn leaves_at(rank: Threads, left: usize, how: Leaves) -> Devices {
    let left = AtomicUsize::new(left);
    let exchange = move |rank: &Threads, to| {
        let now = left.load(Ordering::Relaxed);
        if now == 0 {
            match how {
                Leaves::Fails => rank.fail("out of memory"),
                Leaves::Panics => resume_unwind(Box::new("a panic without a message")),
            }
        }
        left.store(now.saturating_sub(1), Ordering::Relaxed);
        rank.exchange(to)
    };
    Devices::over(ExchangesBy { rank, exchange }, Compute::cpu())
}

/// At each exchange of a step and of a checkpoint: gathers, sums, and what rank 0 gets for its file.
#[test]
fn a_rank_that_leaves_anywhere_ends_the_other_and_is_named() {
    const LIMIT: Duration = Duration::from_secs(60);
    let (folder, model) = folder_of(&shape());
    // The ranks of a run until its checkpoint; the first of them returns its error.
    let run = |bad: usize, at: usize, how: Leaves, saved: &Path| {
        std::thread::scope(|scope| {
            let start = |rank: Threads| {
                let model = &model;
                scope.spawn(move || {
                    let number = rank.rank();
                    let devices = leaves_at(rank, if number == bad { at } else { usize::MAX }, how);
                    let mut trainer = Trainer::new(model, options_for(2, Sharding::Full), devices)?;
                    let all = sequences(0, 2);
                    let own: Vec<_> = passes(&all).into_iter().skip(number).step_by(2).collect();
                    trainer.step(&own, STEPS)?;
                    trainer.save(saved)
                })
            };
            let threads: Vec<_> = Threads::group(2, LIMIT).into_iter().map(start).collect();
            threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect::<Vec<_>>()
        })
    };
    for bad in [0, 1] {
        let mut ends = 0;
        for at in 0.. {
            let saved = folder.path().join(format!("{bad} {at}"));
            let how = if at % 2 == 0 { Leaves::Fails } else { Leaves::Panics };
            let mut results = run(bad, at, how, &saved);
            let of_bad = results.remove(bad);
            if matches!(of_bad, Ok(Ok(()))) {
                assert!(saved.join("model.safetensors").exists(), "none has left");
                break;
            }
            ends += 1;
            assert_eq!(of_bad.is_err(), how == Leaves::Panics);
            let Ok(of_good) = results.remove(0) else { panic!("the other one panicked at {at}") };
            // After the last exchange but one all is written, and only the word of it is missing.
            let error = of_good.unwrap_err();
            let expected = match how {
                Leaves::Fails => RankProblem::Failed("out of memory".to_owned()),
                Leaves::Panics => RankProblem::Panicked,
            };
            let named = matches!(&error, Error::Rank { rank, problem } if *rank == bad && *problem == expected);
            assert!(named, "rank {bad} {how:?} at {at}: {error}");
        }
        assert!(ends > 60, "{ends} exchanges");
    }
}

/// A device of a rank that, after its first exchange, makes a folder where a file is to be.
fn blocks(rank: Threads, file: Option<PathBuf>) -> Devices {
    // The first exchange is that of a folder which is there.
    let left = AtomicUsize::new(1);
    let exchange = move |rank: &Threads, to| {
        let received = rank.exchange(to);
        if left.fetch_sub(1, Ordering::Relaxed) == 1 {
            file.iter().for_each(|file| std::fs::create_dir(file).unwrap());
        }
        received
    };
    Devices::over(ExchangesBy { rank, exchange }, Compute::cpu())
}

/// One rank cannot write, while the other waits for a tensor of it, or is waited for.
#[test]
fn a_rank_that_cannot_write_ends_the_other_and_is_named() {
    let (folder, model) = folder_of(&shape());
    for (bad, file) in [(0, "config.json"), (1, "optimizer-00002-of-00002.safetensors")] {
        let saved = folder.path().join(bad.to_string());
        let partial = saved.with_extension("partial");
        let errors: Vec<String> = std::thread::scope(|scope| {
            let start = |rank: Threads| {
                let (model, saved, partial) = (&model, &saved, &partial);
                scope.spawn(move || {
                    let file = (rank.rank() == bad).then(|| partial.join(file));
                    let trainer = Trainer::new(model, options_for(2, Sharding::Full), blocks(rank, file)).unwrap();
                    trainer.save(saved).unwrap_err().to_string()
                })
            };
            let threads: Vec<_> = Threads::group(2, Duration::from_secs(60)).into_iter().map(start).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(errors[bad].contains(file), "{errors:?}");
        let other = &errors[1 - bad];
        assert!(other.starts_with(&format!("rank {bad} has failed: ")) && other.contains(file), "{errors:?}");
        assert!(!saved.exists());
    }
}

#[test]
fn the_next_part_is_gathered_beside_the_computation() {
    let (_folder, model) = folder_of(&shape());
    let noted: Vec<Vec<bool>> = std::thread::scope(|scope| {
        let start = |rank: Threads| {
            let model = &model;
            scope.spawn(move || {
                let (number, is_beside) = (rank.rank(), Arc::<Mutex<Vec<bool>>>::default());
                // The computation is on threads of a pool.
                let notes = is_beside.clone();
                let exchange = move |rank: &Threads, to| {
                    notes.lock().unwrap().push(rayon::current_thread_index().is_none());
                    rank.exchange(to)
                };
                let devices = Devices::over(ExchangesBy { rank, exchange }, Compute::cpu());
                let mut trainer = Trainer::new(model, options_for(2, Sharding::Full), devices).unwrap();
                train(&mut trainer, number, 2, 1);
                std::mem::take(&mut *is_beside.lock().unwrap())
            })
        };
        let threads: Vec<_> = Threads::group(2, Duration::from_secs(60)).into_iter().map(start).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(noted[0], noted[1], "the same order on both ranks");
    // Who takes part, and the gather of the embedding, for which nothing computes.
    assert_eq!(noted[0][..2], [false, false]);
    // Two layers, the head and the last layer again, before its gradients are the first to be summed. A layer has 13
    // parameters, of which an exchange has one of each rank.
    let gathers = noted[0][2..].iter().take_while(|is_beside| **is_beside).count();
    assert!(gathers > 3 * 7, "{noted:?}");
}

/// An error in the middle of a pass, while the weights of the next part are on their way.
#[test]
fn an_error_of_a_pass_ends_all_and_names_its_rank() {
    let (folder, model) = folder_of(&shape());
    let saved = folder.path().join("saved");
    let errors = on_each(2, |rank, devices| {
        let mut trainer = Trainer::new(&model, options_for(2, Sharding::Full), devices).unwrap();
        train(&mut trainer, rank, 2, 1);
        let mut bad = Sequence::new(1, 5, 1);
        if rank == 1 {
            bad.tokens[2] = 1_000_000;
        }
        let error = trainer.step(&[vec![bad.example()]], STEPS).unwrap_err();
        assert!(trainer.save(&saved).is_err());
        error.to_string()
    });
    assert!(errors[1].contains("1000000"), "{errors:?}");
    assert!(errors[0].starts_with("rank 1 has failed: ") && errors[0].contains("1000000"), "{errors:?}");
    assert!(!saved.exists());
}
