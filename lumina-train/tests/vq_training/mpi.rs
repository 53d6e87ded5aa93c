//! Ranks that are processes under MPI. Where there is no `mpirun`, this is left out, and says so.

use std::time::Duration;

use lumina_testing::mpi::{folder, is_there, mpirun};
use lumina_train::collective::{Collective, Mpi};

use crate::ranks::{files, with_discriminator};
use crate::{batch, open, run, start};

#[test]
#[ignore = "the processes of `processes_train_the_tokenizer_of_one`"]
fn trains() {
    let folder = folder();
    let mpi = Mpi::new(Duration::from_secs(120)).unwrap();
    let checkpoints = folder.join(format!("{} ranks", mpi.size()));
    let mut trainer = open(&folder.join("start"), with_discriminator()).over(mpi);
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
    run(&mut open(&folder.path().join("start"), with_discriminator()), &folder.path().join("alone"));
    let expected = files(&folder.path().join("alone"));
    for ranks in [1, 2, 4] {
        let output = mpirun(ranks, "mpi::trains", folder.path()).unwrap().output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(files(&folder.path().join(format!("{ranks} ranks"))) == expected, "{ranks} ranks");
    }
}
