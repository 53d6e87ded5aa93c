//! Batches of items.

use lumina_tokenizer::IGNORED;

use super::shard::Item;
use crate::{Error, Result};

/// The token that the original pads with. As its label is ignored, any token would do.
const PADDING: u32 = 0;

/// Tokens and labels, a row for each item, of different lengths.
///
/// The network takes rows of different lengths. Only [`Batch::padded`] makes them equal, as the original does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// The tokens, `[rows][tokens of the row]`.
    pub tokens: Vec<Vec<u32>>,
    /// A label for each token: the token itself, or [`IGNORED`]. Not shifted.
    pub labels: Vec<Vec<i64>>,
}

impl Batch {
    /// A batch of items, each cut to its first `max_len` tokens.
    ///
    /// Mirrors the start of `ChameleonXLLMXForConditionalGeneration.forward`, without its padding.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] where `max_len` is 0, [`Error::LabelCount`] where an item has not as many labels as
    /// tokens.
    pub fn collate(items: impl IntoIterator<Item = Item>, max_len: usize) -> Result<Self> {
        if max_len == 0 {
            let (value, expected) = ("0".to_owned(), "at least 1".to_owned());
            return Err(Error::OutOfRange { field: "max_len", value, expected });
        }
        let mut batch = Self::default();
        for Item { mut tokens, mut labels, .. } in items {
            if tokens.len() != labels.len() {
                return Err(Error::LabelCount { tokens: tokens.len(), labels: labels.len() });
            }
            tokens.truncate(max_len);
            labels.truncate(max_len);
            batch.tokens.push(tokens);
            batch.labels.push(labels);
        }
        Ok(batch)
    }

    /// Number of tokens, without padding.
    pub fn n_tokens(&self) -> usize {
        self.tokens.iter().map(Vec::len).sum()
    }

    /// Number of tokens that are predicted: those with a label that have a token before them.
    pub fn n_predicted(&self) -> usize {
        self.labels.iter().flat_map(|row| row.iter().skip(1)).filter(|&&label| label != IGNORED).count()
    }

    /// The batch with every row as long as the longest, padded with token 0 and label [`IGNORED`], as in the original:
    /// `[rows, longest]` both.
    pub fn padded(&self) -> Self {
        let longest = self.tokens.iter().map(Vec::len).max().unwrap_or(0);
        let mut padded = self.clone();
        padded.tokens.iter_mut().for_each(|row| row.resize(longest, PADDING));
        padded.labels.iter_mut().for_each(|row| row.resize(longest, IGNORED));
        padded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(tokens: &[u32], labels: &[i64]) -> Item {
        Item { id: 0, tokens: tokens.to_vec(), labels: labels.to_vec() }
    }

    #[test]
    fn rows_are_cut_and_padded() {
        let items = [item(&[1, 2, 3, 4], &[-100, 2, -100, 4]), item(&[5], &[5]), item(&[], &[])];
        let batch = Batch::collate(items, 3).unwrap();
        assert_eq!(batch.tokens, [&[1, 2, 3][..], &[5], &[]]);
        assert_eq!((batch.n_tokens(), batch.n_predicted()), (4, 1));
        let padded = batch.padded();
        assert_eq!(padded.tokens, [[1, 2, 3], [5, 0, 0], [0, 0, 0]]);
        assert_eq!(padded.labels, [[-100, 2, -100], [5, -100, -100], [-100; 3]]);
        assert_eq!((padded.n_predicted(), Batch::default().padded()), (1, Batch::default()));
    }

    #[test]
    fn broken_items_are_errors() {
        assert!(Batch::collate([item(&[1], &[1])], 0).is_err());
        assert!(Batch::collate([item(&[1], &[])], 4).is_err());
    }
}
