//! What the programs do where an output is closed or full, and what they say of files that are missing or broken and of
//! numbers out of range.
#![allow(clippy::unwrap_used, reason = "a test's panic is its failure")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use lumina_examples::small_model;
use lumina_testing::programs::{Programs, Run, bad_files, complaint};

const PROGRAMS: [&str; 13] = [
    "caption",
    "chat",
    "custom_sampler",
    "edit",
    "embed",
    "evaluate",
    "finetune",
    "generate",
    "pretokenize",
    "quantize",
    "random_model",
    "reconstruct",
    "train_tiny",
];

/// A program that cargo has built along with this test, in a folder of its own.
fn program(name: &str, folder: &Path) -> Command {
    let test = std::env::current_exe().unwrap();
    let file =
        test.ancestors().nth(2).unwrap().join("examples").join(name).with_extension(std::env::consts::EXE_EXTENSION);
    assert!(file.exists(), "{} is not built: run `cargo test -p lumina-examples`", file.display());
    let mut command = Command::new(file);
    command.current_dir(folder).stdin(Stdio::null()).env("RUST_BACKTRACE", "0");
    command
}

/// Short runs of the programs that write to the standard output.
const RUNS: [Run; 8] = [
    ("caption", &[]),
    ("chat", &["a small red circle"]),
    ("custom_sampler", &[]),
    ("edit", &[]),
    ("embed", &[]),
    ("generate", &[]),
    ("quantize", &["small.gguf"]),
    ("reconstruct", &[]),
];

fn all() -> Programs<'static> {
    Programs { names: &PROGRAMS, runs: &RUNS, failing: ("caption", &["nowhere"]), command: program }
}

#[test]
fn every_program_is_listed_here_and_in_the_readme() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let built = manifest.split("[[example]]\nname = \"").skip(1).map(|entry| entry.split('"').next().unwrap());
    assert_eq!(built.collect::<BTreeSet<_>>(), PROGRAMS.into());
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    for name in PROGRAMS {
        assert!(readme.contains(&format!("| [`{name}`]({name}")), "{name}");
    }
}

#[test]
fn a_closed_output_ends_a_program_quietly() {
    all().a_closed_output_ends_quietly(tempfile::tempdir().unwrap().path());
}

#[test]
fn a_closed_error_output_changes_nothing() {
    all().a_closed_error_output_changes_nothing(tempfile::tempdir().unwrap().path());
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_output_is_an_error() {
    all().a_full_output_is_an_error(tempfile::tempdir().unwrap().path());
}

#[test]
fn messages_of_bad_files_say_nothing_twice() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let files = bad_files(folder.path(), &small_model().join("scene.png"));
    let mut complaints = Vec::new();
    let mut runs: Vec<(&str, Vec<String>)> = Vec::new();
    let mut run = |name, args: &[&str]| runs.push((name, args.iter().map(|&arg| arg.to_owned()).collect()));
    let small = small_model();
    let small = small.to_str().unwrap();
    for file in &files {
        for name in ["caption", "embed", "reconstruct"] {
            run(name, &[file]);
        }
        run("edit", &["make it black", file]);
        run("custom_sampler", &["--towards", file]);
        run("finetune", &[small, file, &at("run")]);
        run("finetune", &[file, &at("list.yaml"), &at("run")]);
        run("pretokenize", &[file, "--strict", "--output", &at("tokens")]);
        for flag in ["--model", "--image-tokenizer", "--tokenizer", "--adapter"] {
            run("evaluate", &[flag, file]);
        }
    }
    for output in [".", "text.png/x.png", "x.pdf"].map(at) {
        for name in ["embed", "reconstruct", "custom_sampler"] {
            run(name, &["--output", &output]);
        }
    }
    run("quantize", &[&at(".")]);
    run("random_model", &[&at(".")]);
    run("train_tiny", &[&at("text.png")]);
    for (name, args) in &runs {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        complaints.extend(complaint(name, &args, &program(name, folder.path()).args(&args).output().unwrap()));
    }
    assert!(complaints.is_empty(), "said twice, or no error:\n{}", complaints.join("\n"));
    assert!(runs.len() > 60, "{}", runs.len());
}
