//! The index of pre-tokenised items: a line of JSON for each.

use std::io::Write;
use std::path::{Path, PathBuf};

use lumina_core::file;
use serde::de::{DeserializeSeed, Deserializer, Error as _, SeqAccess, Visitor};

use super::json_text::other_encoding;
use crate::{Error, Result};

/// The place of an item: `{"file":"0-of-2.tokens","len":29,"id":0,"offset":8}`.
///
/// An index is a file of such lines (`.jsonl`) or of one list of them (`.json`). The original's, whose items are
/// pickles of their own, has no `offset`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct IndexEntry {
    /// The shard or the pickle, a path from the index's folder, or else from the working directory.
    pub file: String,
    /// Number of tokens.
    pub len: u32,
    /// The record's index in its file.
    pub id: u64,
    /// The byte of the shard at which the item begins. Without it the file is a pickle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
}

impl IndexEntry {
    /// Reads an index, and whether its last line is unfinished, as it can be after a kill. Such a line is left out.
    ///
    /// # Errors
    /// [`Error::Core`] where it cannot be read, and [`Error::Data`] with the number of a line that is not an entry.
    pub fn read_all(file: &Path) -> Result<(Vec<Self>, LastLine)> {
        let mut entries = Vec::new();
        let last = Self::read_each(file, |entry| {
            entries.push(entry);
            Ok(())
        })?;
        Ok((entries, last))
    }

    /// [`IndexEntry::read_all`] one by one: a list of millions of entries, each with a name of its own, takes more than
    /// their file.
    pub(super) fn read_each(file: &Path, mut take: impl FnMut(Self) -> Result<()>) -> Result<LastLine> {
        let bytes = file::read(file, u64::MAX)?;
        let bytes = file::without_mark(&bytes);
        let fault = |reason: String| Error::Data { file: file.to_owned(), reason };
        if let Some(encoding) = other_encoding(bytes) {
            return Err(fault(format!("the text is in {encoding}; save it as UTF-8")));
        }
        if bytes.trim_ascii_start().starts_with(b"[") {
            let mut list = List { take, failure: None };
            let mut json = serde_json::Deserializer::from_slice(bytes);
            return match (&mut list).deserialize(&mut json).and_then(|()| json.end()) {
                Ok(()) => Ok(LastLine::Whole),
                Err(error) => Err(list.failure.unwrap_or_else(|| fault(format!("not an index: {error}")))),
            };
        }
        for (number, line) in bytes.split_inclusive(|&byte| byte == b'\n').enumerate() {
            match serde_json::from_slice(line) {
                Ok(entry) => take(entry)?,
                Err(_) if line.trim_ascii().is_empty() => {}
                // An object that is cut short is never whole JSON.
                Err(_) if !line.ends_with(b"\n") => return Ok(LastLine::Unfinished),
                Err(error) => return Err(fault(format!("line {}: not an entry of an index: {error}", number + 1))),
            }
        }
        Ok(LastLine::Whole)
    }
}

/// A list whose entries are handed over one by one, and the error of whoever took them.
struct List<F> {
    take: F,
    failure: Option<Error>,
}

impl<'de, F: FnMut(IndexEntry) -> Result<()>> DeserializeSeed<'de> for &mut List<F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, list: D) -> std::result::Result<(), D::Error> {
        list.deserialize_seq(self)
    }
}

impl<'de, F: FnMut(IndexEntry) -> Result<()>> Visitor<'de> for &mut List<F> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a list of entries")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<(), A::Error> {
        while let Some(entry) = list.next_element()? {
            if let Err(error) = (self.take)(entry) {
                self.failure = Some(error);
                return Err(A::Error::custom("an entry cannot be used"));
            }
        }
        Ok(())
    }
}

/// The end of an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastLine {
    /// A whole entry.
    Whole,
    /// A part of an entry, which was left out.
    Unfinished,
}

/// Appends a value as a line of JSON.
pub(super) fn push_line(lines: &mut Vec<u8>, value: &impl serde::Serialize) {
    serde_json::to_writer(&mut *lines, value).expect("numbers and texts have a JSON form, and a vector takes all");
    lines.write_all(b"\n").expect("a vector takes all");
}

/// Resolves a path that is in a data file: from that file's folder, or else from the working directory, as in the
/// original. Inside a root it is that file's folder alone, and neither that folder nor the path may leave the root.
pub(super) fn resolve(from: &Path, path: &Path, root: Option<&Path>) -> Result<PathBuf> {
    let folder = match from.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let Some(root) = root else {
        let in_folder = folder.join(path);
        return Ok(if in_folder.exists() { in_folder } else { path.to_owned() });
    };
    let real = |path: &Path| path.canonicalize().map_err(|source| Error::Read { file: path.to_owned(), source });
    let (real_folder, real_root) = (real(folder)?, real(root)?);
    let below = real_folder.strip_prefix(&real_root);
    let below = below.map_err(|_| lumina_core::Error::OutsideRoot { file: from.to_owned(), root: root.to_owned() })?;
    Ok(file::inside(root, &below.join(path))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(Vec<IndexEntry>, LastLine)> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("0-of-1-record.jsonl");
        std::fs::write(&file, text).unwrap();
        IndexEntry::read_all(&file)
    }

    #[test]
    fn lines_and_lists_are_the_same() {
        let entry = |id| IndexEntry { file: "a.tokens".to_owned(), len: 3, id, offset: Some(8) };
        let mut lines = Vec::new();
        push_line(&mut lines, &entry(0));
        push_line(&mut lines, &entry(1));
        let lines = String::from_utf8(lines).unwrap();
        assert_eq!(read(&lines).unwrap(), (vec![entry(0), entry(1)], LastLine::Whole));
        let list = format!("[{}]", lines.trim_end().replace('\n', ", "));
        assert_eq!(read(&list).unwrap().0, read(&lines).unwrap().0);

        let first = lines.find('\n').unwrap() + 1;
        for cut in first..lines.len() {
            let (entries, last) = read(&lines[..cut]).unwrap();
            let whole = cut == first || cut == lines.len() - 1;
            assert_eq!(last, if whole { LastLine::Whole } else { LastLine::Unfinished }, "cut at {cut}");
            assert_eq!(entries.len(), if cut == lines.len() - 1 { 2 } else { 1 });
        }
    }

    #[test]
    fn a_broken_line_is_named() {
        let text = "{\"file\": \"0.pkl\", \"len\": 2, \"id\": 0}\n{\"file\": \"1.pkl\", \"len\": -2, \"id\": 1}\n";
        assert!(read(text).unwrap_err().to_string().contains("line 2"));
        assert!(read("[1]").is_err());
        assert_eq!(read("").unwrap(), (Vec::new(), LastLine::Whole));
    }
}
