//! Ranks that are threads with a trainer each, as processes of a cluster have: weights equal to the bit.

use std::path::{Path, PathBuf};
use std::time::Duration;

use lumina_checkpoint::Checkpoint;
use lumina_nn::Compute;
use lumina_train::Error;
use lumina_train::collective::{Collective, RankProblem, Threads};
use lumina_train::fine_tune::{ActivationMemory, Devices, FineTuneOptions, LoraOptions, Sharding, Trainer};
use lumina_train::optim::MuonOptions;

use crate::small::{STEPS, files, folder_of, options, passes, sequences, shape};

/// Passes of a step, whoever makes them.
pub(crate) const PASSES: usize = 4;
pub(crate) const LAST: u64 = 20;
const LIMIT: Duration = Duration::from_secs(120);

pub(crate) const SHARDINGS: [Sharding; 3] = [Sharding::None, Sharding::Optimizer, Sharding::Full];

pub(crate) fn options_for(ranks: usize, sharding: Sharding) -> FineTuneOptions {
    let activation_memory = match sharding {
        Sharding::Full => ActivationMemory::Recompute,
        _ => ActivationMemory::Keep,
    };
    FineTuneOptions { accumulation: PASSES / ranks, sharding, activation_memory, ..options() }
}

/// Makes steps up to this one, of which this rank makes every `ranks`-th pass.
pub(crate) fn train(trainer: &mut Trainer, rank: usize, ranks: usize, until: u64) {
    while trainer.position().step < until {
        let all = sequences(trainer.position().step, PASSES);
        let own: Vec<_> = passes(&all).into_iter().skip(rank).step_by(ranks).collect();
        trainer.step(&own, STEPS).unwrap();
    }
}

/// What each rank of a group returns.
pub(crate) fn on_each<T: Send>(ranks: usize, run: impl Fn(usize, Devices) -> T + Sync) -> Vec<T> {
    let run = &run;
    std::thread::scope(|scope| {
        let start = |rank: Threads| scope.spawn(move || run(rank.rank(), Devices::over(rank, Compute::cpu())));
        let threads: Vec<_> = Threads::group(ranks, LIMIT).into_iter().map(start).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// The tensors of a checkpoint with their values' bits: weights, and the optimizer's state from all its files.
pub(crate) fn tensors(folder: &Path) -> Vec<(String, Vec<u32>)> {
    let names = files(folder).into_keys().filter(|name| name.ends_with(".safetensors"));
    let mut tensors = Vec::new();
    for name in names {
        let checkpoint = Checkpoint::open(folder.join(name)).unwrap();
        tensors.extend(checkpoint.names().map(|name| {
            let values = checkpoint.get(name).unwrap().to_f32().unwrap();
            (name.to_owned(), values.iter().map(|value| value.to_bits()).collect())
        }));
    }
    tensors.sort();
    tensors
}

/// A model to train, or an adapter on it.
pub(crate) struct Start {
    pub(crate) model: PathBuf,
    pub(crate) adapter: Option<PathBuf>,
}

impl Start {
    pub(crate) fn trainer(&self, options: FineTuneOptions, devices: impl Into<Devices>) -> Trainer {
        match &self.adapter {
            None => Trainer::new(&self.model, options, devices).unwrap(),
            Some(adapter) => Trainer::with_adapter(&self.model, adapter, options, devices).unwrap(),
        }
    }
}

/// Trains on one device, on several of one process, and on ranks, for each sharding; all checkpoints have the same
/// tensors, and resumed in the middle on another number of ranks, or with another sharding, the run ends in them as
/// well. Without activations that are kept, weights are shared out as well.
fn all_are_one(folder: &Path, start: &Start, activation_memory: ActivationMemory, muon: Option<MuonOptions>) {
    let at = |name: &str| folder.join(name);
    let options_for = |ranks, sharding| FineTuneOptions { activation_memory, muon, ..options_for(ranks, sharding) };
    let mut alone = start.trainer(options_for(1, Sharding::None), &[Compute::cpu()]);
    train(&mut alone, 0, 1, LAST);
    alone.save(&at("alone")).unwrap();
    let expected = tensors(&at("alone"));
    let shardings = &SHARDINGS[..if activation_memory == ActivationMemory::Keep { 2 } else { 3 }];
    for &sharding in shardings {
        for ranks in [1, 2, 4] {
            let name = |what: &str| at(&format!("{what} {ranks} {sharding:?}"));
            let mut devices = start.trainer(options_for(ranks, sharding), &vec![Compute::cpu(); ranks]);
            train(&mut devices, 0, 1, LAST);
            devices.save(&name("devices")).unwrap();
            assert!(tensors(&name("devices")) == expected, "{ranks} devices, {sharding:?}");

            on_each(ranks, |rank, devices| {
                let mut trainer = start.trainer(options_for(ranks, sharding), devices);
                train(&mut trainer, rank, ranks, LAST / 2);
                trainer.save(&name("half")).unwrap();
                train(&mut trainer, rank, ranks, LAST);
                trainer.save(&name("ranks")).unwrap();
            });
            assert!(tensors(&name("ranks")) == expected, "{ranks} ranks, {sharding:?}");
        }
    }
    let resume = |(from_sharding, from): (Sharding, usize), (sharding, to): (Sharding, usize)| {
        let half = at(&format!("half {from} {from_sharding:?}"));
        let resumed = at(&format!("resumed {from} {from_sharding:?} {to} {sharding:?}"));
        on_each(to, |rank, devices| {
            let mut trainer = Trainer::resume(&half, options_for(to, sharding), devices).unwrap();
            assert_eq!(trainer.position().step, LAST / 2);
            train(&mut trainer, rank, to, LAST);
            trainer.save(&resumed).unwrap();
        });
        assert!(tensors(&resumed) == expected, "{from} ranks, {from_sharding:?}, on {to} ranks, {sharding:?}");
    };
    for (index, &sharding) in shardings.iter().enumerate() {
        for (from, to) in [(4, 1), (4, 2), (1, 4), (2, 4)] {
            resume((sharding, from), (sharding, to));
        }
        let next = shardings[(index + 1) % shardings.len()];
        resume((sharding, 2), (next, 4));
        resume((next, 4), (sharding, 2));
    }
}

#[test]
fn ranks_train_the_weights_of_one() {
    let (folder, model) = folder_of(&shape());
    all_are_one(folder.path(), &Start { model, adapter: None }, ActivationMemory::Keep, None);
}

/// Gradients are then summed layer by layer.
#[test]
fn ranks_that_recompute_activations_train_the_weights_of_one() {
    let (folder, model) = folder_of(&shape());
    all_are_one(folder.path(), &Start { model, adapter: None }, ActivationMemory::Recompute, None);
}

#[test]
fn ranks_train_by_muon_as_one() {
    let (folder, model) = folder_of(&shape());
    let muon = Some(MuonOptions::default());
    all_are_one(folder.path(), &Start { model, adapter: None }, ActivationMemory::Recompute, muon);
}

/// Two ranks make three passes a step: one of them has none in the second round.
#[test]
fn ranks_may_have_other_numbers_of_passes() {
    let (folder, model) = folder_of(&shape());
    let [keep, recompute] = [ActivationMemory::Keep, ActivationMemory::Recompute];
    for (activation_memory, sharding) in
        [(keep, Sharding::Optimizer), (recompute, Sharding::Optimizer), (recompute, Sharding::Full)]
    {
        let at = |name: &str| folder.path().join(format!("{name} {activation_memory:?} {sharding:?}"));
        let train = |trainer: &mut Trainer, rank: usize, ranks: usize| {
            for step in 0..3 {
                let all = sequences(step, 3);
                let own: Vec<_> = passes(&all).into_iter().skip(rank).step_by(ranks).collect();
                trainer.step(&own, STEPS).unwrap();
            }
        };
        let options = |ranks| FineTuneOptions { activation_memory, ..options_for(ranks, sharding) };
        let mut alone = Trainer::new(&model, options(1), &[Compute::cpu()]).unwrap();
        train(&mut alone, 0, 1);
        alone.save(&at("alone")).unwrap();
        on_each(2, |rank, devices| {
            let mut trainer = Trainer::new(&model, options(2), devices).unwrap();
            train(&mut trainer, rank, 2);
            trainer.save(&at("ranks")).unwrap();
        });
        assert!(tensors(&at("ranks")) == tensors(&at("alone")), "{activation_memory:?}, {sharding:?}");
    }
}

#[test]
fn ranks_train_the_adapter_of_one() {
    let (folder, model) = folder_of(&shape());
    let adapter = folder.path().join("adapter");
    LoraOptions::with_rank(4).create(&model, &adapter, &Compute::cpu()).unwrap();
    let start = Start { model, adapter: Some(adapter) };
    for activation_memory in [ActivationMemory::Keep, ActivationMemory::Recompute] {
        let runs = folder.path().join(format!("{activation_memory:?}"));
        std::fs::create_dir(&runs).unwrap();
        all_are_one(&runs, &start, activation_memory, None);
    }
}

/// The state of the optimizer is split: no rank has more than its part, and the parts are all of it.
#[test]
fn each_rank_has_a_part_of_the_state() {
    let (folder, model) = folder_of(&shape());
    let saved = folder.path().join("saved");
    on_each(4, |rank, devices| {
        let mut trainer = Trainer::new(&model, options_for(4, Sharding::Optimizer), devices).unwrap();
        train(&mut trainer, rank, 4, 1);
        trainer.save(&saved).unwrap();
    });
    let sizes: Vec<usize> = (1..=4)
        .map(|part| Checkpoint::open(saved.join(format!("optimizer-{part:05}-of-00004.safetensors"))).unwrap())
        .map(|part| part.names().map(|name| part.get(name).unwrap().bytes().len()).sum())
        .collect();
    let weights = Checkpoint::open(saved.join("model.safetensors")).unwrap();
    let weights: Vec<usize> = weights.names().map(|name| weights.get(name).unwrap().bytes().len()).collect();
    assert_eq!(sizes.iter().sum::<usize>(), 2 * weights.iter().sum::<usize>());
    // Embedding and head are most of this model, and a parameter has one owner.
    let largest = 2 * weights.iter().max().unwrap();
    assert!(sizes.iter().all(|&size| size <= largest.max(sizes.iter().sum::<usize>() / 3)), "{sizes:?}");
}

#[test]
fn an_error_of_one_rank_ends_all_and_names_it() {
    let (folder, model) = folder_of(&shape());
    let errors = on_each(2, |rank, devices| {
        let mut trainer = Trainer::new(&model, options_for(2, Sharding::Optimizer), devices).unwrap();
        train(&mut trainer, rank, 2, 1);
        let sequences = sequences(1, 2);
        let mut own = passes(&sequences);
        if rank == 1 {
            own[1].clear();
        }
        let error = trainer.step(&own, STEPS).unwrap_err();
        // Nothing half done is saved.
        assert!(trainer.save(&folder.path().join("saved")).is_err());
        error
    });
    assert!(matches!(errors[1], Error::NothingToPredict), "{:?}", errors[1]);
    let named = matches!(&errors[0], Error::Rank { rank: 1, problem: RankProblem::Failed(_) });
    assert!(named && errors[0].to_string().contains("rank 1 has failed: the labels"), "{}", errors[0]);
    assert!(!folder.path().join("saved").exists());
}

#[test]
fn ranks_with_other_options_are_refused() {
    let (_folder, model) = folder_of(&shape());
    let errors = on_each(2, |rank, devices| {
        let options = FineTuneOptions { seed: rank as u64, ..options_for(2, Sharding::Optimizer) };
        let mut trainer = Trainer::new(&model, options, devices).unwrap();
        trainer.step(&passes(&sequences(0, 2)), STEPS).unwrap_err().to_string()
    });
    assert!(errors[0].starts_with("rank 1 computes something else"), "{errors:?}");
    assert!(errors[1].starts_with("rank 0 "), "{errors:?}");
}
