//! Logits on the host.

use lumina_nn::ops::Hidden;

/// Logits of some positions, on the host: a row `[vocab_size]` each.
///
/// ```
/// # use lumina_mgpt::{Result, Row, Transformer};
/// # fn most_likely(model: &Transformer, tokens: &[u32]) -> Result<Option<usize>> {
/// let hidden = model.forward(&mut [Row::whole(tokens)])?;
/// let logits = model.logits_at(&hidden, &[tokens.len() - 1])?;
/// let most_likely = logits.row(0).iter().enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b));
/// # Ok(most_likely.map(|(token, _)| token))
/// # }
/// ```
#[derive(Debug)]
pub struct Logits {
    values: Hidden,
}

impl Logits {
    pub(crate) fn new(values: Hidden) -> Self {
        Self { values }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.values.dims()[0]
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A row; an empty one where there is none of this index.
    pub fn row(&self, index: usize) -> &[f32] {
        self.rows().nth(index).unwrap_or_default()
    }

    /// All rows, in their order.
    pub fn rows(&self) -> impl Iterator<Item = &[f32]> {
        let [_, vocab_size] = self.values.dims();
        self.values.as_slice().unwrap_or_default().chunks_exact(vocab_size.max(1))
    }
}
