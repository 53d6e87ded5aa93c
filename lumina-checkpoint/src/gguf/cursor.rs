//! Reads numbers, strings and metadata values from the bytes of a header.

use std::path::Path;

use super::value::{Array, Value, code};
use crate::{Error, Result};

/// Limit on everything before the tensors, in bytes. A vocabulary, a `config.json` and a `tokenizer.json` of 65,536
/// tokens have a tenth of that, and four times as many tokens two thirds. The values of a header have up to seven times
/// its bytes on the heap.
const MAX_HEADER_BYTES: usize = 1 << 26;

/// How deep arrays can nest. Real files have no nested arrays.
const MAX_DEPTH: usize = 4;

/// The smallest element of an array of strings (its length), and of an array of arrays (type and length).
const STRING_BYTES: usize = 8;
const ARRAY_BYTES: usize = 12;

/// Reads a header from the start. Every length is compared with the rest of the file before anything is allocated for
/// it.
pub(super) struct Cursor<'a> {
    file: &'a Path,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(file: &'a Path, bytes: &'a [u8]) -> Self {
        Self { file, bytes, at: 0 }
    }

    /// The number of bytes read so far.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// The error that the bytes just read contradict the format.
    pub(super) fn damaged(&self, reason: impl std::fmt::Display) -> Error {
        Error::Damaged { file: self.file.to_owned(), reason: format!("before byte {}: {reason}", self.at) }
    }

    /// Checks that `count` elements of at least `bytes` each can follow.
    pub(super) fn expect(&self, count: u64, bytes: usize) -> Result<usize> {
        let needed = count.saturating_mul(bytes as u64).saturating_add(self.at as u64);
        let found = self.bytes.len() as u64;
        if needed > found {
            return Err(Error::Truncated { file: self.file.to_owned(), needed, found });
        }
        if needed > MAX_HEADER_BYTES as u64 {
            return Err(self.damaged(format!("a header of more than {MAX_HEADER_BYTES} bytes, which no model has")));
        }
        // At most the length of the file, so it fits.
        Ok(count as usize)
    }

    fn take(&mut self, count: u64, bytes: usize) -> Result<&'a [u8]> {
        let length = self.expect(count, bytes)? * bytes;
        let taken = &self.bytes[self.at..self.at + length];
        self.at += length;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(1, N)?);
        Ok(array)
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(super) fn string(&mut self) -> Result<&'a str> {
        let length = self.u64()?;
        let bytes = self.take(length, 1)?;
        std::str::from_utf8(bytes).map_err(|error| self.damaged(format!("a text that is not UTF-8 ({error})")))
    }

    fn bool(&mut self) -> Result<bool> {
        let [byte] = self.array()?;
        self.to_bool(byte)
    }

    fn to_bool(&self, byte: u8) -> Result<bool> {
        match byte {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.damaged(format!("a truth value of {byte}"))),
        }
    }

    /// A value, which follows the number of its type.
    pub(super) fn value(&mut self) -> Result<Value> {
        Ok(match self.u32()? {
            code::U8 => Value::U8(u8::from_le_bytes(self.array()?)),
            code::I8 => Value::I8(i8::from_le_bytes(self.array()?)),
            code::U16 => Value::U16(u16::from_le_bytes(self.array()?)),
            code::I16 => Value::I16(i16::from_le_bytes(self.array()?)),
            code::U32 => Value::U32(self.u32()?),
            code::I32 => Value::I32(i32::from_le_bytes(self.array()?)),
            code::U64 => Value::U64(self.u64()?),
            code::I64 => Value::I64(i64::from_le_bytes(self.array()?)),
            code::F32 => Value::F32(f32::from_le_bytes(self.array()?)),
            code::F64 => Value::F64(f64::from_le_bytes(self.array()?)),
            code::BOOL => Value::Bool(self.bool()?),
            code::STRING => Value::String(self.string()?.to_owned()),
            code::ARRAY => Value::Array(self.elements(MAX_DEPTH)?),
            other => return Err(self.damaged(format!("a value of the unknown type {other}"))),
        })
    }

    /// An array without the number that says so. `depth` levels of nesting are allowed, this one included.
    fn elements(&mut self, depth: usize) -> Result<Array> {
        if depth == 0 {
            return Err(self.damaged(format!("arrays more than {MAX_DEPTH} deep in one another")));
        }
        let kind = self.u32()?;
        let count = self.u64()?;
        Ok(match kind {
            code::U8 => Array::U8(self.numbers(count, u8::from_le_bytes)?),
            code::I8 => Array::I8(self.numbers(count, i8::from_le_bytes)?),
            code::U16 => Array::U16(self.numbers(count, u16::from_le_bytes)?),
            code::I16 => Array::I16(self.numbers(count, i16::from_le_bytes)?),
            code::U32 => Array::U32(self.numbers(count, u32::from_le_bytes)?),
            code::I32 => Array::I32(self.numbers(count, i32::from_le_bytes)?),
            code::U64 => Array::U64(self.numbers(count, u64::from_le_bytes)?),
            code::I64 => Array::I64(self.numbers(count, i64::from_le_bytes)?),
            code::F32 => Array::F32(self.numbers(count, f32::from_le_bytes)?),
            code::F64 => Array::F64(self.numbers(count, f64::from_le_bytes)?),
            code::BOOL => {
                let bytes = self.take(count, 1)?;
                Array::Bool(bytes.iter().map(|&byte| self.to_bool(byte)).collect::<Result<_>>()?)
            }
            code::STRING => {
                let mut strings = Vec::with_capacity(self.expect(count, STRING_BYTES)?);
                for _ in 0..count {
                    strings.push(self.string()?.to_owned());
                }
                Array::String(strings)
            }
            code::ARRAY => {
                let mut arrays = Vec::with_capacity(self.expect(count, ARRAY_BYTES)?);
                for _ in 0..count {
                    arrays.push(self.elements(depth - 1)?);
                }
                Array::Array(arrays)
            }
            other => return Err(self.damaged(format!("an array of the unknown type {other}"))),
        })
    }

    fn numbers<T, const N: usize>(&mut self, count: u64, from_le_bytes: fn([u8; N]) -> T) -> Result<Vec<T>> {
        let bytes = self.take(count, N)?;
        Ok(bytes.as_chunks().0.iter().map(|&chunk| from_le_bytes(chunk)).collect())
    }
}
