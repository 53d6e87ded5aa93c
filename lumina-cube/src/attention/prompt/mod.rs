//! Attention of prompts by tensor cores: many queries of a head to the same keys.
//!
//! A plane has 16 queries of a head, the rows of matrix instructions, in registers; a cube has four planes, and goes
//! through the keys that its last query sees, a tile after the other, from the first position on. Tiles of keys and
//! values pass through shared memory as numbers of 16 bits, while the next ones are on their way in registers.
//!
//! Inside an instruction any order of k will do if both sides share it. So a lane's load of 16 bytes of keys serves two
//! instructions as it lies in memory, and one of values eight, whose columns are then every eighth number of a head.
//!
//! # Rounding
//!
//! Queries and the weights of the softmax become one or two numbers of 16 bits, of the cache's format, or of `bf16`
//! beside bytes, which it has exactly. All sums are `f32`. Before they are rounded, weights are exponentials of scores
//! less the largest one so far; what has been added up by then is multiplied with the exponential of the difference.
//!
//! A query's tiles of keys, and so its sums, depend on its position alone: keys after it add zeros.

pub(crate) mod flash;
mod queries;
#[cfg(all(test, any(feature = "wgpu", feature = "cuda")))]
mod tests;
mod tiles;

pub(crate) use self::flash::{Config, QUERIES, launch};
