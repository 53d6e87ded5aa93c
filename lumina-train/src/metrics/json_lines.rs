//! A file of one JSON object a line.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{MetricsWriter, StepRecord};
use crate::checkpoint::check_regular;
use crate::{Error, Result};

/// A file of one JSON object a line, in the order in which they were written.
///
/// If the machine goes down while a line is written, a part of it may be in the file; the next opening drops it.
/// Numbers that are not finite are `null`, as JSON has no word for them.
#[derive(Debug)]
pub struct JsonLines {
    file: PathBuf,
    out: File,
}

impl JsonLines {
    /// Opens a file to append to, or makes it. A last line without its line end is dropped: its writing was
    /// interrupted.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Write`], also for what is no regular file.
    pub fn append(file: &Path) -> Result<Self> {
        check_regular(file)?;
        let failed = |source| Error::Write { file: file.to_owned(), source };
        let out = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(file).map_err(failed)?;
        let mut lines = Self { file: file.to_owned(), out };
        lines.keep_while(|_| Ok(true))?;
        Ok(lines)
    }

    /// Continues after a checkpoint: drops the first line whose field `step` is beyond `step`, and all after it. So a
    /// run that is resumed there has each step once.
    ///
    /// # Errors
    /// [`Error::Read`], also where a line is not JSON, with nothing dropped; [`Error::Write`].
    pub fn resume_at(mut self, step: u64) -> Result<Self> {
        self.drop_after(step)?;
        Ok(self)
    }

    /// Appends a line.
    ///
    /// # Errors
    /// [`Error::Write`], also where the value has no JSON.
    pub fn write(&mut self, value: &impl serde::Serialize) -> Result<()> {
        let line = serde_json::to_vec(value)
            .map_err(|error| Error::Write { file: self.file.clone(), source: error.into() })?;
        self.append_line(line)
    }

    fn append_line(&mut self, mut line: Vec<u8>) -> Result<()> {
        line.push(b'\n');
        // One call, so that a process that is killed leaves whole lines.
        self.out.write_all(&line).map_err(|source| Error::Write { file: self.file.clone(), source })
    }

    fn drop_after(&mut self, step: u64) -> Result<()> {
        #[derive(serde::Deserialize)]
        struct Line {
            step: Option<u64>,
        }
        self.keep_while(|line| Ok(serde_json::from_slice::<Line>(line)?.step.is_none_or(|of_line| of_line <= step)))
    }

    /// Cuts the file off before the first line that is not whole or not to be kept.
    fn keep_while(&mut self, keeps: impl Fn(&[u8]) -> serde_json::Result<bool>) -> Result<()> {
        let failed = |source| Error::Read { file: self.file.clone(), source };
        let mut reader = BufReader::new(&self.out);
        reader.rewind().map_err(failed)?;
        let (mut kept, mut line) = (0u64, Vec::new());
        loop {
            line.clear();
            reader.read_until(b'\n', &mut line).map_err(failed)?;
            if !line.ends_with(b"\n") || !keeps(&line).map_err(|error| failed(error.into()))? {
                break;
            }
            kept += line.len() as u64;
        }
        let cut = self.out.set_len(kept).and_then(|()| self.out.seek(SeekFrom::Start(kept)));
        cut.map(|_| ()).map_err(|source| Error::Write { file: self.file.clone(), source })
    }
}

impl MetricsWriter for JsonLines {
    fn resume(&mut self, step: u64, _: SystemTime) -> Result<()> {
        self.drop_after(step)
    }

    fn write(&mut self, step: &StepRecord) -> Result<()> {
        self.append_line(step.json.clone().into_bytes())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use serde_json::json;

    use super::*;

    #[test]
    fn each_step_is_there_once_after_a_resume() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("steps.jsonl");
        let mut lines = JsonLines::append(&file).unwrap();
        for step in 1..=4 {
            lines.write(&json!({ "step": step, "loss": 0.5 })).unwrap();
        }
        lines.write(&json!({ "epoch": 1 })).unwrap();
        lines.out.write_all(br#"{"step": 5, "lo"#).unwrap();
        drop(lines);
        let mut lines = JsonLines::append(&file).unwrap().resume_at(2).unwrap();
        lines.write(&json!({ "step": 3, "loss": f64::NAN })).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        let expected = "{\"loss\":0.5,\"step\":1}\n{\"loss\":0.5,\"step\":2}\n{\"loss\":null,\"step\":3}\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn what_was_there_is_kept_when_no_step_is_beyond() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("steps.jsonl");
        std::fs::write(&file, "{\"step\": 1}\n{\"note\": \"é\"}\n{\"ste").unwrap();
        drop(JsonLines::append(&file).unwrap().resume_at(1).unwrap());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "{\"step\": 1}\n{\"note\": \"é\"}\n");
    }

    #[test]
    fn a_file_of_something_else_is_an_error_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("steps.jsonl");
        std::fs::write(&file, "step 1\nstep 2\n").unwrap();
        let error = JsonLines::append(&file).unwrap().resume_at(1).unwrap_err();
        assert!(matches!(error, Error::Read { .. }), "{error}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "step 1\nstep 2\n");
        assert!(matches!(JsonLines::append(folder.path()), Err(Error::Write { .. })));
    }
}
