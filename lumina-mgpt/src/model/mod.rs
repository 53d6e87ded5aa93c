//! The network: Chameleon's decoder-only transformer with QK-norm (arXiv 2405.09818), as Lumina-mGPT (arXiv 2408.02657)
//! uses it.
//!
//! Mirrors `modeling_chameleon.py` of the original. To read it in order:
//!
//! 1. [`config`]: what `config.json` says, and the checked [`Architecture`] that the code uses.
//! 2. [`row`]: a sequence's part of a pass. Rows of different lengths share a pass without padding.
//! 3. [`norm`], [`rope`], [`attention`]: the parts of a [`layer`], each with its shapes.
//! 4. [`transformer`]: layers, and the pass from tokens to logits.
//! 5. [`kv_cache`], [`logits`]: what a pass leaves behind.
//! 6. [`placement`], [`fit`]: which layers go to which device. [`stage`], [`passes`]: a network on several of them.
//!
//! Training runs the same network in Burn's tensors, with the feature `burn`: `Transformer::begin` in `training`, with
//! `dropout`.

mod attention;
pub(crate) mod config;
#[cfg(feature = "burn")]
mod dropout;
mod fit;
#[cfg(feature = "cube")]
mod gpu;
mod kv_cache;
mod layer;
mod logits;
mod norm;
mod parts;
mod passes;
mod placement;
mod rope;
mod row;
mod stage;
#[cfg(feature = "burn")]
mod training;
mod transformer;

pub use config::{Architecture, ModelConfig, RopeScalingConfig};
#[cfg(feature = "burn")]
pub use dropout::Dropout;
pub use fit::{Fit, StageFit};
pub use kv_cache::KvCache;
pub use logits::Logits;
pub(crate) use logits::{Drawn, RowDraw};
pub(crate) use parts::{ModelParts, Windows};
pub(crate) use row::MAX_INLINE_ROWS;
pub use row::Row;
#[cfg(feature = "burn")]
pub use training::Pass;
pub use transformer::Transformer;
