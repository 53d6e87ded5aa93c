//! The requests of a file, a line each: their ids, and the names of their images.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use lumina_core::{file, quoted, shown};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Map, Value};

use crate::files::sha256_of;

/// The longest name of an image without its end, in bytes: file systems take 255.
const MAX_NAME: usize = 150;

/// The requests of a file.
pub(super) struct Requests {
    text: Vec<u8>,
    lines: Vec<Line>,
    sha256: String,
}

struct Line {
    range: Range<usize>,
    /// `None` where the line is no object with a usable id: its request fails.
    id: Option<String>,
}

/// A request as it is written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Written {
    /// As in the line, or else the number of the line.
    pub(super) id: String,
    /// The line without its id.
    pub(super) json: String,
}

impl Requests {
    /// Reads a file. Lines at its end that are empty do not count.
    ///
    /// # Errors
    /// Where it cannot be read, has no request, or has two with one id.
    pub(super) fn open(path: &Path) -> Result<Self> {
        Self::of_text(file::read(path, u64::MAX)?).with_context(|| format!("{}: is no list of requests", shown(path)))
    }

    fn of_text(text: Vec<u8>) -> Result<Self> {
        let sha256 = sha256_of(&text);
        let start = text.len() - file::without_mark(&text).len();
        let length = text.trim_ascii_end().len();
        ensure!(length > start, "it is empty; give a request a line, as in {EXAMPLE}");
        let mut lines: Vec<Line> = Vec::new();
        let mut numbers: HashMap<String, usize> = HashMap::new();
        let mut begin = start;
        for (index, line) in text[start..length].split(|&byte| byte == b'\n').enumerate() {
            let range = begin..begin + line.len();
            begin = range.end + 1;
            let id = written(line, index).ok().map(|written| written.id);
            // Two names that differ in the case of letters are one file on some systems.
            let name = id
                .as_deref()
                .map(image_name)
                .map(|name| if cfg!(any(windows, target_vendor = "apple")) { name.to_lowercase() } else { name });
            if let (Some(id), Some(other)) = (&id, name.and_then(|name| numbers.insert(name, index))) {
                bail!(
                    "lines {} and {} have the same id {}; give each an `id` of its own, or none",
                    other + 1,
                    index + 1,
                    quoted(id)
                );
            }
            lines.push(Line { range, id });
        }
        Ok(Self { text, lines, sha256 })
    }

    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }

    /// The SHA-256 of the file.
    pub(super) fn sha256(&self) -> &str {
        &self.sha256
    }

    /// The id of a request, if its line has a usable one.
    pub(super) fn id(&self, index: usize) -> Option<&str> {
        self.lines[index].id.as_deref()
    }

    /// A request, or what is wrong with its line.
    pub(super) fn get(&self, index: usize) -> Result<Written, String> {
        written(&self.text[self.lines[index].range.clone()], index)
    }
}

const EXAMPLE: &str = r#"{"task": "text_to_image", "prompt": "a red circle", "size": [768, 768]}"#;

/// The request in a line.
fn written(line: &[u8], index: usize) -> Result<Written, String> {
    let line = std::str::from_utf8(line).map_err(|_| "the line is not UTF-8".to_owned())?.trim();
    if line.is_empty() {
        return Err("the line is empty".to_owned());
    }
    file::check_json(Path::new("the line"), line.as_bytes()).map_err(|error| error.to_string())?;
    // Beforehand, so that its messages have places in the line as it is.
    let checked: Result<Map<String, Value>, _> = serde_json::from_str(line);
    checked.map_err(|error| format!("the line is no JSON object: {error}"))?;
    let (ids, json) = without_id(line).ok_or("the line is no JSON object")?;
    let id = match ids.as_slice() {
        [] => (index + 1).to_string(),
        [Value::String(id)] if !id.is_empty() => id.clone(),
        [Value::Number(id)] if id.is_u64() => id.to_string(),
        [_] => return Err("`id` must be a text or a whole number".to_owned()),
        _ => return Err("`id` is given twice; leave one out".to_owned()),
    };
    Ok(Written { id, json })
}

/// The values of `id` in an object, and the object without them. Everything else stays as it is written, so that a key
/// that is given twice is still seen by who reads the request.
fn without_id(object: &str) -> Option<(Vec<Value>, String)> {
    let (mut ids, mut members) = (Vec::new(), Vec::new());
    let mut rest = object.trim_start().strip_prefix('{')?.trim_start();
    while !rest.starts_with('}') {
        let (key, key_end) = value::<String>(rest)?;
        let after = rest.get(key_end..)?;
        let begin = rest.len() - after.trim_start().strip_prefix(':')?.len();
        let (_, length) = value::<IgnoredAny>(rest.get(begin..)?)?;
        let end = begin + length;
        if key == "id" {
            ids.push(serde_json::from_str(rest.get(begin..end)?).ok()?);
        } else {
            members.push(rest.get(..end)?);
        }
        rest = rest.get(end..)?.trim_start();
        rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
    }
    Some((ids, format!("{{{}}}", members.join(", "))))
}

/// The value that a text begins with, and where it ends.
fn value<T: DeserializeOwned>(text: &str) -> Option<(T, usize)> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<T>();
    let value = values.next()?.ok()?;
    Some((value, values.byte_offset()))
}

/// The name of a request's images, without their end: the id, with `%` and two hexadecimal digits for each byte that
/// is not safe in names everywhere. Different ids have different names.
pub(super) fn image_name(id: &str) -> String {
    let last = id.len().saturating_sub(1);
    let name: String = id
        .bytes()
        .enumerate()
        .map(|(at, byte)| match byte {
            // Names that begin with a dot are hidden, and Windows drops one at the end.
            b'.' if at > 0 && at < last => ".".to_owned(),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect();
    // `~` is in no other name.
    if name.len() <= MAX_NAME { name } else { format!("{}~{}", &name[..MAX_NAME / 2], sha256_of(id.as_bytes())) }
}

/// The file of a request's image at `index`. `+` is in no name of another request.
pub(super) fn image_file(id: &str, index: usize) -> String {
    let name = image_name(id);
    if index == 0 { format!("{name}.png") } else { format!("{name}+{}.png", index + 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests(text: &str) -> Result<Requests, String> {
        Requests::of_text(text.as_bytes().to_vec()).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn a_line_is_a_request() {
        let text = "\u{feff}{\"id\": \"a\", \"task\": \"x\"}\r\n\n{\"task\" : {\"id\": 3}, \"task\": 1 , \"id\":7}\n{}\n[1]\n\n";
        let requests = requests(text).unwrap();
        assert_eq!(requests.len(), 5);
        let get = |index| requests.get(index).map(|written| (written.id, written.json));
        assert_eq!(get(0), Ok(("a".to_owned(), r#"{"task": "x"}"#.to_owned())));
        assert_eq!(get(1), Err("the line is empty".to_owned()));
        // A key that is given twice is there twice.
        assert_eq!(get(2), Ok(("7".to_owned(), r#"{"task" : {"id": 3}, "task": 1}"#.to_owned())));
        assert_eq!(get(3), Ok(("4".to_owned(), "{}".to_owned())));
        assert!(get(4).unwrap_err().contains("no JSON object"));
        assert_eq!((requests.id(0), requests.id(4)), (Some("a"), None));
        for line in [r#"{"id": ""}"#, r#"{"id": -1}"#, r#"{"id": [1]}"#, r#"{"id": 1, "id": 2}"#, "{\"a\": 1", "\u{1}"]
        {
            let requests = self::requests(line).unwrap();
            assert!(requests.get(0).is_err() && requests.id(0).is_none(), "{line}");
        }
    }

    #[test]
    fn ids_are_different() {
        let message = |text| requests(text).map(|requests| requests.len()).unwrap_err();
        assert!(message("{\"id\": \"b\"}\n{}\n{\"id\": \"b\"}").contains("lines 1 and 3 have the same id `b`"));
        assert!(message("{\"id\": 2}\n{}").contains("lines 1 and 2"));
        assert!(message(" \n\n").contains("it is empty"));
        // A line that cannot be read has none.
        assert_eq!(requests("{\"id\": 2}\n{").unwrap().len(), 2);
    }

    #[test]
    fn names_are_safe_and_different() {
        let long = "x".repeat(400);
        let ids = ["a", "a.b", "a b", "a%20b", ".", "..", ".a", "a.", "../a", "a/b", "a\\b", "ä", "CON:", &long, "a+2"];
        let names: std::collections::BTreeSet<_> = ids.iter().map(|id| image_file(id, 0)).collect();
        assert_eq!(names.len(), ids.len());
        for name in names.iter().chain([&image_file(&long, 12)]) {
            assert!(name.len() < 250 && !name.starts_with('.'), "{name}");
            assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.%~+".contains(&byte)), "{name}");
        }
        assert_eq!(image_file("a.b-1_C", 0), "a.b-1_C.png");
        assert_ne!(image_file("a", 1), image_file("a+2", 0));
        assert_ne!(image_file(&long, 0), image_file(&format!("{long}y"), 0));
    }
}
