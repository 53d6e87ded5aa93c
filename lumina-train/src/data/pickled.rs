//! Items that the original has pre-tokenised, each a pickle.

use std::path::Path;

use lumina_checkpoint::{Integers, read_integers};
use lumina_tokenizer::IGNORED;

use super::shard::Item;
use crate::{Error, Result};

/// Reads a pickled `{"token": […], "label": […], "id": n}`. Nothing in it is executed.
///
/// Mirrors `pre_tokenize.py`, which writes them, and `ItemProcessor.process_item` of the original's training.
///
/// # Errors
/// [`Error::Checkpoint`] where it cannot be read or is not a pickle of integers, [`Error::Data`] where it is not an
/// item.
pub fn read_pickled(file: impl AsRef<Path>) -> Result<Item> {
    let file = file.as_ref();
    let fault = |reason: String| Error::Data { file: file.to_owned(), reason };
    let mut found = read_integers(file)?;
    let mut list = |key: &str| match found.remove(key) {
        Some(Integers::List(list)) => Ok(list),
        _ => Err(fault(format!("not a pre-tokenised item: it has no list `{key}`"))),
    };
    let (tokens, labels) = (list("token")?, list("label")?);
    if tokens.len() != labels.len() {
        return Err(fault(format!("{} tokens but {} labels", tokens.len(), labels.len())));
    }
    let token = |token: i64| u32::try_from(token).map_err(|_| fault(format!("{token} is not a token")));
    let tokens = tokens.into_iter().map(token).collect::<Result<Vec<u32>>>()?;
    if let Some(label) = labels.iter().find(|&&label| label != IGNORED && u32::try_from(label).is_err()) {
        return Err(fault(format!("{label} is not a label: neither a token nor {IGNORED}")));
    }
    match found.get("id") {
        Some(&Integers::One(id)) if id >= 0 => Ok(Item { id: id.unsigned_abs(), tokens, labels }),
        _ => Err(fault("not a pre-tokenised item: it has no index `id`".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pickle: &[u8]) -> Result<Item> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("7.pkl");
        std::fs::write(&file, pickle).unwrap();
        read_pickled(&file)
    }

    fn pickle(token: &[u8], label: &[u8], id: &[u8]) -> Vec<u8> {
        let key = |name: &str| [&[0x8c, name.len() as u8][..], name.as_bytes()].concat();
        [b"\x80\x04}(", &*key("token"), b"](", token, b"e", &*key("label"), b"](", label, b"e", &*key("id"), id, b"u."]
            .concat()
    }

    #[test]
    fn an_item() {
        let item = read(&pickle(b"K\x05K\x06", b"J\x9c\xff\xff\xffK\x06", b"K\x07")).unwrap();
        assert_eq!(item, Item { id: 7, tokens: vec![5, 6], labels: vec![IGNORED, 6] });
    }

    #[test]
    fn other_pickles_are_refused() {
        for (token, label, id) in [
            (&b"K\x05"[..], &b"K\x05K\x05"[..], &b"K\x07"[..]),
            (b"J\x9c\xff\xff\xff", b"K\x05", b"K\x07"),
            (b"K\x05", b"J\xff\xff\xff\xff", b"K\x07"),
            (b"K\x05", b"K\x05", b"J\xff\xff\xff\xff"),
            (b"K\x05", b"K\x05", b"]"),
        ] {
            assert!(matches!(read(&pickle(token, label, id)), Err(Error::Data { .. })));
        }
        assert!(matches!(read(b"\x80\x04}."), Err(Error::Data { .. })));
    }
}
