//! The two orders of the rows of queries and keys, and which one a GGUF file has.

use lumina_checkpoint::Result;
use lumina_checkpoint::gguf::Metadata;

/// The architecture of files in llama.cpp's order of rows.
pub(super) const CHAMELEON: &str = "chameleon";

/// The architecture of files in Hugging Face's order of rows. llama.cpp refuses this name. It would compute nonsense
/// with such a file.
pub(super) const LUMINA: &str = "lumina";

/// The key with the order of rows in our files.
pub(super) const ROW_ORDER: &str = "lumina.row_order";

/// The order of the channels of queries and keys within each head.
///
/// It depends on the implementation of rotary positions: see the [module](crate::convert).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RowOrder {
    /// Channel `i` is rotated with `i + width / 2`, as in the checkpoints and in this crate. Rows are used
    /// memory-mapped.
    #[default]
    HuggingFace,
    /// Channel `2i` is rotated with `2i + 1`, as in llama.cpp. Queries and keys are copied to the heap, in order, when
    /// they are read.
    LlamaCpp,
}

impl RowOrder {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::HuggingFace => "huggingface",
            Self::LlamaCpp => "llama.cpp",
        }
    }
}

/// The order of queries and keys in a GGUF file. After [`open`](super::open) they are in
/// Hugging Face's order in any case.
///
/// # Errors
/// [`Error::Metadata`](lumina_checkpoint::Error::Metadata) where our key has an unknown value.
pub fn row_order(metadata: &Metadata) -> Result<RowOrder> {
    match metadata.get(ROW_ORDER) {
        None if metadata.architecture() == CHAMELEON => Ok(RowOrder::LlamaCpp),
        None => Ok(RowOrder::HuggingFace),
        Some(value) => [RowOrder::HuggingFace, RowOrder::LlamaCpp]
            .into_iter()
            .find(|order| value.as_str() == Some(order.name()))
            .ok_or_else(|| metadata.wrong(ROW_ORDER, "it names no order of rows that is known".to_owned())),
    }
}

/// Whether this is a transformer of the kind that this crate runs.
pub(super) fn is_chameleon(metadata: &Metadata) -> bool {
    [CHAMELEON, LUMINA].contains(&metadata.architecture())
}
