//! Ranks that are processes under MPI. Where there is no `mpirun`, this is left out, and says so.

use std::time::Duration;

use lumina_testing::mpi::{folder, is_there, mpirun};
use lumina_train::collective::{Collective, Mpi};
use lumina_train::vq::{DiscriminatorOptions, VqTrainingOptions};

use crate::ranks::files;
use crate::{batch, open, options, run, start};

fn options_on_ranks() -> VqTrainingOptions {
    let discriminator = DiscriminatorOptions { start: 2, layers: 1, channels: 4, weight: 0.5 };
    options().passes(4).max_gradient_norm(Some(1.0)).discriminator(Some(discriminator))
}

#[test]
#[ignore = "the processes of `processes_train_the_tokenizer_of_one`"]
fn trains() {
    let folder = folder();
    let mpi = Mpi::new(Duration::from_secs(120)).unwrap();
    let checkpoints = folder.join(format!("{} ranks", mpi.size()));
    let mut trainer = open(&folder.join("start"), options_on_ranks()).over(mpi);
    trainer.run(&checkpoints, |pass| Ok(batch(pass)), |_| ()).unwrap();
}

#[test]
fn processes_train_the_tokenizer_of_one() {
    if !is_there() {
        println!("no mpirun: left out");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    start(&folder.path().join("start"));
    run(&mut open(&folder.path().join("start"), options_on_ranks()), &folder.path().join("alone"));
    let expected = files(&folder.path().join("alone"));
    for ranks in [1, 2, 4] {
        let output = mpirun(ranks, "mpi::trains", folder.path()).unwrap().output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(files(&folder.path().join(format!("{ranks} ranks"))) == expected, "{ranks} ranks");
    }
}
