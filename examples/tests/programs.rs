//! What the programs do where an output is closed or full, and what they say of files that are missing or broken and of
//! numbers out of range.
#![allow(clippy::unwrap_used, reason = "a test's panic is its failure")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use lumina_examples::small_model;

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

fn errors_of(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Short runs of the programs that write to the standard output.
const RUNS: [(&str, &[&str]); 8] = [
    ("caption", &[]),
    ("chat", &["a small red circle"]),
    ("custom_sampler", &[]),
    ("edit", &[]),
    ("embed", &[]),
    ("generate", &[]),
    ("quantize", &["small.gguf"]),
    ("reconstruct", &[]),
];

fn helps_and_runs() -> impl Iterator<Item = (&'static str, &'static [&'static str])> {
    PROGRAMS.into_iter().map(|name| (name, &["--help"][..])).chain(RUNS)
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

/// `program | head -0`: the reader has gone, which is no error.
#[test]
fn a_closed_output_ends_a_program_quietly() {
    let folder = tempfile::tempdir().unwrap();
    for (name, args) in helps_and_runs() {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = program(name, folder.path()).args(args).stdout(writer).output().unwrap();
        let errors = errors_of(&output);
        assert!(output.status.success(), "{name}: {}: {errors}", output.status);
        assert!(!errors.contains("panic") && !errors.contains("rror"), "{name}: {errors}");
    }
}

/// Nobody reads the notes: the work goes on.
#[test]
fn a_closed_error_output_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for (name, args) in RUNS {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = program(name, folder.path()).args(args).stderr(writer).output().unwrap();
        assert!(output.status.success() && !output.stdout.is_empty(), "{name}: {}", output.status);
    }
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let failed = program("caption", folder.path()).arg("nowhere").stderr(writer).status().unwrap();
    assert_eq!(failed.code(), Some(1));
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_output_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    for (name, args) in helps_and_runs() {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = program(name, folder.path()).args(args).stdout(full).output().unwrap();
        let errors = errors_of(&output);
        assert_eq!(output.status.code(), Some(1), "{name}: {errors}");
        assert!(errors.contains("the standard output cannot be written"), "{name}: {errors}");
        assert!(errors.contains("No space left") && !errors.contains("panic"), "{name}: {errors}");
    }
}

/// Parts of a message of several words, between punctuation.
fn phrases(message: &str) -> Vec<&str> {
    let parts = message.split(['\n', ';', ',', '(', ')']).flat_map(|part| part.split(": "));
    parts.map(str::trim).filter(|part| part.split_whitespace().count() >= 3).collect()
}

/// What is wrong with the end of a program, if anything is.
fn complaint(name: &str, args: &[&str], output: &Output) -> Option<String> {
    let errors = errors_of(output);
    let phrases = phrases(&errors);
    let different: BTreeSet<&str> = phrases.iter().copied().collect();
    let is_good = output.status.code() == Some(1) && !phrases.is_empty() && phrases.len() == different.len();
    (!is_good).then(|| format!("{name} {args:?}, {}: {errors}", output.status))
}

#[test]
fn messages_of_bad_files_say_nothing_twice() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    fs::write(at("text.png"), "no image").unwrap();
    fs::write(at("cut.png"), &fs::read(small_model().join("scene.png")).unwrap()[..300]).unwrap();
    fs::write(at("cut.gguf"), b"GGUF\x03\0\0\0").unwrap();
    fs::write(at("not.json"), "{").unwrap();
    fs::write(at("list.yaml"), "META: [{path: nowhere.json}]").unwrap();
    let files = ["nowhere", "text.png", "cut.png", "cut.gguf", "not.json", "list.yaml", "."].map(at);
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
