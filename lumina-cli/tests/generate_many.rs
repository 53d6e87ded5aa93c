//! `lumina generate-many`: the same images and manifest, to the byte, however the work was divided and interrupted.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's panic is its failure")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use lumina_testing::programs::errors_of;
use serde_json::Value;

/// The command in a folder, with nothing of a scheduler that the test itself may run under.
fn generate_many(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lumina"));
    command.args(["generate-many", "--json"]).args(args).current_dir(folder);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
        .env("RUST_BACKTRACE", "0")
        .env("HF_HUB_OFFLINE", "1")
        .env("LUMINA_MODEL", lumina_testing::model_of_small_images());
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy().into_owned();
        if ["OMPI_", "PMI_", "SLURM_", "JOB_COMPLETION"].iter().any(|start| text.starts_with(start)) {
            command.env_remove(name);
        }
    }
    command
}

fn run(folder: &Path, args: &[&str]) -> Output {
    generate_many(folder, args).output().unwrap()
}

/// What a run that fails says.
fn failure(folder: &Path, args: &[&str]) -> String {
    let output = run(folder, args);
    assert_eq!(output.status.code(), Some(1), "{args:?}: {}", errors_of(&output));
    errors_of(&output)
}

fn succeed(folder: &Path, args: &[&str]) -> Value {
    let output = run(folder, args);
    assert!(output.status.success(), "{args:?}: {}", errors_of(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// `n` requests for small images.
fn images(n: usize) -> String {
    let request = |index: usize| {
        let (colour, size) = (["red", "blue", "green"][index % 3], ["[32, 128]", "[128, 32]"][index % 2]);
        format!(
            r#"{{"task": "text_to_image", "prompt": "a small {colour} circle on a white background", "size": {size}, "options": {{"sampling": {{"seed": {index}, "temperature": 1.0}}}}}}"#
        )
    };
    (0..n).map(|index| request(index) + "\n").collect()
}

/// The images of a folder by name.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(folder).unwrap().map(Result::unwrap);
    let files = files.map(|file| (file.file_name().into_string().unwrap(), file.path()));
    files.filter(|(name, _)| name.ends_with(".png")).map(|(name, path)| (name, fs::read(path).unwrap())).collect()
}

fn lines_of(folder: &Path, manifest: &str) -> usize {
    fs::read(folder.join(manifest)).map_or(0, |text| text.iter().filter(|&&byte| byte == b'\n').count())
}

/// Numbers that are the same each time.
#[cfg(unix)]
struct Random(u64);

#[cfg(unix)]
impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// Three ranks at once, killed twenty times in all, and continued: the manifest and the images are those of one rank
/// that nothing has disturbed.
#[cfg(unix)]
#[test]
fn kills_lose_and_double_nothing() {
    const REQUESTS: usize = 120;
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    // Errors, a text, and ids of all kinds are among them.
    let mut requests: Vec<String> = images(REQUESTS).lines().map(str::to_owned).collect();
    requests[7] = requests[7].replacen('{', r#"{"id": "../a b", "#, 1);
    requests[8] = requests[8].replacen('{', r#"{"id": 1000, "#, 1);
    requests[20] = "{".to_owned();
    requests[21] = r#"{"task": "text_to_image", "prompt": "a red circle", "size": [4096, 4096]}"#.to_owned();
    requests[22] = r#"{"id": "chat", "conversation": {"turns": [{"role": "human", "content": "draw a small red circle on a white background"}]}}"#.to_owned();
    fs::write(folder.join("requests.jsonl"), requests.join("\n")).unwrap();

    let said = failure(folder, &["requests.jsonl", "whole", "--batch", "5"]);
    assert!(said.contains("2 of 120 requests failed"), "{said}");
    let merged = succeed(folder, &["--merge", "whole"]);
    assert_eq!((&merged["requests"], &merged["failed"], &merged["images"]), (&120.into(), &2.into(), &118.into()));

    let out = folder.join("killed");
    let manifest = |rank: usize| format!("manifest-{rank}-of-3.jsonl");
    let start = |rank: usize| -> std::process::Child {
        let rank = rank.to_string();
        let args = ["requests.jsonl", "killed", "--rank", &rank, "--ranks", "3", "--batch", "2"];
        generate_many(folder, &args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let (mut random, mut kills) = (Random(7), 0);
    // Rounds of three ranks at once. Each is killed at a moment of its own.
    for round in 0.. {
        if kills >= 20 {
            break;
        }
        assert!(round < 20, "{kills} kills in {round} rounds: the ranks end before they are killed");
        let mut ranks: Vec<(usize, std::process::Child, usize)> = Vec::new();
        for rank in 0..3 {
            let begun = lines_of(&out, &manifest(rank));
            // After some answers, as long as enough are left for all rounds; else before the first.
            let answers = if begun + 15 < REQUESTS / 3 { random.below(3) as usize } else { 0 };
            ranks.push((rank, start(rank), begun + answers));
        }
        while !ranks.is_empty() {
            ranks.retain_mut(|(rank, child, lines)| {
                let is_time = lines_of(&out, &manifest(*rank)) >= *lines || child.try_wait().unwrap().is_some();
                if is_time {
                    std::thread::sleep(std::time::Duration::from_millis(random.below(25)));
                    child.kill().unwrap();
                    kills += usize::from(child.wait().unwrap().code().is_none());
                }
                !is_time
            });
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
    let before: usize = (0..3).map(|rank| lines_of(&out, &manifest(rank))).sum();
    assert!(before > 0 && before < REQUESTS, "{before} requests were answered before the last kill");
    let missing = failure(folder, &["--merge", "killed"]);
    assert!(missing.contains(&format!("{} of 120 requests are missing, lines", REQUESTS - before)), "{missing}");
    for mut child in (0..3).map(start).collect::<Vec<_>>() {
        child.wait().unwrap();
    }
    assert_eq!(succeed(folder, &["--merge", "killed"])["failed"], 2);
    let whole = folder.join("whole");
    let read = |folder: &Path| fs::read_to_string(folder.join("manifest.jsonl")).unwrap();
    assert_eq!(read(&out), read(&whole));
    assert_eq!(files(&out), files(&whole));
    assert_eq!(files(&out).len(), 118);

    let entries: Vec<Value> = read(&out).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(entries.iter().enumerate().all(|(index, entry)| entry["line"] == index + 1));
    assert_eq!((&entries[7]["images"][0]["file"], &entries[7]["id"]), (&"%2E.%2Fa%20b.png".into(), &"../a b".into()));
    assert_eq!((&entries[8]["images"][0]["file"], &entries[8]["seed"]), (&"1000.png".into(), &8.into()));
    assert!(entries[20]["error"].as_str().unwrap().contains("no JSON object") && entries[20]["id"].is_null());
    assert!(entries[21]["error"].as_str().unwrap().contains("4096x4096"), "{}", entries[21]);
    assert_eq!((&entries[22]["id"], &entries[22]["stop"]), (&"chat".into(), &"turn_end".into()));
    assert!(entries[22]["text"].as_str().unwrap().contains("<|image|>"), "{}", entries[22]);
}

/// A folder is one run's: another file of requests, another model, other settings and other files are refused.
#[test]
fn a_folder_is_one_runs() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::write(folder.join("a.jsonl"), images(2)).unwrap();
    fs::write(folder.join("b.jsonl"), images(3)).unwrap();
    succeed(folder, &["a.jsonl", "out"]);
    let before = files(&folder.join("out"));
    for (args, part) in [
        (&["b.jsonl", "out"][..], "its `requests` is 2, and now it would be 3"),
        (&["a.jsonl", "out", "--ranks", "2", "--rank", "0"], "its `ranks` is 1, and now it would be 2"),
        (&["a.jsonl", "out", "--weights", "q8"], "its `compute` is"),
        (&["a.jsonl", "out", "--target-size", "512"], "its `target_size_px` is null"),
        (&["a.jsonl", "."], "has files, but no run.json"),
        (&["--merge", "."], "has no run.json"),
        (&["a.jsonl", "a.jsonl"], "cannot be made"),
    ] {
        let said = failure(folder, args);
        assert!(said.contains(part), "{args:?}: {said}");
    }
    let model = folder.join("model");
    fs::create_dir(&model).unwrap();
    for file in fs::read_dir(lumina_testing::model_of_small_images()).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), model.join(file.file_name())).unwrap();
    }
    // The same model in another place is the same.
    assert_eq!(succeed(folder, &["a.jsonl", "out", "--model", "model"])["answered_now"], 0);
    let config = fs::read_to_string(model.join("generation_config.json")).unwrap();
    fs::write(model.join("generation_config.json"), config.replace("0.4", "0.5")).unwrap();
    let said = failure(folder, &["a.jsonl", "out", "--model", "model"]);
    assert!(said.contains("its `model_sha256` is"), "{said}");
    assert_eq!(files(&folder.join("out")), before);
    assert_eq!(fs::read_dir(folder.join("out")).unwrap().count(), 4, "two images, manifest-0-of-1.jsonl, run.json");
}

/// Images that are gone are drawn again, what is damaged is named, and errors stay until they are to be retried.
#[test]
fn what_is_missing_or_damaged_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let deadline = images(1).replace("\"sampling\"", "\"deadline_ms\": 9, \"sampling\"");
    fs::write(folder.join("a.jsonl"), images(2) + &deadline).unwrap();
    let ranks = |rank: &'static str| ["a.jsonl", "out", "--rank", rank, "--ranks", "2"];
    let said = failure(folder, &ranks("0"));
    assert!(said.contains("1 of 2 requests failed") && said.contains("manifest-0-of-2.jsonl"), "{said}");
    let said = failure(folder, &["--merge", "out"]);
    assert!(said.contains("1 of 3 requests are missing, lines 2, of ranks 1"), "{said}");
    assert!(!folder.join("out/manifest.jsonl").exists());
    // By the environment.
    let mut second = generate_many(folder, &["a.jsonl", "out"]);
    second.env("OMPI_COMM_WORLD_RANK", "1").env("OMPI_COMM_WORLD_SIZE", "2");
    assert!(second.status().unwrap().success());
    second.env("OMPI_COMM_WORLD_RANK", "2");
    assert!(errors_of(&second.output().unwrap()).contains("no rank 2 of 2"));
    succeed(folder, &["--merge", "out"]);
    let (manifest, first) = (folder.join("out/manifest.jsonl"), folder.join("out/1.png"));
    let merged = fs::read_to_string(&manifest).unwrap();
    assert!(merged.lines().nth(2).unwrap().contains("`deadline_ms` is given"), "{merged}");

    let bytes = fs::read(&first).unwrap();
    let damaged: Vec<u8> = bytes.iter().rev().copied().collect();
    for (content, part) in [(&damaged[..], "damaged"), (&bytes[1..], "damaged"), (&[0; 9999], "damaged")] {
        fs::write(&first, content).unwrap();
        let said = failure(folder, &["--merge", "out"]);
        assert!(said.contains("`1.png` of line 1 is ") && said.contains(part), "{said}");
    }
    fs::remove_file(&first).unwrap();
    let said = failure(folder, &["--merge", "out"]);
    assert!(said.contains("`1.png` of line 1 is missing"), "{said}");
    failure(folder, &ranks("0"));
    assert_eq!(fs::read(&first).unwrap(), bytes);

    // An error of another time stays, and goes with the flag.
    let own = folder.join("out/manifest-0-of-2.jsonl");
    let text = fs::read_to_string(&own).unwrap();
    fs::write(&own, text.replace("`deadline_ms` is", "it was not")).unwrap();
    failure(folder, &ranks("0"));
    assert!(fs::read_to_string(&own).unwrap().contains("it was not"));
    failure(folder, &[&ranks("0")[..], &["--retry-errors"]].concat());
    let retried = fs::read_to_string(&own).unwrap();
    assert!(!retried.contains("it was not") && retried.lines().count() == 2, "{retried}");
    // A line that is there twice.
    fs::write(&own, retried.clone() + retried.lines().next().unwrap() + "\n").unwrap();
    let said = failure(folder, &["--merge", "out"]);
    assert!(said.contains("requests are there twice, lines "), "{said}");
    fs::write(&own, retried).unwrap();
    succeed(folder, &["--merge", "out"]);
    assert_eq!(fs::read_to_string(&manifest).unwrap(), merged);
}

/// A file that cannot grow, as on a full disk: the run ends with an error that names it, and is continued.
#[cfg(unix)]
#[test]
fn a_full_disk_ends_a_run_that_can_be_continued() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::write(folder.join("a.jsonl"), images(24)).unwrap();
    succeed(folder, &["a.jsonl", "whole"]);
    succeed(folder, &["--merge", "whole"]);
    let (whole, full) = (folder.join("whole"), folder.join("full"));
    let largest = files(&whole).values().map(Vec::len).max().unwrap() as u64;
    let lines = fs::metadata(whole.join("manifest.jsonl")).unwrap().len();
    // The images do not fit; then they do, but their lines do not. The limit is in blocks of 512 bytes.
    let blocks = [1, largest.div_ceil(512)];
    assert!(blocks[0] * 512 < largest && blocks[1] * 512 < lines, "{largest} and {lines} bytes");
    for (blocks, file) in blocks.into_iter().zip([".png: ", "manifest-0-of-1.jsonl: "]) {
        let limited = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" generate-many a.jsonl full");
        let mut command = Command::new("sh");
        command.args(["-c", &limited, env!("CARGO_BIN_EXE_lumina")]).current_dir(folder);
        let output = command
            .env("RUST_BACKTRACE", "0")
            .env("LUMINA_MODEL", lumina_testing::model_of_small_images())
            .output()
            .unwrap();
        let said = errors_of(&output);
        assert!(output.status.code() == Some(1) && said.contains(file), "{said}");
        assert!(said.contains("the same command continues it") && said.contains("File too large"), "{said}");
        assert!(failure(folder, &["--merge", "full"]).contains("requests are missing"));
    }
    let text = fs::read(full.join("manifest-0-of-1.jsonl")).unwrap();
    assert!(!text.is_empty() && !text.ends_with(b"\n"), "a line is torn");
    assert!(succeed(folder, &["a.jsonl", "full"])["answered_now"].as_u64() < Some(24));
    succeed(folder, &["--merge", "full"]);
    assert_eq!(fs::read(full.join("manifest.jsonl")).unwrap(), fs::read(whole.join("manifest.jsonl")).unwrap());
    assert_eq!(files(&full), files(&whole));
}
