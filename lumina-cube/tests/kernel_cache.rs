//! Kernels on disk, between starts of a program: each start is a process, as CubeCL is configured once in one.
#![cfg(all(feature = "kernel-cache", any(feature = "cuda", feature = "vulkan")))]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a panic is the failure, a print the report")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};
use cubecl_environment::persistence::{Access, Database};
use lumina_cube::elementwise::add_scaled;

/// Says to a start that it is one, and which.
const START: &str = "LUMINA_TEST_START";

/// What a program does; here also a test, which does nothing unless it is started as a program.
#[test]
fn start() {
    let Ok(kind) = std::env::var(START) else { return };
    if kind == "configured" {
        assert!(CubeClRuntimeConfig::try_set(CubeClRuntimeConfig::default()));
    }
    let Some(gpu) = support::gpu() else {
        println!("no GPU");
        return;
    };
    let (x, y) = (gpu.upload_f32(&[1.0, 2.0]), gpu.upload_f32(&[10.0, 20.0]));
    assert_eq!(gpu.read_f32(&add_scaled(&gpu, &x, &y, 0.5)).unwrap(), [6.0, 12.0]);
    println!("done on {}", gpu.name());
}

/// Starts a program with its cache in `folder`; whether it ran, on a device whose kernels are kept.
fn started(folder: &Path, kind: &str) -> bool {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "start", "--nocapture", "--test-threads=1"])
        .env(START, kind)
        .env("LUMINA_KERNEL_CACHE", folder)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{kind}: {text}\n{}", String::from_utf8_lossy(&output.stderr));
    if text.contains("done on cuda") || text.contains("done on wgpu<spirv>") {
        return true;
    }
    eprintln!("left out: {}", text.lines().find(|line| line.contains("on")).unwrap_or_default());
    false
}

/// The one database of a folder.
fn database(folder: &Path) -> PathBuf {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.into_iter().find(|file| file.extension().is_some_and(|extension| extension == "db")).expect("a database")
}

/// Keys and values of all kernels, in the order of keys.
fn kernels(folder: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let database = Database::open_at(&database(folder), Access::ReadWrite).unwrap();
    let mut kernels = Vec::new();
    for namespace in database.namespaces() {
        database.scan(&namespace, &mut |key, value| kernels.push((key.to_vec(), value.to_vec())));
    }
    kernels.sort();
    kernels
}

#[test]
fn a_later_start_takes_kernels_from_disk() {
    let folder = tempfile::tempdir().unwrap();
    if !started(folder.path(), "first") {
        return;
    }
    let kept = kernels(folder.path());
    assert!(!kept.is_empty());
    // An entry that is none is what a start finds, and mends; one that is whole stays.
    {
        let database = Database::open_at(&database(folder.path()), Access::ReadWrite).unwrap();
        let namespace = database.namespaces().into_iter().next().unwrap();
        database.replace(&namespace, &kept[0].0, b"none", cubecl_environment::persistence::Origin::Local);
    }
    assert_ne!(kernels(folder.path()), kept);
    assert!(started(folder.path(), "second"));
    assert_eq!(kernels(folder.path()), kept);
    assert!(started(folder.path(), "third"));
    assert_eq!(kernels(folder.path()), kept);
}

/// Files of a folder with what is in them.
fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.map(|file| (file.clone(), std::fs::read(&file).unwrap())).collect()
}

/// Each file that a start leaves, and the one file into which they can be folded, damaged in several ways.
#[test]
fn a_damaged_file_is_begun_again() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    if !started(folder, "first") {
        return;
    }
    let as_left = contents(folder);
    let kept = kernels(folder);
    Database::open_at(&database(folder), Access::ReadWrite).unwrap().into_standalone().unwrap();
    let folded = contents(folder);
    for files in [as_left, folded] {
        for damaged in 0..files.len() {
            for damage in 0..4 {
                for (file, _) in contents(folder) {
                    std::fs::remove_file(file).unwrap();
                }
                for (index, (file, whole)) in files.iter().enumerate() {
                    let mut bytes = whole.clone();
                    let len = bytes.len();
                    match damage {
                        _ if index != damaged => {}
                        0 => bytes = b"no database".to_vec(),
                        1 => bytes.truncate(len / 2),
                        2 => bytes.fill(0),
                        _ => bytes.iter_mut().skip(100).step_by(61).for_each(|byte| *byte ^= 0x55),
                    }
                    std::fs::write(file, bytes).unwrap();
                }
                let what = format!("{:?}, {damage}", files[damaged].0.file_name());
                assert!(started(folder, "damaged") && started(folder, "after it"), "{what}");
                let keys =
                    |kernels: &[(Vec<u8>, Vec<u8>)]| kernels.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>();
                assert_eq!(keys(&kernels(folder)), keys(&kept), "{what}");
            }
        }
    }
}

#[test]
fn a_folder_that_cannot_be_written_is_no_error() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    started(&file.join("kernels"), "below a file");
    // Root writes there nevertheless.
    let locked = folder.path().join("locked");
    std::fs::create_dir(&locked).unwrap();
    let mut permissions = std::fs::metadata(&locked).unwrap().permissions();
    permissions.set_readonly(true);
    std::fs::set_permissions(&locked, permissions).unwrap();
    started(&locked, "read only");
    started(Path::new("off"), "off");
    assert!(!Path::new("off").exists());
}

#[test]
fn a_configuration_of_the_program_is_left() {
    let folder = tempfile::tempdir().unwrap();
    if started(folder.path(), "configured") {
        assert!(kernels(folder.path()).is_empty());
    }
}

#[test]
fn programs_that_start_at_once_share_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let ran = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..4).map(|_| scope.spawn(|| started(folder.path(), "at once"))).collect();
        starts.into_iter().all(|start| start.join().unwrap())
    });
    if ran {
        assert!(started(folder.path(), "after them"));
        assert!(!kernels(folder.path()).is_empty());
    }
}
