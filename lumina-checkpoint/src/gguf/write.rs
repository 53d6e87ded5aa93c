//! Writing one GGUF file.

use std::collections::BTreeSet;
use std::path::Path;

use super::dtype::to_gguf;
use super::read::{DEFAULT_ALIGNMENT, MAGIC, MAX_AXES};
use super::value::{Array, Value, code};
use crate::Dtype;
use crate::save::Partial;
use crate::{Error, Result};

/// The version of the format that is written.
const VERSION: u32 = 3;

/// The limit of llama.cpp on the name of a tensor, in bytes.
const MAX_NAME_BYTES: usize = 63;

/// Writes a GGUF file tensor by tensor, in the order that [`create`](Self::create) was given, each in one or several
/// pieces.
///
/// The file is written under a temporary name in the same folder and then renamed, as by
/// [`save_safetensors`](crate::save_safetensors). A writer that is dropped before [`finish`](Self::finish) removes it.
///
/// ```
/// use lumina_checkpoint::gguf::{GgufWriter, Value};
/// use lumina_checkpoint::{Checkpoint, Dtype};
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("numbers.gguf");
/// let metadata = [("general.architecture", Value::from("none"))];
/// let mut writer = GgufWriter::create(&path, metadata, [("a", Dtype::F32, [2]), ("b", Dtype::F32, [1])])?;
/// for value in [1.0f32, 2.0, 3.0] {
///     writer.append(&value.to_le_bytes())?;
/// }
/// writer.finish()?;
///
/// let checkpoint = Checkpoint::open(&path)?;
/// assert_eq!(checkpoint.get("a").expect("it was just written").to_f32()?, [1.0, 2.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct GgufWriter<'a> {
    path: &'a Path,
    partial: Partial<'a>,
    /// Name and length in bytes of each tensor.
    tensors: Vec<(String, u64)>,
    /// The tensor that is being written, and how many bytes of it are written.
    current: usize,
    written: u64,
}

impl<'a> GgufWriter<'a> {
    /// Creates the file and writes everything before the tensors: metadata, then names, types and shapes (outermost
    /// axis first).
    ///
    /// # Errors
    /// [`Error::Unsavable`] where two tensors have one name, or where the format or llama.cpp does not allow a type,
    /// shape or name; [`Error::Metadata`] where a key occurs twice; [`Error::Write`].
    pub fn create<K, N, S>(
        path: &'a Path,
        metadata: impl IntoIterator<Item = (K, Value)>,
        tensors: impl IntoIterator<Item = (N, Dtype, S)>,
    ) -> Result<Self>
    where
        K: AsRef<str>,
        N: Into<String>,
        S: AsRef<[usize]>,
    {
        let mut keys = BTreeSet::new();
        let mut entries = Vec::new();
        for (key, value) in metadata {
            let key = key.as_ref();
            if !keys.insert(key.to_owned()) {
                let reason = "two values are given".to_owned();
                return Err(Error::Metadata { file: path.to_owned(), key: key.to_owned(), reason });
            }
            write_string(&mut entries, key);
            write_value(&mut entries, &value);
        }
        let mut names = BTreeSet::new();
        let mut lengths = Vec::new();
        let mut described = Vec::new();
        let mut offset = 0;
        for (name, dtype, shape) in tensors {
            let name = name.into();
            let length = describe(&mut described, &name, dtype, shape.as_ref(), offset)
                .and_then(
                    |end| if names.insert(name.clone()) { Ok(end) } else { Err("two tensors have this name".into()) },
                )
                .map_err(|reason| Error::Unsavable { file: path.to_owned(), tensor: name.clone(), reason })?;
            // No overflow: at most the address space, plus alignment.
            offset = (offset + length).next_multiple_of(DEFAULT_ALIGNMENT);
            lengths.push((name, length));
        }

        let mut header = MAGIC.to_vec();
        header.extend(VERSION.to_le_bytes());
        header.extend((lengths.len() as u64).to_le_bytes());
        header.extend((keys.len() as u64).to_le_bytes());
        header.append(&mut entries);
        header.append(&mut described);
        header.resize(header.len().next_multiple_of(DEFAULT_ALIGNMENT as usize), 0);
        let mut partial = Partial::create(path)?;
        partial.write(&header)?;
        let mut writer = Self { path, partial, tensors: lengths, current: 0, written: 0 };
        writer.skip_empty();
        Ok(writer)
    }

    /// Writes the next bytes of the current tensor. After its last byte, the next tensor is the current one.
    ///
    /// # Errors
    /// [`Error::Unsavable`] where the tensor has fewer bytes left; [`Error::Write`].
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let Some((name, length)) = self.tensors.get(self.current) else {
            return Err(self.unsavable("", "bytes are given after the last tensor".to_owned()));
        };
        let written = self.written + bytes.len() as u64;
        if written > *length {
            return Err(self.unsavable(name, format!("it has {length} bytes, at least {written} were given")));
        }
        self.partial.write(bytes)?;
        self.written = written;
        if written == *length {
            let padding = length.next_multiple_of(DEFAULT_ALIGNMENT) - length;
            self.partial.write(&[0; DEFAULT_ALIGNMENT as usize][..padding as usize])?;
            self.current += 1;
            self.written = 0;
            self.skip_empty();
        }
        Ok(())
    }

    /// Completes the file and renames it.
    ///
    /// # Errors
    /// [`Error::Unsavable`] where a tensor lacks bytes; [`Error::Write`].
    pub fn finish(self) -> Result<()> {
        if let Some((name, length)) = self.tensors.get(self.current) {
            return Err(self.unsavable(name, format!("it has {length} bytes, only {} were given", self.written)));
        }
        self.partial.finish()
    }

    fn skip_empty(&mut self) {
        while self.tensors.get(self.current).is_some_and(|(_, length)| *length == 0) {
            self.current += 1;
        }
    }

    fn unsavable(&self, tensor: &str, reason: String) -> Error {
        Error::Unsavable { file: self.path.to_owned(), tensor: tensor.to_owned(), reason }
    }
}

/// Writes the description of a tensor at `offset`, and returns its length in bytes.
fn describe(
    out: &mut Vec<u8>,
    name: &str,
    dtype: Dtype,
    shape: &[usize],
    offset: u64,
) -> std::result::Result<u64, String> {
    if name.len() > MAX_NAME_BYTES {
        return Err(format!("its name is longer than the {MAX_NAME_BYTES} bytes that llama.cpp reads"));
    }
    if shape.len() > MAX_AXES {
        return Err(format!("shape {shape:?} has more than the {MAX_AXES} axes that GGUF has"));
    }
    let number = to_gguf(dtype).ok_or_else(|| format!("GGUF has no type {dtype}"))?;
    let length = dtype
        .bytes_of(shape)
        .filter(|&length| offset.checked_add(length as u64).is_some_and(|end| end < i64::MAX as u64))
        .ok_or_else(|| format!("shape {shape:?} overflows, or has rows that are no whole blocks of {dtype}"))?;
    write_string(out, name);
    out.extend((shape.len() as u32).to_le_bytes());
    for &axis in shape.iter().rev() {
        out.extend((axis as u64).to_le_bytes());
    }
    out.extend(number.to_le_bytes());
    out.extend(offset.to_le_bytes());
    Ok(length as u64)
}

fn write_string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// Writes the number of a value's type, then the value.
fn write_value(out: &mut Vec<u8>, value: &Value) {
    let mut scalar = |code: u32, bytes: &[u8]| {
        out.extend(code.to_le_bytes());
        out.extend(bytes);
    };
    match value {
        Value::U8(value) => scalar(code::U8, &value.to_le_bytes()),
        Value::I8(value) => scalar(code::I8, &value.to_le_bytes()),
        Value::U16(value) => scalar(code::U16, &value.to_le_bytes()),
        Value::I16(value) => scalar(code::I16, &value.to_le_bytes()),
        Value::U32(value) => scalar(code::U32, &value.to_le_bytes()),
        Value::I32(value) => scalar(code::I32, &value.to_le_bytes()),
        Value::U64(value) => scalar(code::U64, &value.to_le_bytes()),
        Value::I64(value) => scalar(code::I64, &value.to_le_bytes()),
        Value::F32(value) => scalar(code::F32, &value.to_le_bytes()),
        Value::F64(value) => scalar(code::F64, &value.to_le_bytes()),
        Value::Bool(value) => scalar(code::BOOL, &[u8::from(*value)]),
        Value::String(text) => {
            scalar(code::STRING, &[]);
            write_string(out, text);
        }
        Value::Array(array) => {
            scalar(code::ARRAY, &[]);
            write_array(out, array);
        }
    }
}

/// Writes an array: the type of its elements, their number, the elements.
fn write_array(out: &mut Vec<u8>, array: &Array) {
    fn numbers<T: Copy, const N: usize>(out: &mut Vec<u8>, code: u32, values: &[T], to_le_bytes: fn(T) -> [u8; N]) {
        count(out, code, values.len());
        out.extend(values.iter().flat_map(|&value| to_le_bytes(value)));
    }
    fn count(out: &mut Vec<u8>, code: u32, count: usize) {
        out.extend(code.to_le_bytes());
        out.extend((count as u64).to_le_bytes());
    }
    match array {
        Array::U8(values) => numbers(out, code::U8, values, u8::to_le_bytes),
        Array::I8(values) => numbers(out, code::I8, values, i8::to_le_bytes),
        Array::U16(values) => numbers(out, code::U16, values, u16::to_le_bytes),
        Array::I16(values) => numbers(out, code::I16, values, i16::to_le_bytes),
        Array::U32(values) => numbers(out, code::U32, values, u32::to_le_bytes),
        Array::I32(values) => numbers(out, code::I32, values, i32::to_le_bytes),
        Array::U64(values) => numbers(out, code::U64, values, u64::to_le_bytes),
        Array::I64(values) => numbers(out, code::I64, values, i64::to_le_bytes),
        Array::F32(values) => numbers(out, code::F32, values, f32::to_le_bytes),
        Array::F64(values) => numbers(out, code::F64, values, f64::to_le_bytes),
        Array::Bool(values) => numbers(out, code::BOOL, values, |value| [u8::from(value)]),
        Array::String(texts) => {
            count(out, code::STRING, texts.len());
            texts.iter().for_each(|text| write_string(out, text));
        }
        Array::Array(arrays) => {
            count(out, code::ARRAY, arrays.len());
            arrays.iter().for_each(|array| write_array(out, array));
        }
    }
}
