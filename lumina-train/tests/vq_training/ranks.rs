//! Training on ranks, which share the passes of a step.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use image::RgbImage;
use lumina_checkpoint::Dtype;
use lumina_nn::Compute;
use lumina_train::collective::Threads;
use lumina_train::vq::{CodebookStart, CodebookUpdate, VqStepReport, VqTrainer, VqTrainingOptions};
use lumina_train::{Error, RunEvent};

use crate::{DISCRIMINATOR, batch, bytes, open, options, run, start};

/// Trains on each rank of a group to the end, or until a step, and returns the reports of the first.
fn run_on_ranks(ranks: usize, folder: &Path, stop: u64, open: impl Fn() -> VqTrainer + Sync) -> Vec<VqStepReport> {
    std::thread::scope(|scope| {
        let start = |rank: Threads| {
            let open = &open;
            scope.spawn(move || {
                let mut steps = Vec::new();
                let observe = |event: RunEvent<'_, VqStepReport>| {
                    if let RunEvent::Step(step) = event {
                        steps.push(step.clone());
                        return if step.step == stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
                    }
                    ControlFlow::Continue(())
                };
                open().over(Arc::new(rank)).run(folder, |pass| Ok(batch(pass)), observe).unwrap();
                steps
            })
        };
        let threads: Vec<_> = Threads::group(ranks, Duration::from_secs(120)).into_iter().map(start).collect();
        let mut steps: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert!(steps.windows(2).all(|pair| pair[0] == pair[1]), "all ranks report the same");
        steps.swap_remove(0)
    })
}

/// With all that ranks share: passes, the bound of the gradient, and a discriminator.
pub(crate) fn with_discriminator() -> VqTrainingOptions {
    options().passes(4).max_gradient_norm(Some(1.0)).discriminator(Some(DISCRIMINATOR))
}

/// The last checkpoint of a run: the names of its files, and their bytes.
pub(crate) fn files(run: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(run.join("step-0000000006")).unwrap().map(Result::unwrap);
    let mut files: Vec<_> =
        entries.map(|entry| (entry.file_name().into_string().unwrap(), bytes(&entry.path()))).collect();
    files.sort();
    files
}

/// To the bit: passes of a step on ranks, in their number or in another one, and on another number after a stop.
#[test]
fn ranks_train_the_tokenizer_of_one() {
    for options in [with_discriminator(), with_discriminator().discriminator(None).codebook(CodebookUpdate::Gradient)] {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        start(&at("start"));
        let whole = run(&mut open(&at("start"), options.clone()), &at("alone"));
        assert!(whole.iter().all(|step| step.images == 16), "four passes of four images");
        assert_eq!(whole[0].codes_revived, 32, "all ranks get the codes that the first pass makes");
        let expected = files(&at("alone"));
        for (ranks, then) in [(1, 2), (2, 4), (3, 1), (4, 3), (5, 2)] {
            let name = format!("{ranks} then {then}");
            let first = run_on_ranks(ranks, &at(&name), 3, || open(&at("start"), options.clone()));
            let rest = run_on_ranks(then, &at(&name), u64::MAX, || {
                VqTrainer::resume(at(&name), options.clone(), &Compute::cpu()).unwrap()
            });
            assert_eq!([first, rest].concat(), whole, "{name}");
            assert!(files(&at(&name)) == expected, "{name}");
        }
    }
}

/// Twice the same images are as good as once.
#[test]
fn a_step_takes_the_mean_of_its_passes() {
    let folder = tempfile::tempdir().unwrap();
    start(folder.path());
    let options = || options().codebook(CodebookUpdate::Gradient).codebook_start(CodebookStart::File);
    let [mut once, mut twice] = [(); 2].map(|()| open(folder.path(), options()));
    let images = batch(0);
    let (expected, found) = (once.step(&images).unwrap(), twice.step_on_passes(&[&images, &images]).unwrap());
    assert_eq!((found.loss, found.gradient_norm), (expected.loss, expected.gradient_norm));
    assert_eq!((found.images, expected.images), (8, 4));
    let weights = |trainer: &VqTrainer, name: &str| {
        trainer.export(folder.path().join(name), Dtype::F32).unwrap();
        bytes(&folder.path().join(name).join("vqgan.safetensors"))
    };
    assert!(weights(&once, "once") == weights(&twice, "twice"));
    let mut other = open(folder.path(), options());
    other.step_on_passes(&[&images, &batch(1)]).unwrap();
    assert!(weights(&once, "once") != weights(&other, "other"), "the second pass counts");
}

/// A rank whose images cannot be made, and one with images that do not fit.
#[test]
fn a_rank_that_fails_ends_the_others() {
    let folder = tempfile::tempdir().unwrap();
    start(folder.path());
    let run = |bad: fn(u64) -> Result<Vec<RgbImage>, Error>, name: &str| {
        let checkpoints = folder.path().join(name);
        std::thread::scope(|scope| {
            let start = |rank: Threads| {
                let (folder, checkpoints) = (folder.path(), &checkpoints);
                scope.spawn(move || {
                    let images = move |pass| if pass == 5 { bad(pass) } else { Ok(batch(pass)) };
                    let mut trainer = open(folder, options().passes(2)).over(rank);
                    trainer.run(checkpoints, images, |_| ()).unwrap_err().to_string()
                })
            };
            let threads: Vec<_> = Threads::group(2, Duration::from_secs(60)).into_iter().map(start).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        })
    };
    let errors = run(|_| Err(Error::NoImages), "missing");
    assert!(errors[1].starts_with("no images were given"), "{errors:?}");
    assert_eq!(errors[0], "rank 1 has failed: its images could not be made");
    let errors = run(|_| Ok(vec![RgbImage::new(15, 16)]), "odd");
    assert!(errors[1].starts_with("step 2: ") && errors[1].contains("multiples of 2"), "{errors:?}");
    assert!(errors[0].starts_with("rank 1 has failed: step 2: "), "{errors:?}");
}
