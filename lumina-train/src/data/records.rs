//! Records of conversations and their images.

use std::ops::Range;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use lumina_checkpoint::map;
use lumina_tokenizer::Record;
use lumina_vq::preprocess::InputImage;
use serde::de::IgnoredAny;

use crate::{Error, Result};

/// Records with their images. Each is loaded when it is used.
pub struct Records<'a> {
    source: RecordSource<'a>,
}

enum RecordSource<'a> {
    File { file: PathBuf, bytes: Bytes, places: Vec<Range<usize>> },
    Made { n_records: usize, make: Make<'a> },
}

type Make<'a> = Box<dyn Fn(usize) -> (Record, Vec<InputImage>) + Send + Sync + 'a>;

impl Records<'static> {
    /// The records of a file: a JSON list, or JSONL with a record a line (empty lines do not count). The file is
    /// mapped, and a record is parsed when it is loaded; see [`lumina_checkpoint`] on files that are cut short while
    /// they are mapped.
    ///
    /// Paths of images are relative to the file's folder.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] where it cannot be read, [`Error::Data`] where it is a list whose JSON is broken. A broken
    /// line is a bad record.
    pub fn open(file: impl AsRef<Path>) -> Result<Self> {
        let file = file.as_ref().to_owned();
        let bytes = match std::fs::metadata(&file) {
            Ok(metadata) if metadata.is_file() && metadata.len() == 0 => Bytes::new(),
            _ => map(&file)?,
        };
        let places = if bytes.trim_ascii_start().starts_with(b"[") {
            elements(&bytes).map_err(|reason| Error::Data { file: file.clone(), reason })?
        } else {
            lines(&bytes)
        };
        Ok(Self { source: RecordSource::File { file, bytes, places } })
    }
}

impl<'a> Records<'a> {
    /// Records that are made in memory: `make` makes the one of an index, the same each time.
    pub fn made(n_records: usize, make: impl Fn(usize) -> (Record, Vec<InputImage>) + Send + Sync + 'a) -> Self {
        Self { source: RecordSource::Made { n_records, make: Box::new(make) } }
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        match &self.source {
            RecordSource::File { places, .. } => places.len(),
            RecordSource::Made { n_records, .. } => *n_records,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The record of an index, and its images.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] where it is not a record, [`Error::Images`] where an image cannot be read,
    /// [`Error::NoItem`].
    pub fn load(&self, index: usize) -> Result<(Record, Vec<InputImage>)> {
        if index >= self.len() {
            return Err(Error::NoItem { index, len: self.len() });
        }
        match &self.source {
            RecordSource::File { file, bytes, places } => {
                // Bytes that are not UTF-8 become U+FFFD: better than to lose the record.
                let record = Record::from_json(&String::from_utf8_lossy(&bytes[places[index].clone()]))?;
                let folder = file.parent().unwrap_or(Path::new(""));
                let open = |path: &PathBuf| Ok(InputImage::open(folder.join(path))?);
                let images = record.image.iter().map(open).collect::<Result<_>>()?;
                Ok((record, images))
            }
            RecordSource::Made { make, .. } => Ok(make(index)),
        }
    }

    /// Tells these records from others: their number and a checksum of their file.
    pub(super) fn fingerprint(&self) -> String {
        match &self.source {
            RecordSource::File { bytes, .. } => {
                format!("{} records of CRC-32 {:08x}", self.len(), crc32fast::hash(bytes))
            }
            RecordSource::Made { n_records, .. } => format!("{n_records} records in memory"),
        }
    }
}

impl std::fmt::Debug for Records<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("Records");
        if let RecordSource::File { file, .. } = &self.source {
            debug.field("file", file);
        }
        debug.field("len", &self.len()).finish()
    }
}

/// The places of the lines that are not empty.
fn lines(bytes: &[u8]) -> Vec<Range<usize>> {
    let mut end = 0;
    let places = bytes.split_inclusive(|&byte| byte == b'\n').map(|line| {
        end += line.len();
        end - line.len()..end
    });
    places.filter(|place| !bytes[place.clone()].trim_ascii().is_empty()).collect()
}

/// The places of the elements of a JSON list.
fn elements(bytes: &[u8]) -> std::result::Result<Vec<Range<usize>>, String> {
    let skip_space = |position: usize| bytes.len() - bytes[position..].trim_ascii_start().len();
    let cut = || "the list of records does not end; is the file whole?".to_owned();
    let mut places = Vec::new();
    // After the bracket that opens the list.
    let mut position = skip_space(skip_space(0) + 1);
    if bytes.get(position) == Some(&b']') {
        position += 1;
    } else {
        loop {
            let mut values = serde_json::Deserializer::from_slice(&bytes[position..]).into_iter::<IgnoredAny>();
            let index = places.len();
            match values.next() {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(format!("record {index}, from byte {position}: {error}")),
                None => return Err(cut()),
            }
            let end = position + values.byte_offset();
            places.push(position..end);
            position = skip_space(end);
            match bytes.get(position) {
                Some(b',') => position = skip_space(position + 1),
                Some(b']') => {
                    position += 1;
                    break;
                }
                Some(_) => return Err(format!("record {index}: no comma after it, at byte {position}")),
                None => return Err(cut()),
            }
        }
    }
    match skip_space(position) {
        end if end == bytes.len() => Ok(places),
        end => Err(format!("something follows the list of records, at byte {end}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: &str = r#"{"conversations": [{"from": "human", "value": "a]\",\n"}]}"#;

    fn open(text: &str) -> Result<Records<'static>> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("records");
        std::fs::write(&file, text).unwrap();
        Records::open(file)
    }

    #[test]
    fn lists_and_lines_are_the_same() {
        for text in [
            format!("\n [ {RECORD},{RECORD}\n,\n{RECORD} ] \n"),
            format!("{RECORD}\n{RECORD}\n\n{RECORD}"),
            format!("{RECORD}\r\n{RECORD}\r\n   \r\n{RECORD}\r\n"),
        ] {
            let records = open(&text).unwrap();
            assert_eq!(records.len(), 3, "{text}");
            for index in 0..3 {
                let (record, images) = records.load(index).unwrap();
                assert_eq!(record.conversations[0].value.as_deref(), Some("a]\",\n"));
                assert!(images.is_empty());
            }
            assert!(records.load(3).is_err());
        }
        for text in ["", " \n", "[]", " [ ] \n"] {
            assert!(open(text).unwrap().is_empty(), "{text:?}");
        }
    }

    #[test]
    fn a_bad_line_is_one_bad_record_and_a_broken_list_none_at_all() {
        let records = open(&format!("{RECORD}\n{{\"conversations\": \n{RECORD}\n{{}}\n")).unwrap();
        assert_eq!(records.len(), 4);
        assert_eq!([0, 1, 2, 3].map(|index| records.load(index).is_ok()), [true, false, true, false]);
        let records = open(&format!("[1, {RECORD}, {{}}]")).unwrap();
        assert_eq!([0, 1, 2].map(|index| records.load(index).is_ok()), [false, true, false]);

        let list = format!("[{RECORD}, {RECORD}]");
        for cut in 1..list.len() {
            assert!(open(&list[..cut]).is_err(), "cut at {cut}");
        }
        for bad in ["[,]", "[1 2]", "[1,]", "[1] 2", "[1}"] {
            assert!(open(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn missing_files_are_named() {
        let with_image = r#"{"conversations": [], "image": ["nowhere/cat.png"]}"#;
        assert!(open(with_image).unwrap().load(0).unwrap_err().to_string().contains("cat.png"));
        assert!(Records::open("nowhere/records.json").unwrap_err().to_string().contains("records.json"));
    }

    #[test]
    fn made_records() {
        let records =
            Records::made(2, |index| (Record::default(), vec![image::RgbImage::new(index as u32 + 1, 1).into()]));
        assert_eq!(records.load(1).unwrap().1[0].width(), 2);
        assert!(records.load(2).is_err());
    }
}
