//! Lists in requests.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};

/// The most entries of a list. An empty entry takes many times the bytes of its text.
const MAX_ENTRIES: usize = 1024;

/// A list of bounded length.
#[derive(Debug)]
pub(crate) struct List<T>(pub(crate) Vec<T>);

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> IntoIterator for List<T> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ListVisitor(PhantomData))
    }
}

struct ListVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ListVisitor<T> {
    type Value = List<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<List<T>, A::Error> {
        entries(list).map(List)
    }
}

/// A text, which stands for one entry, or a list of them. What is neither is refused as it is read, and not kept.
#[derive(Debug)]
pub(crate) struct TextOrList<T>(pub(crate) Vec<T>);

/// What a text can stand for.
pub(crate) trait FromText {
    /// Several of them, for messages.
    const NAMES: &'static str;

    fn from_text(text: &str) -> Self;
}

impl FromText for String {
    const NAMES: &'static str = "texts";

    fn from_text(text: &str) -> Self {
        text.to_owned()
    }
}

impl<'de, T: Deserialize<'de> + FromText> Deserialize<'de> for TextOrList<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextOrListVisitor(PhantomData))
    }
}

struct TextOrListVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de> + FromText> Visitor<'de> for TextOrListVisitor<T> {
    type Value = TextOrList<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a text, or a list of {}", T::NAMES)
    }

    fn visit_str<E>(self, text: &str) -> Result<TextOrList<T>, E> {
        Ok(TextOrList(vec![T::from_text(text)]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<TextOrList<T>, A::Error> {
        entries(list).map(TextOrList)
    }
}

/// The entries of a list.
fn entries<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(mut list: A) -> Result<Vec<T>, A::Error> {
    let mut entries = Vec::new();
    while let Some(entry) = list.next_element()? {
        if entries.len() == MAX_ENTRIES {
            return Err(A::Error::custom(format!("a list of more than {MAX_ENTRIES} entries")));
        }
        entries.push(entry);
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_are_refused() {
        let read = |n: usize| serde_json::from_str::<List<u8>>(&format!("[{}]", vec!["1"; n].join(",")));
        assert_eq!(read(MAX_ENTRIES).unwrap().0.len(), MAX_ENTRIES);
        assert!(read(MAX_ENTRIES + 1).unwrap_err().to_string().contains("1024 entries"));
        assert!(serde_json::from_str::<List<u8>>("{}").is_err());
    }
}
