//! What the commands do where an output is closed or full, and what they say of files that are missing or broken and of
//! numbers out of range.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's panic is its failure")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use lumina_cli::small_model;
use lumina_testing::model_of_small_images;
use lumina_testing::programs::{Programs, Run, bad_files, complaint, errors_of};

const COMMANDS: [&str; 9] =
    ["caption", "chat", "doctor", "download", "edit", "generate", "generate-many", "quantize", "serve"];

/// A command of the program, in a folder of its own.
fn program(name: &str, folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lumina"));
    command.arg(name).current_dir(folder).stdin(Stdio::null());
    command.env("RUST_BACKTRACE", "0").env("HF_HUB_OFFLINE", "1").env("LUMINA_MODEL", model_of_small_images());
    command
}

/// Short runs of the commands that write to the standard output.
const RUNS: [Run; 6] = [
    ("caption", &[]),
    ("chat", &["draw a small red circle"]),
    ("doctor", &["--open"]),
    ("edit", &[]),
    ("generate", &["-n", "2"]),
    ("quantize", &["small.gguf"]),
];

fn all() -> Programs<'static> {
    Programs { names: &COMMANDS, runs: &RUNS, failing: ("generate", &["--model", "nowhere"]), command: program }
}

#[test]
fn every_command_is_in_the_help_and_in_the_readme() {
    let folder = tempfile::tempdir().unwrap();
    let output = program("--help", folder.path()).output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    for name in COMMANDS {
        assert!(help.contains(&format!("\n  {name} ")), "{help}");
        assert!(readme.contains(&format!("| `lumina {name}")), "{name}");
    }
}

/// With `--json` each line of the standard output is an object, and has what the command made.
#[test]
fn results_as_json() {
    let folder = tempfile::tempdir().unwrap();
    let lines = |name: &str, args: &[&str]| -> Vec<serde_json::Value> {
        let output = program(name, folder.path()).arg("--json").args(args).output().unwrap();
        assert!(output.status.success(), "{name}: {}", errors_of(&output));
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))).collect()
    };
    let drawn = lines("generate", &["--seed", "3", "-o", "a.png"]).remove(0);
    assert!(drawn["seed"] == 3 && drawn["stats"]["generated_tokens"].as_u64() > Some(36), "{drawn}");
    assert!(folder.path().join(drawn["file"].as_str().unwrap()).exists());
    let several = lines("generate", &["-n", "2", "-o", "b.png"]);
    assert_eq!(several.len(), 3);
    assert!(several[1]["seed"] == 1 && several[2]["contact_sheet"] == "b.png", "{several:?}");
    fs::write(folder.path().join("prompts.txt"), "a small red circle on a white background\n\n a large blue square\n")
        .unwrap();
    let prompts = lines("generate", &["--prompts", "prompts.txt", "-n", "2", "-o", "c.png"]);
    let files: Vec<&str> = prompts[..4].iter().map(|line| line["file"].as_str().unwrap()).collect();
    assert_eq!(files, ["c-1-0.png", "c-1-1.png", "c-2-0.png", "c-2-1.png"]);
    assert_eq!((prompts.len(), prompts[4]["contact_sheet"].as_str()), (5, Some("c.png")));
    let strip = lines("generate", &["--preview-every", "2", "--strip", "d.png"]);
    assert_eq!(strip[1]["strip"], "d.png");
    let (one, all) = ["out/generate.png", "d.png"].map(|file| image::open(folder.path().join(file)).unwrap()).into();
    assert!(all.width() > 2 * one.width(), "parts beside the whole");
    let caption = lines("caption", &["a.png"]).remove(0);
    assert!(caption["text"].as_str().unwrap().contains("circle"), "{caption}");
    assert!(lines("edit", &["depth_estimation", "a.png"])[0]["file"].is_string());
    let turns = lines("chat", &["draw a small red circle on a white background", "make the red circle blue"]);
    assert!(turns.len() == 2 && turns[0]["images"].as_array().unwrap().len() == 1, "{turns:?}");
    assert!(lines("quantize", &["small.gguf"])[0]["bytes"].as_u64() > Some(100_000));
    let doctor = lines("doctor", &["--open"]).remove(0);
    assert!(doctor["machine"]["threads"].as_u64() > Some(0), "{doctor}");
    let formats = doctor["model"]["fits"][0]["formats"].as_array().unwrap();
    let weights: Vec<u64> = formats.iter().map(|format| format["weights_bytes"].as_u64().unwrap()).collect();
    assert!(weights.len() == 3 && weights[0] > weights[1] && weights[1] > weights[2], "{doctor}");
    assert!(formats.iter().all(|format| format["fits"] == "yes"), "{doctor}");
    assert_eq!(doctor["model"]["opened"]["draws_images"], true);
}

/// Whoever names the tokenizer is not told to name one, and without one is.
#[test]
fn doctor_looks_at_the_tokenizer_that_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    fs::create_dir(&model).unwrap();
    for file in fs::read_dir(small_model()).unwrap() {
        let file = file.unwrap();
        if file.file_type().unwrap().is_file() && file.file_name() != "tokenizer.json" {
            fs::copy(file.path(), model.join(file.file_name())).unwrap();
        }
    }
    let said = |args: &[&std::ffi::OsStr]| {
        let output = program("doctor", folder.path()).arg("--model").arg(&model).args(args).output().unwrap();
        assert!(output.status.success(), "{}", errors_of(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let without = said(&[]);
    assert!(without.contains("no text tokenizer: name one with --tokenizer"), "{without}");
    let with = said(&["--tokenizer".as_ref(), small_model().as_os_str()]);
    assert!(with.contains("tokenizer.json: SHA-256 ") && !with.contains("no text tokenizer"), "{with}");
}

/// Ctrl-C while a model is written leaves no file, whole or not.
#[cfg(unix)]
#[test]
fn an_interrupted_conversion_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    fs::create_dir(&model).unwrap();
    fs::copy(small_model().join("config.json"), model.join("config.json")).unwrap();
    // Two gigabytes of zeros, which take no space, and some seconds to convert.
    let header = r#"{"model.layers.0.mlp.down_proj.weight":{"dtype":"BF16","shape":[65536,16384],"data_offsets":[0,2147483648]}}"#;
    let header = format!("{header:<120}");
    let file = model.join("model.safetensors");
    fs::write(&file, [&120_u64.to_le_bytes()[..], header.as_bytes()].concat()).unwrap();
    fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(128 + (1 << 31)).unwrap();

    let mut child = program("quantize", folder.path());
    let child = child.arg("--model").arg(&model).arg("out/large.gguf").stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = child.spawn().unwrap();
    let files = || fs::read_dir(folder.path().join("out")).map_or(0, Iterator::count);
    lumina_testing::wait_until("writing", || files() > 0 || child.try_wait().unwrap().is_some());
    Command::new("kill").args(["-s", "INT", &child.id().to_string()]).status().unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(!output.status.success() && errors_of(&output).contains("not written, as asked"), "{}", errors_of(&output));
    assert_eq!(files(), 0, "what is left");
}

/// `serve` opens a model as the other commands do: by the same flags, and the small one where none is named.
#[test]
fn serve_takes_the_model_as_the_others_do() {
    let folder = tempfile::tempdir().unwrap();
    let help = |name: &str| {
        let output = program(name, folder.path()).arg("--help").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let flags = text.lines().filter_map(|line| line.trim_start().strip_prefix("--")?.split(' ').next());
        flags.map(str::to_owned).collect::<std::collections::BTreeSet<_>>()
    };
    let (generate, serve) = (help("generate"), help("serve"));
    for flag in ["model", "image-tokenizer", "target-size", "device", "kv-cache", "weights"] {
        assert!(generate.contains(flag) && serve.contains(flag), "{flag}: {generate:?} {serve:?}");
    }
    let output = program("serve", folder.path()).args(["--compute", "cpu", "--max-n", "0"]).output().unwrap();
    assert!(errors_of(&output).contains("`max_n` is 0"), "{}", errors_of(&output));
}

/// The environment names the model where no flag does.
#[test]
fn the_model_of_the_environment() {
    let folder = tempfile::tempdir().unwrap();
    let output = program("caption", folder.path()).env("LUMINA_MODEL", "nowhere").output().unwrap();
    assert!(errors_of(&output).contains("nowhere"), "{}", errors_of(&output));
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

/// A model of few words names those of a prompt that it does not know, and works all the same.
#[test]
fn unknown_words_are_noted_once_a_prompt() {
    let folder = tempfile::tempdir().unwrap();
    let config = fs::read(model_of_small_images().join("generation_config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    config["lumina"]["words"] = serde_json::json!(["red", "a", "Circle", "make", "the", "black", "background"]);
    let model = broken_model(folder.path(), "generation_config.json", config.to_string().as_bytes());
    let known = "it knows: a, background, black, circle, make, red, the";
    let warnings = |model: &Path, name: &str, args: &[&str]| -> Vec<String> {
        let output = program(name, folder.path()).arg("--model").arg(model).args(args).output().unwrap();
        assert!(output.status.success(), "{name}: {}", errors_of(&output));
        assert!(!output.stdout.is_empty());
        errors_of(&output).lines().filter(|line| line.contains("not learnt")).map(str::to_owned).collect()
    };
    let one = |named: &str| [format!("this model has not learnt {named}; {known}")];
    assert_eq!(warnings(&model, "generate", &["A red dragon"]), one("\"dragon\""));
    assert_eq!(
        warnings(&model, "generate", &["--json", "-n", "2", "a dragon, a castle"]),
        one("\"dragon\" and \"castle\"")
    );
    assert_eq!(warnings(&model, "generate", &["a RED circle"]), [""; 0]);
    assert_eq!(warnings(&model, "edit", &["editing", "--instruction", "make the sky black"]), one("\"sky\""));
    assert_eq!(warnings(&model, "edit", &[]), [""; 0]);
    assert_eq!(warnings(&model, "caption", &["--question", "the circle?", "--max-new-tokens", "2"]), [""; 0]);
    let asked = warnings(&model, "caption", &["--question", "Where?", "--max-new-tokens", "2"]);
    assert_eq!(asked, one("\"where\""));
    let scene = format!("@\"{}\" make the circle big", small_model().join("scene.png").display());
    let turns = warnings(&model, "chat", &["--max-new-tokens", "60", "draw a red moon", "make the circle red", &scene]);
    assert_eq!(turns, [one("\"moon\""), one("\"big\"")].concat());
    // A model that does not state its words says nothing.
    config["lumina"].as_object_mut().unwrap().remove("words");
    fs::write(model.join("generation_config.json"), config.to_string()).unwrap();
    assert_eq!(warnings(&model, "generate", &["a dragon"]), [""; 0]);
}

/// A task that the model has not learnt is refused, and nothing is drawn in its place.
#[test]
fn tasks_that_are_not_learnt_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for args in [&["human_pose_estimation"][..], &["surface_normal_estimation"], &["detection", "--instruction", "a"]] {
        let output = program("edit", folder.path()).args(args).output().unwrap();
        let errors = errors_of(&output);
        assert!(errors.contains(&format!("has not learnt the task `{}`; it knows text_to_image", args[0])), "{errors}");
        assert!(!output.status.success() && output.stdout.is_empty() && !folder.path().join("out").exists());
    }
}

/// A copy of the small model with another content of one file.
fn broken_model(folder: &Path, file: &str, content: &[u8]) -> PathBuf {
    let model = folder.join(format!("broken {file}"));
    fs::create_dir_all(&model).unwrap();
    for entry in fs::read_dir(model_of_small_images()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), model.join(entry.file_name())).unwrap();
    }
    fs::write(model.join(file), content).unwrap();
    model
}

#[test]
fn messages_of_bad_files_say_nothing_twice() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let files = bad_files(folder.path(), &small_model().join("scene.png"));
    let mut complaints = Vec::new();
    let mut runs: Vec<(&str, Vec<String>)> = Vec::new();
    let mut run = |name, args: &[&str]| runs.push((name, args.iter().map(|&arg| arg.to_owned()).collect()));
    for file in &files {
        run("caption", &[file]);
        run("doctor", &["--model", file]);
        run("edit", &["depth_estimation", file]);
        run("chat", &[&format!("@\"{file}\"")]);
        run("quantize", &["--model", file, &at("q.gguf")]);
        run("generate-many", &[file, &at("many")]);
        run("generate-many", &["--merge", file]);
        for flag in ["--model", "--image-tokenizer", "--tokenizer", "--adapter"] {
            run("generate", &[flag, file]);
        }
    }
    for (file, content) in [
        ("config.json", &b"{"[..]),
        ("config.json", b"[]"),
        ("tokenizer.json", b"{"),
        ("vqgan.yaml", b"model: ["),
        ("vqgan.yaml", b"model: {}"),
        ("generation_config.json", b"{"),
        ("generation_config.json", b"{ \"lumina\": { \"image_sizes\": [[1, 2]] } }"),
        ("generation_config.json", b"{ \"lumina\": { \"words\": [\"sky blue\"] } }"),
        ("model.safetensors", b"\x09\0\0\0\0\0\0\0{\"broken\""),
        ("vqgan.safetensors", b""),
    ] {
        let model = broken_model(folder.path(), file, content);
        let output = program("generate", folder.path()).arg("--model").arg(&model).output().unwrap();
        complaints.extend(complaint("generate", &[file, &String::from_utf8_lossy(content)], &output));
        assert!(errors_of(&output).contains(file), "{}", errors_of(&output));
    }
    for output in [".", "text.png/x.png", "x.pdf"].map(at) {
        for name in ["generate", "edit"] {
            run(name, &["--output", &output]);
        }
    }
    run("quantize", &[&at(".")]);
    run("download", &["owner/name"]);
    run("download", &["no name"]);
    for (name, args) in &runs {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        complaints.extend(complaint(name, &args, &program(name, folder.path()).args(&args).output().unwrap()));
    }
    assert!(complaints.is_empty(), "said twice, or no error:\n{}", complaints.join("\n"));
    assert!(runs.len() > 60, "{}", runs.len());
}

/// That they are out of range is said by the library, with the name of the option.
#[test]
fn negative_numbers_are_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let output = program("generate", folder.path()).args(["--temperature", "-3"]).output().unwrap();
    let errors = errors_of(&output);
    assert!(errors.contains("`--temperature` is -3"), "{errors}");
    // Guidance away from the prompt is allowed.
    let output = program("generate", folder.path()).args(["--guidance", "-3"]).output().unwrap();
    assert!(output.status.success(), "{}", errors_of(&output));
    let output = program("generate", folder.path()).args(["--size", "-64x32"]).output().unwrap();
    assert!(errors_of(&output).contains("such as 768x512"), "{}", errors_of(&output));
    for flag in ["--seed", "--image-top-k", "--images", "--preview-every"] {
        let output = program("generate", folder.path()).args([flag, "-3"]).output().unwrap();
        let errors = errors_of(&output);
        assert!(errors.contains("'-3'") && errors.contains(flag) && !errors.contains("unexpected"), "{errors}");
    }
    // What is no number is still a flag.
    let output = program("generate", folder.path()).args(["--strange"]).output().unwrap();
    assert!(output.status.code() == Some(2) && errors_of(&output).contains("--strange"));
}
