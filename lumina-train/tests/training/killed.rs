//! A run whose process is killed again and again ends where an undisturbed one does.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::SystemTime;

use lumina_checkpoint::Dtype;
use lumina_nn::Compute;
use lumina_testing::lcg;
use lumina_train::fine_tune::Trainer;

use crate::small::{files, folder_of, options, shape, train};

/// The folder of model and run, for the child: a test of this program, started for this alone.
const RUN: &str = "LUMINA_TEST_RUN";
/// The step at which the child waits, so that a parent that gets no processor time can still kill it.
const HOLD: &str = "LUMINA_TEST_HOLD";
const LAST: u64 = 40;
const EVERY: u64 = 2;

fn checkpoint(run: &Path, step: u64) -> PathBuf {
    run.join(format!("checkpoint-{step}"))
}

/// The step of the latest checkpoint.
fn latest(run: &Path) -> Option<u64> {
    (0..=LAST).rev().find(|&step| checkpoint(run, step).is_dir())
}

/// Trains to the end from the newest checkpoint, keeping two; `saved` gets the step of each.
fn run_to_the_end(model: &Path, run: &Path, saved: impl Fn(u64)) {
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
        saved(next);
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
    let hold: Option<u64> = std::env::var(HOLD).ok().map(|step| step.parse().unwrap());
    run_to_the_end(&folder.join("model"), &folder.join("run"), |step| {
        if hold == Some(step) {
            // Ends with the parent, whose end of the pipe closes.
            std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
            panic!("not killed at step {step}");
        }
    });
}

fn start(folder: &Path, hold: Option<u64>) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "killed::child", "--ignored", "--nocapture"]).env(RUN, folder);
    if let Some(step) = hold {
        command.env(HOLD, step.to_string());
    }
    command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
}

/// Starts the child, and kills it once it has written one of these files or folders; what an earlier child left does
/// not count.
fn kill_when(folder: &Path, hold: u64, written: &[PathBuf]) {
    let started = SystemTime::now();
    let fresh = |path: &PathBuf| path.metadata().and_then(|found| found.modified()).is_ok_and(|time| time > started);
    let mut child = start(folder, Some(hold));
    while !written.iter().any(fresh) {
        assert!(child.try_wait().unwrap().is_none(), "the child ended before it was killed");
        std::thread::yield_now();
    }
    // SIGKILL: nothing in the child runs after it.
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().code(), None, "the child ended before it was killed");
}

#[test]
fn a_killed_run_goes_on() {
    let (folder, model) = folder_of(&shape());
    let (run, undisturbed) = (folder.path().join("run"), folder.path().join("undisturbed"));
    run_to_the_end(&model, &undisturbed, |_| ());
    let mut choices = lcg(11).map(|state| state >> 16);
    // Three intervals at most for each, so that the last is killed before the end.
    for _ in 0..6 {
        let next = latest(&run).unwrap_or(0) + EVERY * u64::from(1 + choices.next().unwrap() % 2);
        let partial = checkpoint(&run, next).with_extension("partial");
        // While the checkpoint is written, or in the steps after it.
        let there = match choices.next().unwrap() % 4 {
            0 => partial,
            1 => partial.join("model.safetensors"),
            2 => partial.join("optimizer.safetensors"),
            _ => checkpoint(&run, next),
        };
        let hold = next + EVERY;
        kill_when(folder.path(), hold, &[there, checkpoint(&run, hold)]);
    }
    let status = start(folder.path(), None).wait().unwrap();
    assert!(status.success());
    for part in ["final", &format!("checkpoint-{LAST}")] {
        let (expected, found) = (files(&undisturbed.join(part)), files(&run.join(part)));
        assert!(expected.keys().eq(found.keys()), "{part}");
        for (name, bytes) in &expected {
            assert!(*bytes == found[name], "{part}/{name}");
        }
    }
}
