//! Files saved by torch: a zip of storages, and a pickle that describes tensors in them.

mod pickle;
mod state_dict;
mod zip_file;

pub use pickle::{Integers, read_integers};
pub(crate) use zip_file::{read_legacy, read_zip};
