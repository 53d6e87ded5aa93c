//! Records of conversations and their images.

use std::borrow::Cow;
use std::ops::Range;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use lumina_checkpoint::map;
use lumina_core::{Limits, file};
use lumina_tokenizer::Record;
use lumina_vq::preprocess::InputImage;

use super::json_text::{elements, lines, other_encoding, with_finite_numbers};
use crate::{Error, Result};

/// Records with their images. Each is loaded when it is used.
pub struct Records<'a> {
    source: RecordSource<'a>,
}

enum RecordSource<'a> {
    File { file: PathBuf, bytes: Bytes, places: Vec<Range<usize>>, images: Option<PathBuf> },
    Made { n_records: usize, make: Make<'a> },
}

type Make<'a> = Box<dyn Fn(usize) -> (Record, Vec<InputImage>) + Send + Sync + 'a>;

impl Records<'static> {
    /// The records of a file: a JSON list, or JSONL with a record a line (empty lines do not count). The file is
    /// mapped, and a record is parsed when it is loaded; see [`lumina_checkpoint`] on files that are cut short while
    /// they are mapped.
    ///
    /// The text is UTF-8, with or without a byte order mark. As Python's `json` reads them, `NaN`, `Infinity` and
    /// `-Infinity` may be values of keys that nobody reads. Paths of images are relative to the file's folder, and may
    /// lead anywhere; see [`Records::images_inside`].
    ///
    /// # Errors
    /// [`Error::Core`] and [`Error::Checkpoint`] where it cannot be read, is not a regular file, or is a pointer of Git
    /// LFS; [`Error::Data`] where it is in UTF-16 or UTF-32, a list whose JSON is broken, or has millions of records of
    /// a few bytes. A broken line is a bad record.
    pub fn open(file: impl AsRef<Path>) -> Result<Self> {
        let file = file.as_ref().to_owned();
        let bytes = if file::open(&file)?.1 == 0 { Bytes::new() } else { map(&file)? };
        file::check_lfs(&file, &bytes)?;
        if let Some(encoding) = other_encoding(&bytes) {
            let reason = format!("the text is in {encoding}; save it as UTF-8");
            return Err(Error::Data { file, reason });
        }
        let text = file::without_mark(&bytes).trim_ascii_start();
        let places = if text.starts_with(b"[") { elements(&bytes, bytes.len() - text.len()) } else { lines(&bytes) };
        let places = places.map_err(|reason| Error::Data { file: file.clone(), reason })?;
        Ok(Self { source: RecordSource::File { file, bytes, places, images: None } })
    }

    /// Keeps images inside a folder, to which their paths are then relative: a record whose image lies elsewhere, by
    /// `..`, as an absolute path or through a symbolic link, is a bad one. For records that somebody else wrote.
    #[must_use]
    pub fn images_inside(mut self, root: impl Into<PathBuf>) -> Self {
        if let RecordSource::File { images, .. } = &mut self.source {
            *images = Some(root.into());
        }
        self
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
    /// [`Error::Tokenizer`] where it is not a record, [`Error::Images`] where an image cannot be decoded,
    /// [`Error::Core`] where it cannot be read or lies outside of its folder, [`Error::Data`] where the record or its
    /// images together are too large, [`Error::NoItem`].
    pub fn load(&self, index: usize) -> Result<(Record, Vec<InputImage>)> {
        if index >= self.len() {
            return Err(Error::NoItem { index, len: self.len() });
        }
        match &self.source {
            RecordSource::File { file, bytes, places, images } => {
                let record = &bytes[places[index].clone()];
                let limit = Limits::default().document_bytes;
                if record.len() as u64 > limit {
                    let reason = format!("record {index} has {} bytes, more than the limit of {limit}", record.len());
                    return Err(Error::Data { file: file.clone(), reason });
                }
                file::check_json(file, record)?;
                // Bytes that are not UTF-8 become U+FFFD: better than to lose the record.
                let text = String::from_utf8_lossy(record);
                let record = Record::from_json(&text).or_else(|error| match with_finite_numbers(text.as_bytes()) {
                    Cow::Borrowed(_) => Err(error),
                    Cow::Owned(finite) => Record::from_json(&String::from_utf8_lossy(&finite)),
                })?;
                let folder = file.parent().unwrap_or(Path::new(""));
                // All are in memory at once.
                let (mut pixels, most) = (0, 2 * Limits::default().image_pixels);
                let open = |path: &PathBuf| {
                    let image = match images {
                        None => folder.join(path),
                        Some(root) => file::inside(root, path)?,
                    };
                    let image = InputImage::open(image)?;
                    // One image can be named many times.
                    pixels += u64::from(image.width()) * u64::from(image.height());
                    if pixels > most {
                        let reason = format!(
                            "the images of record {index} have more than {most} pixels together; make them smaller"
                        );
                        return Err(Error::Data { file: file.clone(), reason });
                    }
                    Ok(image)
                };
                let images = record.image.iter().map(open).collect::<Result<_>>()?;
                Ok((record, images))
            }
            RecordSource::Made { make, .. } => Ok(make(index)),
        }
    }

    /// Tells these records from others: their number, which [`Records::number_in`] reads, and a checksum of their file.
    pub(super) fn fingerprint(&self) -> String {
        match &self.source {
            RecordSource::File { bytes, .. } => {
                format!("{} records of CRC-32 {:08x}", self.len(), crc32fast::hash(bytes))
            }
            RecordSource::Made { n_records, .. } => format!("{n_records} records in memory"),
        }
    }

    /// The number of records in a [`Records::fingerprint`].
    pub(super) fn number_in(fingerprint: &str) -> Option<u64> {
        fingerprint.split_once(" records ")?.0.parse().ok()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_has_the_number() {
        let records = open(&format!("{RECORD}\n{RECORD}")).unwrap();
        assert_eq!(Records::number_in(&records.fingerprint()), Some(2));
        let made = Records::made(7, |_| unreachable!());
        assert_eq!(Records::number_in(&made.fingerprint()), Some(7));
        assert_eq!(Records::number_in("records"), None);
    }

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
