//! A run whose process is killed again and again ends where an undisturbed one does.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use lumina_core::Compute;
use lumina_core::checkpoint::Dtype;
use lumina_testing::lcg;
use lumina_train::fine_tune::Trainer;

use crate::small::{files, folder_of, options, shape, train};

/// Where the child finds model and run; it is a test of this program, started for this alone.
const RUN: &str = "LUMINA_TEST_RUN";
const LAST: u64 = 40;
const EVERY: u64 = 2;

fn checkpoint(run: &Path, step: u64) -> PathBuf {
    run.join(format!("checkpoint-{step}"))
}

/// The step of the latest checkpoint.
fn latest(run: &Path) -> Option<u64> {
    (0..=LAST).rev().find(|&step| checkpoint(run, step).is_dir())
}

/// Trains to the end from where the run is, keeping two checkpoints.
fn run_to_the_end(model: &Path, run: &Path) {
    std::fs::create_dir_all(run).unwrap();
    let devices = [Compute::cpu()];
    let mut trainer = match latest(run) {
        Some(step) => Trainer::resume(&checkpoint(run, step), options(), &devices).unwrap(),
        None => Trainer::new(model, options(), &devices).unwrap(),
    };
    while trainer.position().step < LAST {
        let next = trainer.position().step + EVERY;
        train(&mut trainer, next);
        trainer.save(&checkpoint(run, next)).unwrap();
        for old in (0..next.saturating_sub(EVERY)).map(|step| checkpoint(run, step)).filter(|old| old.exists()) {
            std::fs::remove_dir_all(old).unwrap();
        }
    }
    if !run.join("final").exists() {
        trainer.export(&run.join("final"), Dtype::F32).unwrap();
    }
}

#[test]
#[ignore = "the process that `a_killed_run_goes_on` kills"]
fn child() {
    let folder = PathBuf::from(std::env::var_os(RUN).unwrap());
    run_to_the_end(&folder.join("model"), &folder.join("run"));
}

fn start(folder: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "killed::child", "--ignored", "--nocapture"]).env(RUN, folder).stdout(Stdio::null());
    command.spawn().unwrap()
}

/// Kills the child once the file or folder is there; whether it was still at work.
fn kill_when(mut child: Child, there: &Path) -> bool {
    while !there.exists() {
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "the child failed");
            return false;
        }
        std::thread::yield_now();
    }
    // SIGKILL: nothing in the child runs after it.
    child.kill().unwrap();
    !child.wait().unwrap().success()
}

#[test]
fn a_killed_run_goes_on() {
    let (folder, model) = folder_of(&shape());
    let (run, undisturbed) = (folder.path().join("run"), folder.path().join("undisturbed"));
    run_to_the_end(&model, &undisturbed);
    let mut choices = lcg(11).map(|state| state >> 16);
    let mut kills = 0;
    for _ in 0..8 {
        let ahead = EVERY * u64::from(1 + choices.next().unwrap() % 2);
        let next = checkpoint(&run, latest(&run).unwrap_or(0) + ahead);
        let partial = next.with_extension("partial");
        // While the checkpoint is written, or in the steps after it.
        let there = match choices.next().unwrap() % 4 {
            0 => partial,
            1 => partial.join("model.safetensors"),
            2 => partial.join("optimizer.safetensors"),
            _ => next,
        };
        kills += u32::from(kill_when(start(folder.path()), &there));
    }
    assert!(kills >= 3, "the child was killed {kills} times only");
    let status = start(folder.path()).wait().unwrap();
    assert!(status.success());
    for part in ["final", &format!("checkpoint-{LAST}")] {
        let (expected, found) = (files(&undisturbed.join(part)), files(&run.join(part)));
        assert!(expected.keys().eq(found.keys()), "{part}");
        for (name, bytes) in &expected {
            assert!(*bytes == found[name], "{part}/{name}");
        }
    }
}
