//! Logits in host memory.

use std::ops::Range;

use lumina_nn::ops::Hidden;
use lumina_sampling::{LogitsRow, PlainDraw};

/// Logits of some positions for a range of token ids, in host memory: a row `[ids.len()]` each.
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
    ids: Range<usize>,
}

/// A draw for the device, and the rows of a pass's logits that it reads.
#[cfg_attr(not(feature = "cube"), allow(dead_code, reason = "only GPUs draw"))]
#[derive(Debug, Clone)]
pub(crate) struct RowDraw {
    pub(crate) draw: PlainDraw,
    pub(crate) conditional: usize,
    /// With guidance.
    pub(crate) unconditional: Option<usize>,
}

/// What a pass gives a sampler.
#[allow(clippy::large_enum_variant, reason = "a box would be an allocation a token")]
#[derive(Debug)]
pub(crate) enum Drawn {
    /// Tokens that the device has drawn.
    #[cfg_attr(not(feature = "cube"), allow(dead_code, reason = "only GPUs draw"))]
    Tokens(Vec<u32>),
    /// Logits to draw from.
    Logits(Logits),
}

impl Logits {
    /// `values` `[n, ids.len()]` in host memory.
    pub(crate) fn new(values: Hidden, ids: Range<usize>) -> Self {
        Self { values, ids }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.values.dims()[0]
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The ids that rows have logits for.
    pub fn ids(&self) -> Range<usize> {
        self.ids.clone()
    }

    /// A row `[ids.len()]`; an empty one where there is none of this index.
    pub fn row(&self, index: usize) -> &[f32] {
        self.rows().nth(index).unwrap_or_default()
    }

    /// All rows `[ids.len()]`, in their order.
    pub fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.values.as_slice().unwrap_or_default().chunks_exact(self.ids.len().max(1))
    }

    /// A row with the ids that it is for, as a sampler takes it; an empty one where there is none of this index.
    pub fn sampler_row(&self, index: usize) -> LogitsRow<'_> {
        // Ids are below the size of a vocabulary, which is a `u32`.
        let first_id = u32::try_from(self.ids.start).unwrap_or(u32::MAX);
        LogitsRow { first_id, logits: self.row(index) }
    }
}
