//! Token shards: the format, and reading it.
//!
//! The layout is in the documentation of [the module](super).
//!
//! The shard's index says where an item begins ([`IndexEntry`](super::IndexEntry)). An item's bytes are on disk before
//! its line in the index is written, so the items that the index names are whole. Bytes beyond the last of them are
//! left over from a run that was ended, and are overwritten.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use lumina_checkpoint::map;
use lumina_tokenizer::{Encoded, IGNORED};

use crate::{Error, Result};

/// Magic and version.
pub(super) const MAGIC: [u8; 8] = *b"LUMTOK\0\x01";
/// Bytes before an item's tokens.
const HEADER_BYTES: u64 = 16;
/// The place of the checksum among them.
const CHECKSUM: std::ops::Range<usize> = 12..16;

/// The tokens and labels of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The record's index in its file.
    pub id: u64,
    /// The tokens, from `<s>` on.
    pub tokens: Vec<u32>,
    /// A label for each token: the token itself, or [`IGNORED`]. Not shifted.
    pub labels: Vec<i64>,
}

/// Bytes of an item of `len` tokens in a shard.
pub(super) fn item_bytes(len: u32) -> u64 {
    HEADER_BYTES + 4 * (u64::from(len) + u64::from(len.div_ceil(32)))
}

/// Appends an item in the shard's format. `None` where a label is neither its token nor [`IGNORED`], or there are more
/// tokens than the format can count.
pub(super) fn append_item(bytes: &mut Vec<u8>, id: u64, encoded: &Encoded) -> Option<u32> {
    let Encoded { tokens, labels } = encoded;
    let len = u32::try_from(tokens.len()).ok()?;
    let fits = |(&token, &label): (&u32, &i64)| label == IGNORED || label == i64::from(token);
    if labels.len() != tokens.len() || !tokens.iter().zip(labels).all(fits) {
        return None;
    }
    let begin = bytes.len();
    bytes.extend(id.to_le_bytes());
    bytes.extend(len.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(tokens.iter().flat_map(|token| token.to_le_bytes()));
    for labels in labels.chunks(32) {
        let bits = labels.iter().enumerate().map(|(bit, &label)| u32::from(label != IGNORED) << bit);
        bytes.extend(bits.sum::<u32>().to_le_bytes());
    }
    let checksum = checksum(&bytes[begin..]);
    bytes[begin + CHECKSUM.start..begin + CHECKSUM.end].copy_from_slice(&checksum.to_le_bytes());
    Some(len)
}

/// The checksum of an item, without its own bytes.
fn checksum(item: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&item[..CHECKSUM.start]);
    hasher.update(&item[CHECKSUM.end..]);
    hasher.finalize()
}

/// A shard, memory-mapped. Cloning copies no data.
#[derive(Debug, Clone)]
pub struct TokenShard {
    file: PathBuf,
    bytes: Bytes,
}

impl TokenShard {
    /// Opens a shard. It may still grow; items that are appended later are not seen.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] where it cannot be read, [`Error::Core`] where it is a pointer of Git LFS, [`Error::Data`]
    /// where it is not a shard.
    pub fn open(file: impl AsRef<Path>) -> Result<Self> {
        let file = file.as_ref().to_owned();
        let bytes = map(&file)?;
        lumina_core::file::check_lfs(&file, &bytes)?;
        if !bytes.starts_with(&MAGIC) {
            let start = &bytes[..bytes.len().min(MAGIC.len())];
            let reason = format!("not a token shard of this version: it begins with {start:02x?}");
            return Err(Error::Data { file, reason });
        }
        Ok(Self { file, bytes })
    }

    /// The checksum that the item which begins at byte `offset` states, if the shard has as many bytes.
    pub(super) fn checksum_at(&self, offset: u64) -> Option<u32> {
        let header = self.bytes.get(usize::try_from(offset).ok()?..)?;
        let checksum = header.get(CHECKSUM)?.first_chunk()?;
        Some(u32::from_le_bytes(*checksum))
    }

    /// The item that begins at byte `offset`, of `len` tokens, as the index says.
    ///
    /// # Errors
    /// [`Error::Data`] where no intact item of this length is there.
    pub fn item(&self, offset: u64, len: u32) -> Result<Item> {
        let fault = |reason: String| {
            let reason = format!("item at byte {offset}: {reason}; do shard and index belong together?");
            Error::Data { file: self.file.clone(), reason }
        };
        let needed = item_bytes(len);
        let item = offset.checked_add(needed).and_then(|end| {
            let range = usize::try_from(offset).ok()?..usize::try_from(end).ok()?;
            self.bytes.get(range)
        });
        let item =
            item.ok_or_else(|| fault(format!("{needed} bytes are needed, the file has {}", self.bytes.len())))?;

        let (words, []) = item.as_chunks::<4>() else { return Err(fault("not in whole words".to_owned())) };
        let word = |index: usize| u32::from_le_bytes(words[index]);
        if word(2) != len {
            return Err(fault(format!("{} tokens, the index says {len}", word(2))));
        }
        if word(3) != checksum(item) {
            return Err(fault("damaged, its checksum is another".to_owned()));
        }
        let (tokens, learned) = words[4..].split_at(len as usize);
        let tokens: Vec<u32> = tokens.iter().map(|word| u32::from_le_bytes(*word)).collect();
        let is_learned = |index: usize| u32::from_le_bytes(learned[index / 32]) >> (index % 32) & 1 == 1;
        let label = |(index, &token): (usize, &u32)| if is_learned(index) { i64::from(token) } else { IGNORED };
        let labels = tokens.iter().enumerate().map(label).collect();
        Ok(Item { id: u64::from(word(0)) | u64::from(word(1)) << 32, tokens, labels })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(items: &[(u32, bool)]) -> Encoded {
        let label = |&(token, learned): &(u32, bool)| if learned { i64::from(token) } else { IGNORED };
        Encoded { tokens: items.iter().map(|item| item.0).collect(), labels: items.iter().map(label).collect() }
    }

    fn shard(bytes: &[u8]) -> Result<TokenShard> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("0-of-1.tokens");
        std::fs::write(&file, bytes).unwrap();
        TokenShard::open(file)
    }

    proptest! {
        #[test]
        fn written_items_are_read_back(items in proptest::collection::vec(
            (any::<u64>(), proptest::collection::vec((any::<u32>(), any::<bool>()), 0..80)), 1..5,
        )) {
            let mut bytes = MAGIC.to_vec();
            let mut places = Vec::new();
            for (id, item) in &items {
                let offset = bytes.len() as u64;
                let len = append_item(&mut bytes, *id, &encoded(item)).unwrap();
                prop_assert_eq!(bytes.len() as u64, offset + item_bytes(len));
                places.push((offset, len));
            }
            let shard = shard(&bytes).unwrap();
            for ((id, item), (offset, len)) in items.iter().zip(places) {
                let Encoded { tokens, labels } = encoded(item);
                prop_assert_eq!(shard.item(offset, len).unwrap(), Item { id: *id, tokens, labels });
            }
        }

        #[test]
        fn a_damaged_shard_is_an_error(position in 8usize..44, bit in 0u32..8, offset: u64, len: u32) {
            let mut bytes = MAGIC.to_vec();
            let items = [(5, true), (6, false), (u32::MAX, true), (0, false)];
            let n_tokens = append_item(&mut bytes, 3, &encoded(&items)).unwrap();
            prop_assert_eq!(bytes.len(), 44);
            prop_assert!(offset == 8 || shard(&bytes).unwrap().item(offset, len).is_err());
            prop_assert!(shard(&bytes[..position]).unwrap().item(8, n_tokens).is_err());
            bytes[position] ^= 1 << bit;
            prop_assert!(shard(&bytes).unwrap().item(8, n_tokens).is_err());
        }
    }

    #[test]
    fn labels_are_the_token_or_ignored() {
        let other = Encoded { tokens: vec![1, 2], labels: vec![1, 3] };
        assert_eq!(append_item(&mut Vec::new(), 0, &other), None);
        let short = Encoded { tokens: vec![1, 2], labels: vec![1] };
        assert_eq!(append_item(&mut Vec::new(), 0, &short), None);
    }

    #[test]
    fn other_files_are_refused() {
        for bytes in [&b""[..], b"LUMTOK", b"LUMTOK\0\x02", b"{\"file\": 1}"] {
            assert!(shard(bytes).is_err());
        }
    }
}
