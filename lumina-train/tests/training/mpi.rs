//! Ranks that are processes under MPI: weights equal to the bit, and runs of which a process is killed or stopped.
//!
//! Where there is no `mpirun`, these tests say so and are left out.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use lumina_nn::Compute;
use lumina_testing::lcg;
use lumina_testing::mpi::{folder, is_there, mpirun, mpirun_by};
use lumina_train::collective::{Collective, Mpi};
use lumina_train::fine_tune::{ActivationMemory, Devices, FineTuneOptions, LoraOptions, NewModel, Sharding, Trainer};

use crate::ranks::{LAST, PASSES, SHARDINGS, Start, options_for, tensors, train};
use crate::small::{STEPS, Sequence, folder_of, shape};

/// The time limit of the processes that are killed.
const LIMIT: Duration = Duration::from_secs(3);
/// Their last step, and how often they save.
const LONG: u64 = 60;
const EVERY: u64 = 3;

/// What the processes are to share out, for those that are not told otherwise.
fn write_sharding(folder: &Path, sharding: Sharding) {
    std::fs::write(folder.join("sharding"), serde_json::to_vec(&sharding).unwrap()).unwrap();
}

/// Such options.
fn options_of(folder: &Path, ranks: usize) -> FineTuneOptions {
    let sharding = serde_json::from_slice(&std::fs::read(folder.join("sharding")).unwrap()).unwrap();
    FineTuneOptions { activation_memory: ActivationMemory::Recompute, ..options_for(ranks, sharding) }
}

fn starts(folder: &Path) -> [(&'static str, Start); 2] {
    let model = folder.join("model");
    let adapter = Some(folder.join("adapter"));
    [("all", Start { model: model.clone(), adapter: None }), ("adapter", Start { model, adapter })]
}

#[test]
#[ignore = "the processes of `processes_train_the_weights_of_one`"]
fn trains() {
    let folder = folder();
    let mpi = Mpi::new(Duration::from_secs(120)).unwrap();
    let (rank, ranks) = (mpi.rank(), mpi.size());
    let devices = Devices::over(mpi, Compute::cpu());
    for (kind, start) in starts(&folder) {
        for sharding in SHARDINGS {
            let at = |what: &str, ranks: usize| folder.join(format!("{what} {kind} {sharding:?} {ranks}"));
            let mut trainer = start.trainer(options_for(ranks, sharding), &devices);
            train(&mut trainer, rank, ranks, LAST / 2);
            trainer.save(&at("half", ranks)).unwrap();
            train(&mut trainer, rank, ranks, LAST);
            trainer.save(&at("ranks", ranks)).unwrap();
            if ranks < 4 {
                let mut trainer = Trainer::resume(&at("half", 4), options_for(ranks, sharding), &devices).unwrap();
                train(&mut trainer, rank, ranks, LAST);
                trainer.save(&at("resumed", ranks)).unwrap();
            }
        }
    }
}

#[test]
fn processes_train_the_weights_of_one() {
    let (folder, model) = folder_of(&shape());
    let folder = folder.path();
    if !is_there() {
        println!("no mpirun: left out");
        return;
    }
    LoraOptions::with_rank(4).create(&model, &folder.join("adapter"), &Compute::cpu()).unwrap();
    for ranks in [4, 2, 1] {
        let output = mpirun(ranks, "mpi::trains", folder).unwrap().output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    for (kind, start) in starts(folder) {
        let mut alone = start.trainer(options_for(1, Sharding::None), &[Compute::cpu()]);
        train(&mut alone, 0, 1, LAST);
        let saved = folder.join(format!("alone {kind}"));
        alone.save(&saved).unwrap();
        let expected = tensors(&saved);
        for sharding in SHARDINGS {
            for (what, ranks) in [("ranks", 1), ("ranks", 2), ("ranks", 4), ("resumed", 1), ("resumed", 2)] {
                let name = format!("{what} {kind} {sharding:?} {ranks}");
                assert!(tensors(&folder.join(&name)) == expected, "{name}");
            }
        }
    }
}

fn checkpoint(run: &Path, step: u64) -> PathBuf {
    run.join(format!("checkpoint-{step}"))
}

/// The step of the latest checkpoint.
fn latest(run: &Path) -> Option<u64> {
    (1..=LONG).rev().find(|&step| checkpoint(run, step).is_dir())
}

#[test]
#[ignore = "the processes of runs that do not end well"]
fn trains_long() {
    let folder = folder();
    let mpi = Mpi::new(LIMIT).unwrap();
    let (rank, ranks) = (mpi.rank(), mpi.size());
    std::fs::write(folder.join(format!("pid-{rank}")), std::process::id().to_string()).unwrap();
    // All have said who they are before there is a checkpoint, and look for the newest before there is another.
    let newest = latest(&folder);
    mpi.barrier().unwrap();
    let devices = Devices::over(mpi, Compute::cpu());
    let options = options_of(&folder, ranks);
    let mut trainer = match newest {
        Some(step) => Trainer::resume(&checkpoint(&folder, step), options, &devices).unwrap(),
        None => Trainer::new(&folder.join("model"), options, &devices).unwrap(),
    };
    while trainer.position().step < LONG {
        let next = trainer.position().step + EVERY;
        train(&mut trainer, rank, ranks, next);
        trainer.save(&checkpoint(&folder, next)).unwrap();
    }
}

fn signal(pid: &str, signal: &str) {
    assert!(Command::new("kill").args([signal, pid.trim()]).status().unwrap().success());
}

/// Waits for the end of a run, and returns whether it succeeded, and what it said.
fn end_of(mut child: Child, limit: Duration) -> (bool, String) {
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        assert!(begun.elapsed() < limit, "the run has not ended within {limit:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

fn wait_for_checkpoint(child: &mut Child, folder: &Path, step: u64) {
    let begun = Instant::now();
    while !checkpoint(folder, step).exists() {
        assert!(child.try_wait().unwrap().is_none(), "the run ended before its checkpoint");
        assert!(begun.elapsed() < Duration::from_secs(120), "no checkpoint");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The run goes on, undisturbed, and ends with the weights of one process.
fn ends_as_one_process(folder: &Path, model: PathBuf) {
    let (succeeded, said) = end_of(mpirun(2, "mpi::trains_long", folder).unwrap().spawn().unwrap(), 100 * LIMIT);
    assert!(succeeded, "{said}");
    let mut alone = Start { model, adapter: None }.trainer(options_for(1, Sharding::None), &[Compute::cpu()]);
    train(&mut alone, 0, 1, LONG);
    alone.save(&folder.join("alone")).unwrap();
    assert!(tensors(&checkpoint(folder, LONG)) == tensors(&folder.join("alone")));
}

/// `LUMINA_TEST_KILLS` is how many times, 4 by default.
#[test]
fn a_run_whose_process_is_killed_or_stopped_goes_on() {
    let (folder, model) = folder_of(&shape());
    let folder = folder.path();
    if !is_there() {
        println!("no mpirun: left out");
        return;
    }
    let kills = std::env::var("LUMINA_TEST_KILLS").map_or(4, |kills| kills.parse().unwrap());
    let mut choices = lcg(5).map(|state| state >> 16);
    for kill in 0..kills {
        // Fewer checkpoints than there are, so that no kill comes too late.
        if latest(folder).is_some_and(|step| step > LONG / 2) {
            for step in (1..=LONG).filter(|&step| checkpoint(folder, step).exists()) {
                std::fs::remove_dir_all(checkpoint(folder, step)).unwrap();
            }
        }
        let ranks = [2, 4][choices.next().unwrap() as usize % 2];
        let next = latest(folder).unwrap_or(0) + EVERY;
        let bad = choices.next().unwrap() as usize % ranks;
        let delay = Duration::from_millis(u64::from(choices.next().unwrap() % 60));
        // A run may go on with another sharding.
        write_sharding(folder, if kill / 2 % 2 == 0 { Sharding::Full } else { Sharding::Optimizer });
        let mut child = mpirun(ranks, "mpi::trains_long", folder).unwrap().spawn().unwrap();
        wait_for_checkpoint(&mut child, folder, next);
        std::thread::sleep(delay);
        let pid = std::fs::read_to_string(folder.join(format!("pid-{bad}"))).unwrap();
        let is_stop = kill % 2 == 1;
        signal(&pid, if is_stop { "-STOP" } else { "-KILL" });
        let (succeeded, said) = end_of(child, 10 * LIMIT);
        assert!(!succeeded, "{said}");
        // MPI itself notices a process that is gone.
        let named = if is_stop { format!("rank: {bad}, problem: Stalled(3s)") } else { "signal 9".to_owned() };
        assert!(said.contains(&named), "kill {kill}, {ranks} ranks, expected {named}: {said}");
    }
    ends_as_one_process(folder, model);
}

/// A process that can write no more, as on a full disk: here by its limit of the size of a file.
#[test]
fn a_rank_with_no_room_for_its_files_ends_the_run() {
    let (folder, model) = folder_of(&shape());
    let folder = folder.path();
    if !is_there() || Command::new("prlimit").arg("--version").output().is_err() {
        println!("no mpirun, or no prlimit: left out");
        return;
    }
    for (bad, sharding) in [(1, Sharding::Optimizer), (0, Sharding::Full)] {
        write_sharding(folder, sharding);
        let next = latest(folder).unwrap_or(0) + EVERY;
        // The signal of the limit would be the end of the process; without it the write fails.
        let starter = ["sh", "-c", "trap '' XFSZ; exec \"$@\"", "sh"];
        let mut child = mpirun_by(&starter, 2, "mpi::trains_long", folder).unwrap().spawn().unwrap();
        wait_for_checkpoint(&mut child, folder, next);
        let pid = std::fs::read_to_string(folder.join(format!("pid-{bad}"))).unwrap();
        let limited = Command::new("prlimit").args(["--pid", pid.trim(), "--fsize=4096"]).status().unwrap();
        assert!(limited.success());
        let (succeeded, said) = end_of(child, 10 * LIMIT);
        assert!(!succeeded && said.contains("File too large"), "{said}");
        assert!(said.contains(&format!("rank: {bad}, problem: Failed(")), "{said}");
        assert!(latest(folder).unwrap() < LONG, "the run ended before its limit");
    }
    ends_as_one_process(folder, model);
}

/// Memory of this process in bytes, as Linux calls it: its peak `VmHWM`, or what it is now, `VmRSS`.
fn memory(what: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':'));
    line.and_then(|line| line.trim().strip_suffix(" kB")).and_then(|kb| kb.parse::<u64>().ok()).unwrap_or(0) * 1024
}

#[test]
#[ignore = "the processes of `memory_and_speed`"]
fn measures() {
    let folder = folder();
    let mpi = Mpi::new(Duration::from_secs(300)).unwrap();
    let (rank, ranks) = (mpi.rank(), mpi.size());
    let options = options_of(&folder, ranks);
    let sharding = options.sharding;
    let mut trainer = Trainer::new(&folder.join("model"), options, Devices::over(mpi, Compute::cpu())).unwrap();
    let opened = memory("VmHWM") >> 20;
    let own: Vec<Sequence> = (rank..PASSES).step_by(ranks).map(|pass| Sequence::new(pass as u32, 512, 1)).collect();
    let own: Vec<_> = own.iter().map(|sequence| vec![sequence.example()]).collect();
    let mut step = || {
        let begun = Instant::now();
        trainer.step(&own, STEPS).unwrap();
        begun.elapsed()
    };
    step();
    let fastest = (0..4).map(|_| step()).min().unwrap();
    let [peak, between] = ["VmHWM", "VmRSS"].map(|what| memory(what) >> 20);
    let (held, threads) = (trainer.weights_held()[0], std::env::var("RAYON_NUM_THREADS").unwrap());
    println!(
        "{ranks} ranks of {threads} threads, {sharding:?}, rank {rank}: {fastest:?} a step, {opened} MB to open it, \
         peak of {peak} MB, {between} MB after a step, {held} weights"
    );
}

/// Not a test: it prints with
/// `cargo test -p lumina-train --features mpi --test training mpi::memory -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn memory_and_speed() {
    let large = NewModel {
        hidden_size: 512,
        intermediate_size: 1376,
        num_hidden_layers: 10,
        max_position_embeddings: 512,
        ..shape()
    };
    let (folder, _) = folder_of(&large);
    let [none, split, full] = SHARDINGS;
    let runs = [(none, 1, "2"), (none, 2, "1"), (none, 4, "1")].into_iter();
    let shared_out = [split, full].into_iter().flat_map(|sharding| [1, 2, 4].map(|ranks| (sharding, ranks, "1")));
    for (sharding, ranks, threads) in runs.chain(shared_out) {
        write_sharding(folder.path(), sharding);
        let mut command = mpirun(ranks, "mpi::measures", folder.path()).unwrap();
        let child = command.env("RAYON_NUM_THREADS", threads).spawn().unwrap();
        let (succeeded, said) = end_of(child, Duration::from_secs(600));
        assert!(succeeded, "{said}");
        said.lines().filter(|line| line.contains(" a step, ")).for_each(|line| println!("{line}"));
    }
}
