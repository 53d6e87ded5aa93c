//! Tests whose processes MPI starts. Each process is the same program, started for one ignored test alone.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The variable with the folder of what the processes read and write.
const FOLDER: &str = "LUMINA_TEST_MPI";

/// The folder, in a process that was started by [`mpirun`].
pub fn folder() -> PathBuf {
    PathBuf::from(std::env::var_os(FOLDER).expect("a test whose processes `mpirun` starts"))
}

/// Whether processes can be started.
pub fn is_there() -> bool {
    mpirun(1, "", Path::new("")).is_some()
}

/// The command that starts processes of this test, if there is one. Each has one thread.
pub fn mpirun(ranks: usize, test: &str, folder: &Path) -> Option<Command> {
    mpirun_by(&[], ranks, test, folder)
}

/// The same, of processes that another program starts, which is the first of `starter`.
pub fn mpirun_by(starter: &[&str], ranks: usize, test: &str, folder: &Path) -> Option<Command> {
    let found = Command::new("mpirun").arg("--version").output().ok()?;
    let mut command = Command::new("mpirun");
    // An option of Open MPI; MPICH needs none.
    if String::from_utf8_lossy(&found.stdout).contains("Open MPI") {
        command.args(["--oversubscribe", "--bind-to", "none"]);
        command.envs([("OMPI_ALLOW_RUN_AS_ROOT", "1"), ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")]);
    }
    command.args(["-n", &ranks.to_string()]).args(starter).arg(std::env::current_exe().ok()?);
    command.args(["--exact", test, "--ignored", "--nocapture"]).env(FOLDER, folder).env("RAYON_NUM_THREADS", "1");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Some(command)
}
