//! What holds for all programs: how they end where an output is closed or full, and what they say of bad files.

use std::collections::BTreeSet;
use std::fs;
use std::io::PipeWriter;
use std::path::Path;
use std::process::{Command, Output};

/// A program's name, and arguments.
pub type Run = (&'static str, &'static [&'static str]);

/// Programs, or the commands of one.
pub struct Programs<'a> {
    /// Their names. Each has `--help`.
    pub names: &'a [&'static str],
    /// Short runs that write to the standard output.
    pub runs: &'a [Run],
    /// A run that fails.
    pub failing: Run,
    /// Calls a program, in a folder.
    pub command: fn(&str, &Path) -> Command,
}

impl Programs<'_> {
    fn command(&self, (name, args): Run, folder: &Path) -> Command {
        let mut command = (self.command)(name, folder);
        command.args(args);
        command
    }

    fn helps_and_runs(&self) -> impl Iterator<Item = Run> {
        let helps = self.names.iter().map(|&name| (name, &["--help"][..]));
        helps.chain(self.runs.iter().copied())
    }

    /// `program | head -0`: the reader has gone, which is no error.
    pub fn a_closed_output_ends_quietly(&self, folder: &Path) {
        for run @ (name, _) in self.helps_and_runs() {
            let output = self.command(run, folder).stdout(closed()).output().expect("it starts");
            let errors = errors_of(&output);
            assert!(output.status.success(), "{name}: {}: {errors}", output.status);
            assert!(!errors.contains("panic") && !errors.contains("rror"), "{name}: {errors}");
        }
    }

    /// Nobody reads the notes: the work goes on.
    pub fn a_closed_error_output_changes_nothing(&self, folder: &Path) {
        for &run in self.runs {
            let output = self.command(run, folder).stderr(closed()).output().expect("it starts");
            assert!(output.status.success() && !output.stdout.is_empty(), "{}: {}", run.0, output.status);
        }
        let failed = self.command(self.failing, folder).stderr(closed()).status().expect("it starts");
        assert_eq!(failed.code(), Some(1));
    }

    /// A full disk is an error. Where there is no `/dev/full`, nothing is checked.
    pub fn a_full_output_is_an_error(&self, folder: &Path) {
        for run @ (name, _) in self.helps_and_runs() {
            let Ok(full) = fs::OpenOptions::new().write(true).open("/dev/full") else { return };
            let output = self.command(run, folder).stdout(full).output().expect("it starts");
            let errors = errors_of(&output);
            assert_eq!(output.status.code(), Some(1), "{name}: {errors}");
            assert!(errors.contains("the standard output cannot be written"), "{name}: {errors}");
            assert!(errors.contains("No space left") && !errors.contains("panic"), "{name}: {errors}");
        }
    }
}

/// An output that nobody reads.
fn closed() -> PipeWriter {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    writer
}

/// What a program has written to its standard error output.
pub fn errors_of(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

/// Parts of a message of several words, between punctuation.
fn phrases(message: &str) -> Vec<&str> {
    let parts = message.split(['\n', ';', ',', '(', ')']).flat_map(|part| part.split(": "));
    parts.map(str::trim).filter(|part| part.split_whitespace().count() >= 3).collect()
}

/// What is wrong with the end of a program that was given something bad, if anything is: no failure, no message, or one
/// that says something twice.
pub fn complaint(name: &str, args: &[&str], output: &Output) -> Option<String> {
    let errors = errors_of(output);
    let phrases = phrases(&errors);
    let different: BTreeSet<&str> = phrases.iter().copied().collect();
    let is_good = output.status.code() == Some(1) && !phrases.is_empty() && phrases.len() == different.len();
    (!is_good).then(|| format!("{name} {args:?}, {}: {errors}", output.status))
}

/// Writes files that are no images, models or lists into a folder, and returns the paths of bad ones: these, one that
/// is not there, and a folder. `image` is a good image, to be cut off.
pub fn bad_files(folder: &Path, image: &Path) -> Vec<String> {
    let write = |name: &str, content: &[u8]| fs::write(folder.join(name), content).expect("it can be written");
    write("text.png", b"no image");
    write("cut.png", &fs::read(image).expect("an image")[..300]);
    write("cut.gguf", b"GGUF\x03\0\0\0");
    write("not.json", b"{");
    write("list.yaml", b"META: [{path: nowhere.json}]");
    let names = ["nowhere", "text.png", "cut.png", "cut.gguf", "not.json", "list.yaml", "."];
    names.map(|name| folder.join(name).to_str().expect("UTF-8").to_owned()).into()
}
