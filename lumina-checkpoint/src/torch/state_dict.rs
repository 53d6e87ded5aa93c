//! Tensors from the values of a torch pickle.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::pickle::{Global, Id, Pickle, Rebuild, Value};
use crate::Dtype;
use crate::tensor_view::{Layout, Stored, element_count};
use crate::{Error, Result};

/// Limit on the axes of a tensor. It bounds the memory that a hostile file can take by using one shape many times.
const MAX_AXES: usize = 16;

/// Limit on the number of tensors. It bounds what names of one tensor take, which are a few bytes each in the file.
const MAX_TENSORS: usize = 1 << 17;

/// A storage: elements of one type. Tensors are views of storages.
#[derive(Debug, Clone, Copy)]
pub(super) struct Storage<'a> {
    /// The key of its bytes in the file.
    pub(super) key: &'a str,
    /// The name of its class in torch.
    pub(super) class: &'a str,
    /// `None` where [`Dtype`] has no such type.
    pub(super) dtype: Option<Dtype>,
    /// Number of elements.
    pub(super) length: usize,
    /// `None` where the size of an element is not known.
    element_bytes: Option<usize>,
}

impl<'a> Storage<'a> {
    /// Reads `("storage", class, key, device, length)`. Before torch 1.6, `None` follows.
    pub(super) fn parse(pickle: &Pickle<'a>, place: Id) -> Option<Self> {
        let (&[_, class, key, _, length], rest) = pickle.tuple(place)?.split_first_chunk()?;
        // Other values describe a view of another storage, which torch has not written since 0.4.
        if rest.iter().any(|&view| !matches!(pickle.get(view), Value::Plain("None"))) {
            return None;
        }
        let &Value::Global { global, name: class, .. } = pickle.get(class) else { return None };
        let (dtype, element_bytes) = match global {
            Global::Storage(dtype) => (dtype, dtype.map(Dtype::block_bytes)),
            Global::UntypedStorage => (None, Some(1)),
            _ => return None,
        };
        let length = usize::try_from(pickle.int(length)?).ok()?;
        Some(Self { key: pickle.text(key)?, class, dtype, length, element_bytes })
    }

    /// The length in bytes; `None` where it overflows or is not known.
    pub(super) fn bytes(&self) -> Option<usize> {
        self.length.checked_mul(self.element_bytes?)
    }
}

/// The tensors of a pickle: those under the key `state_dict`, or those at the top level if there is no such key.
///
/// A `state_dict` must contain tensors only. Next to it, and among tensors at the top level, other values are skipped.
/// `storage` returns the bytes of a storage.
pub(super) fn read(
    file: &Path,
    pickle: &Pickle<'_>,
    mut storage: impl FnMut(Storage<'_>) -> Result<Bytes>,
) -> Result<Vec<Stored>> {
    let wrong = |reason: String| Error::StateDict { file: file.to_owned(), reason };
    let Value::Dict(top) = pickle.get(pickle.root) else {
        return Err(wrong(format!("its top level is {}", pickle.describe(pickle.root))));
    };
    // The last of equal keys counts, as in Python.
    let state_dict = top.iter().rev().find(|(key, _)| pickle.text(*key) == Some("state_dict"));
    let entries = match state_dict.map(|&(_, value)| (value, pickle.get(value))) {
        None => top,
        Some((_, Value::Dict(entries))) => entries,
        Some((value, _)) => return Err(wrong(format!("its `state_dict` is {}", pickle.describe(value)))),
    };

    let mut by_name = BTreeMap::new();
    for &(key, value) in entries {
        match (pickle.text(key), pickle.get(value)) {
            (Some(name), &Value::Tensor(rebuild, arguments)) => {
                by_name.insert(name, (rebuild, arguments));
            }
            _ if state_dict.is_none() => {}
            (Some(name), _) => {
                return Err(wrong(format!("`{name}` in its `state_dict` is {}", pickle.describe(value))));
            }
            (None, _) => return Err(wrong(format!("a key of its `state_dict` is {}", pickle.describe(key)))),
        }
    }
    if by_name.is_empty() {
        let keys = top.iter().filter_map(|(key, _)| pickle.text(*key)).filter(|key| key.len() <= 100).take(10);
        return Err(wrong(format!("it holds no tensor; its top level has the keys {:?}", keys.collect::<Vec<_>>())));
    }

    if by_name.len() > MAX_TENSORS {
        return Err(wrong(format!(
            "it holds {} tensors, more than the {MAX_TENSORS} that any model has",
            by_name.len()
        )));
    }

    let shared: Arc<Path> = file.into();
    let tensors = by_name.into_iter().map(|(name, (rebuild, arguments))| {
        let view = View::parse(pickle, rebuild, arguments)
            .ok_or_else(|| layout(file, name, "its parts are not those of a tensor".to_owned()))?;
        view.stored(name, &shared, &mut storage)
    });
    tensors.collect()
}

fn layout(file: &Path, tensor: &str, reason: String) -> Error {
    Error::TensorLayout { file: file.to_owned(), tensor: tensor.to_owned(), reason }
}

/// The description of a tensor in a pickle.
struct View<'a> {
    storage: Storage<'a>,
    /// The type, or its name where [`Dtype`] has no such type.
    dtype: std::result::Result<Dtype, &'a str>,
    /// In elements. So are the strides.
    offset: i64,
    shape: Vec<i64>,
    strides: Vec<i64>,
}

impl<'a> View<'a> {
    /// Reads the arguments of a function that builds a tensor.
    fn parse(pickle: &Pickle<'a>, rebuild: Rebuild, arguments: Id) -> Option<Self> {
        let (&[storage, offset, shape, strides], rest) = pickle.tuple(arguments)?.split_first_chunk()?;
        let &Value::Storage(place) = pickle.get(storage) else { return None };
        let storage = Storage::parse(pickle, place)?;
        let dtype = match rebuild {
            Rebuild::TypeOfStorage => storage.dtype.ok_or(storage.class),
            Rebuild::OwnType => match pickle.get(*rest.get(2)?) {
                &Value::Global { global: Global::Dtype(dtype), name, .. } => dtype.ok_or(name),
                _ => return None,
            },
        };
        let lengths = |place| {
            let axes = pickle.tuple(place).filter(|axes| axes.len() <= MAX_AXES)?;
            axes.iter().map(|&length| pickle.int(length)).collect::<Option<Vec<_>>>()
        };
        Some(Self { storage, dtype, offset: pickle.int(offset)?, shape: lengths(shape)?, strides: lengths(strides)? })
    }

    /// Checks that the view is within its storage, and finds the bytes.
    fn stored(
        &self,
        name: &str,
        file: &Arc<Path>,
        storage: impl FnOnce(Storage<'_>) -> Result<Bytes>,
    ) -> Result<Stored> {
        let wrong = |reason: String| layout(file, name, reason);
        let dtype = self.dtype.map_err(|found| Error::TensorType {
            file: file.to_path_buf(),
            tensor: name.to_owned(),
            found: found.to_owned(),
            expected: "a float of 16 to 64 bits, an integer or bool",
        })?;

        let usable =
            |lengths: &[i64]| lengths.iter().map(|&length| usize::try_from(length).ok()).collect::<Option<Vec<_>>>();
        let shape =
            usable(&self.shape).ok_or_else(|| wrong(format!("its shape {:?} has a negative length", self.shape)))?;
        let strides = usable(&self.strides)
            .filter(|strides| strides.len() == shape.len())
            .ok_or_else(|| wrong(format!("its strides {:?} do not fit shape {shape:?}", self.strides)))?;
        let offset = usize::try_from(self.offset).map_err(|_| wrong(format!("its offset is {}", self.offset)))?;
        let count = element_count(&shape).ok_or_else(|| wrong(format!("its shape {shape:?} overflows")))?;

        let Storage { key, length, .. } = self.storage;
        let claimed = self.storage.bytes().ok_or_else(|| wrong(format!("its storage claims {length} elements")))?;
        let bytes = storage(self.storage)?;
        if bytes.len() < claimed {
            return Err(wrong(format!("its storage `{key}` claims {claimed} bytes, {} are there", bytes.len())));
        }
        let available = claimed / dtype.block_bytes();

        let (bytes, layout) = if count == 0 {
            (Bytes::new(), Layout::RowMajor)
        } else {
            // The end of the last element of the view.
            let end = shape
                .iter()
                .zip(&strides)
                .try_fold(offset, |at, (length, stride)| at.checked_add((length - 1).checked_mul(*stride)?))
                .and_then(|last| last.checked_add(1))
                .filter(|&end| end <= available)
                .ok_or_else(|| {
                    let view = format!("offset {offset}, shape {shape:?}, strides {strides:?}");
                    wrong(format!("its view ({view}) reaches beyond the {available} elements of its storage `{key}`"))
                })?;
            // With repeated elements a small file could make a huge tensor.
            if count > available {
                return Err(wrong(format!("it has {count} elements, and its storage `{key}` only {available}")));
            }
            let size = dtype.block_bytes();
            let layout =
                if is_row_major(&shape, &strides) { Layout::RowMajor } else { Layout::Strides(strides.into()) };
            (bytes.slice(offset * size..end * size), layout)
        };
        Ok(Stored {
            name: name.to_owned(),
            file: file.clone(),
            dtype,
            shape: shape.into(),
            bytes,
            layout,
            reorder: None,
        })
    }
}

fn is_row_major(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1;
    for (&length, &stride) in shape.iter().zip(strides).rev() {
        // The stride of an axis of length one is not used, and torch writes any number there.
        if length != 1 && stride != expected {
            return false;
        }
        expected *= length;
    }
    true
}
