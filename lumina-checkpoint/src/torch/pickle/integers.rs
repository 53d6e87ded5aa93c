//! Pickles of plain integers.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Id, Pickle, Value};
use crate::{Error, Result, map};

/// Limit on all integers of a pickle together, because a pickle can refer to one list many times.
const MAX_INTEGERS: usize = 1 << 22;

/// A value in a pickled dict.
#[derive(Clone, PartialEq, Eq)]
pub enum Integers {
    /// One integer.
    One(i64),
    /// A list or tuple of integers.
    List(Vec<i64>),
}

/// Reads a pickled dict with text keys, whose values are integers or lists of integers, such as the items that the
/// original pre-tokenises to: `{"token": […], "label": […], "id": n}`. Nothing is executed.
///
/// # Errors
/// [`Error::Read`], [`Error::Damaged`] for an empty file, [`Error::ForeignGlobal`], and [`Error::Pickle`] for a file
/// that is not a pickle, contains other data, or has more than four million integers.
pub fn read_integers(file: &Path) -> Result<BTreeMap<String, Integers>> {
    let bytes = map(file)?;
    let pickle = Pickle::read(file, &bytes)?;
    let malformed = |reason: String| Error::Pickle { file: file.to_owned(), position: pickle.length, reason };
    let Value::Dict(items) = pickle.get(pickle.root) else {
        return Err(malformed(format!("holds {}, not a dict of integers", pickle.describe(pickle.root))));
    };

    let mut left = MAX_INTEGERS;
    let mut integers = BTreeMap::new();
    for &(key, value) in items {
        let name = pickle.text(key).ok_or_else(|| malformed(format!("a key is {}, not text", pickle.describe(key))))?;
        let integer = |id: Id| {
            let no_integer = || malformed(format!("`{}` holds {}", name.escape_debug(), pickle.describe(id)));
            pickle.int(id).ok_or_else(no_integer)
        };
        let found = match pickle.get(value) {
            Value::List(list) | Value::Tuple(list) => {
                let too_many = || malformed(format!("more than {MAX_INTEGERS} integers"));
                left = left.checked_sub(list.len()).ok_or_else(too_many)?;
                Integers::List(list.iter().map(|&id| integer(id)).collect::<Result<_>>()?)
            }
            _ => Integers::One(integer(value)?),
        };
        integers.insert(name.to_owned(), found);
    }
    Ok(integers)
}

impl std::fmt::Debug for Integers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::One(integer) => write!(f, "One({integer})"),
            Self::List(integers) => write!(f, "List(<{} integers>)", integers.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pickle: &[u8]) -> Result<BTreeMap<String, Integers>> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("0.pkl");
        std::fs::write(&file, pickle).unwrap();
        read_integers(&file)
    }

    #[test]
    fn a_dict_of_integers() {
        // {"a": [1, -1], "b": 300}, protocol 4.
        let pickle = b"\x80\x04}(\x8c\x01a](K\x01J\xff\xff\xff\xffe\x8c\x01bM\x2c\x01u.";
        let integers = read(pickle).unwrap();
        let expected = [("a".to_owned(), Integers::List(vec![1, -1])), ("b".to_owned(), Integers::One(300))];
        assert_eq!(integers, BTreeMap::from(expected));
        for end in 0..pickle.len() {
            assert!(read(&pickle[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for pickle in [
            &b"\x80\x04].'"[..],
            b"\x80\x04}K\x01K\x01s.",
            b"\x80\x04}\x8c\x01a]Nas.",
            b"\x80\x04}\x8c\x01a\x8c\x01bs.",
            b"\x80\x04cos\nsystem\n\x8c\x02ls\x85R.",
            b"not a pickle",
        ] {
            assert!(read(pickle).is_err(), "{}", pickle.escape_ascii());
        }
    }

    #[test]
    fn a_list_that_is_referred_to_again_and_again_does_not_grow_without_bound() {
        let mut pickle = b"\x80\x04}]".to_vec();
        let thousand = [b"(", &*b"K\x01".repeat(1000), b"e"].concat();
        pickle.extend(thousand.repeat(100));
        pickle.extend(b"q\x000(");
        for key in 0..100u8 {
            pickle.extend([0x8c, 1, key, b'h', 0]);
        }
        pickle.extend(b"u.");
        assert!(read(&pickle).unwrap_err().to_string().contains("integers"));
    }
}
