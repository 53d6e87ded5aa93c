//! TensorBoard's event files: records of protobuf messages.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::{MetricsWriter, StepRecord};
use crate::{Error, Result};

/// An event file of scalars. Layout: `tensorflow/core/util/event.proto`, in records of
/// `tensorflow/core/lib/io/record_writer.h`.
#[derive(Debug)]
pub struct TensorBoard {
    file: PathBuf,
    out: File,
}

impl TensorBoard {
    /// Makes `events.out.tfevents.<start in unix seconds>.lumina` in a folder, which is made if absent. A resumed run
    /// makes another file in the same folder; TensorBoard reads them in the order of their names.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn create(folder: &Path, start: SystemTime) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(|source| Error::Write { file: folder.to_owned(), source })?;
        let name = format!("events.out.tfevents.{:010}.lumina", since_1970(start).as_secs());
        let mut board = Self::create_next(folder, &name)?;
        board.event(start, 0, |event| event.bytes(field::FILE_VERSION, b"brain.Event:2"))?;
        Ok(board)
    }

    /// A new file of this name, followed by a number where that exists already: two runs may begin within a second.
    fn create_next(folder: &Path, name: &str) -> Result<Self> {
        let mut file = folder.join(name);
        for number in 1u32.. {
            match OpenOptions::new().append(true).create_new(true).open(&file) {
                Ok(out) => return Ok(Self { file, out }),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    file = folder.join(format!("{name}.{number}"));
                }
                Err(source) => return Err(Error::Write { file, source }),
            }
        }
        Err(Error::Write { file, source: ErrorKind::AlreadyExists.into() })
    }

    /// Continues after a checkpoint: TensorBoard hides what other files of the folder have of steps beyond `step`.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn resume_at(&mut self, step: u64, time: SystemTime) -> Result<()> {
        const START: u64 = 1;
        let mut session = Message::default();
        session.integer(field::SESSION_STATUS, START);
        self.event(time, step + 1, |event| event.bytes(field::SESSION_LOG, &session.0))
    }

    /// Writes values of a step under their tags, such as `train/loss`, in `f32`.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn scalars(&mut self, step: u64, time: SystemTime, values: &[(&str, f64)]) -> Result<()> {
        let mut summary = Message::default();
        for &(tag, value) in values {
            let mut one = Message::default();
            one.bytes(field::TAG, tag.as_bytes());
            one.float(field::SIMPLE_VALUE, value as f32);
            summary.bytes(field::VALUE, &one.0);
        }
        self.event(time, step, |event| event.bytes(field::SUMMARY, &summary.0))
    }

    fn event(&mut self, time: SystemTime, step: u64, fill: impl FnOnce(&mut Message)) -> Result<()> {
        let mut event = Message::default();
        event.double(field::WALL_TIME, since_1970(time).as_secs_f64());
        event.integer(field::STEP, step);
        fill(&mut event);
        let length = (event.0.len() as u64).to_le_bytes();
        let (length_checksum, checksum) = (masked_crc(&length), masked_crc(&event.0));
        let record = [&length[..], &length_checksum, &event.0, &checksum].concat();
        // One call, so that a process that is killed leaves whole records.
        self.out.write_all(&record).map_err(|source| Error::Write { file: self.file.clone(), source })
    }
}

impl MetricsWriter for TensorBoard {
    fn resume(&mut self, step: u64, time: SystemTime) -> Result<()> {
        self.resume_at(step, time)
    }

    fn write(&mut self, step: &StepRecord) -> Result<()> {
        self.scalars(step.step, step.time, &step.scalars)
    }
}

/// Numbers of fields in the messages `Event`, `Summary`, `Summary.Value` and `SessionLog`.
mod field {
    pub(super) const WALL_TIME: u64 = 1;
    pub(super) const STEP: u64 = 2;
    pub(super) const FILE_VERSION: u64 = 3;
    pub(super) const SUMMARY: u64 = 5;
    pub(super) const SESSION_LOG: u64 = 7;
    pub(super) const VALUE: u64 = 1;
    pub(super) const TAG: u64 = 1;
    pub(super) const SIMPLE_VALUE: u64 = 2;
    pub(super) const SESSION_STATUS: u64 = 1;
}

/// A protobuf message that is being written: fields, each after its number and wire type.
#[derive(Debug, Default)]
struct Message(Vec<u8>);

impl Message {
    fn integer(&mut self, field: u64, value: u64) {
        self.varint(field << 3);
        self.varint(value);
    }

    fn double(&mut self, field: u64, value: f64) {
        self.varint(field << 3 | 1);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend(value);
    }

    fn float(&mut self, field: u64, value: f32) {
        self.varint(field << 3 | 5);
        self.0.extend(value.to_le_bytes());
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

/// A time before 1970 counts as 1970.
fn since_1970(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// The checksum of a record's parts: CRC-32C, rotated and offset, as the format has it.
fn masked_crc(bytes: &[u8]) -> [u8; 4] {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use super::*;

    /// CRC-32C bit by bit, from its polynomial.
    fn crc(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0u32, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 })
        })
    }

    #[derive(Debug, PartialEq)]
    enum Value<'a> {
        Integer(u64),
        Double(f64),
        Bytes(&'a [u8]),
        Float(f32),
    }

    /// Splits off `n` bytes.
    fn take<'a>(bytes: &mut &'a [u8], n: usize) -> &'a [u8] {
        let (head, tail) = bytes.split_at(n);
        *bytes = tail;
        head
    }

    fn varint(bytes: &mut &[u8]) -> u64 {
        let length = bytes.iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
        take(bytes, length).iter().rev().fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f))
    }

    /// The fields of a message.
    fn fields(mut bytes: &[u8]) -> Vec<(u64, Value<'_>)> {
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes);
            let value = match key & 7 {
                0 => Value::Integer(varint(&mut bytes)),
                1 => Value::Double(f64::from_le_bytes(take(&mut bytes, 8).try_into().unwrap())),
                2 => {
                    let length = varint(&mut bytes) as usize;
                    Value::Bytes(take(&mut bytes, length))
                }
                5 => Value::Float(f32::from_le_bytes(take(&mut bytes, 4).try_into().unwrap())),
                other => panic!("wire type {other}"),
            };
            fields.push((key >> 3, value));
        }
        fields
    }

    /// The payloads of a file's records, after their checksums are verified.
    fn records(mut bytes: &[u8]) -> Vec<&[u8]> {
        let check = |data: &[u8], found: &[u8]| {
            let crc = crc(data);
            let expected = crc.rotate_right(15).wrapping_add(0xa282_ead8);
            assert_eq!(found, expected.to_le_bytes());
        };
        let mut records = Vec::new();
        while !bytes.is_empty() {
            let length = take(&mut bytes, 8);
            check(length, take(&mut bytes, 4));
            let payload = take(&mut bytes, u64::from_le_bytes(length.try_into().unwrap()) as usize);
            check(payload, take(&mut bytes, 4));
            records.push(payload);
        }
        records
    }

    #[test]
    fn records_can_be_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let at = |seconds: f64| SystemTime::UNIX_EPOCH + Duration::from_secs_f64(seconds);
        let mut board = TensorBoard::create(&folder.path().join("new"), at(1.7e9)).unwrap();
        board.resume_at(299, at(1.7e9)).unwrap();
        board.scalars(300, at(1.7e9 + 0.5), &[("train/loss", 7.25), ("train/é", -0.1)]).unwrap();
        drop(board);
        let bytes = std::fs::read(folder.path().join("new/events.out.tfevents.1700000000.lumina")).unwrap();
        let records = records(&bytes);
        assert_eq!(records.len(), 3);
        let expected = [(1, Value::Double(1.7e9)), (2, Value::Integer(0)), (3, Value::Bytes(b"brain.Event:2"))];
        assert_eq!(fields(records[0]), expected);
        let expected = [(1, Value::Double(1.7e9)), (2, Value::Integer(300)), (7, Value::Bytes(&[8, 1]))];
        assert_eq!(fields(records[1]), expected);
        let event = fields(records[2]);
        assert_eq!(event[..2], [(1, Value::Double(1.7e9 + 0.5)), (2, Value::Integer(300))]);
        let (5, Value::Bytes(summary)) = event[2] else { panic!("{event:?}") };
        let values: Vec<_> = fields(summary)
            .into_iter()
            .map(|(number, value)| match value {
                Value::Bytes(value) if number == 1 => fields(value),
                other => panic!("{number}: {other:?}"),
            })
            .collect();
        let value = |tag: &'static str, value| vec![(1, Value::Bytes(tag.as_bytes())), (2, Value::Float(value))];
        assert_eq!(values, [value("train/loss", 7.25), value("train/é", -0.1)]);
    }

    #[test]
    fn runs_that_begin_within_a_second_have_their_own_files() {
        let folder = tempfile::tempdir().unwrap();
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(7);
        let files: Vec<PathBuf> = (0..3).map(|_| TensorBoard::create(folder.path(), start).unwrap().file).collect();
        let mut sorted = files.clone();
        sorted.sort();
        sorted.dedup();
        assert_eq!(files, sorted);
        std::fs::write(folder.path().join("file"), "").unwrap();
        assert!(matches!(TensorBoard::create(&folder.path().join("file"), start), Err(Error::Write { .. })));
    }
}
