//! Numbers as the bytes that are exchanged.

use bytes::Bytes;

use super::{Collective, RankProblem};
use crate::{Error, Result};

/// The numbers of each rank, in the order of ranks.
pub(crate) fn gather_numbers(all: &dyn Collective, own: &[f64]) -> Result<Vec<Vec<f64>>> {
    let bytes = own.iter().flat_map(|value| value.to_ne_bytes()).collect();
    let numbers = |bytes: &Bytes| bytes.as_chunks().0.iter().map(|&eight| f64::from_ne_bytes(eight)).collect();
    Ok(all.all_gather(bytes)?.iter().map(numbers).collect())
}

/// As [`gather_numbers`], of ranks that compute the same thing: `checksum` has to be equal, and so the number of
/// numbers.
pub(crate) fn gather_of_same(all: &dyn Collective, checksum: u32, own: &[f64]) -> Result<Vec<Vec<f64>>> {
    let own = [own, &[f64::from(checksum)]].concat();
    let mut numbers = gather_numbers(all, &own)?;
    match numbers.iter().position(|of| of.len() != own.len() || of.last() != own.last()) {
        Some(rank) => Err(Error::Rank { rank, problem: RankProblem::Differs }),
        None => {
            numbers.iter_mut().for_each(|of| of.truncate(own.len() - 1));
            Ok(numbers)
        }
    }
}

/// Values as bytes in the processor's order, without a copy.
pub(crate) fn f32_bytes(values: Vec<f32>) -> Bytes {
    struct Values(Vec<f32>);
    impl AsRef<[u8]> for Values {
        fn as_ref(&self) -> &[u8] {
            bytemuck::cast_slice(&self.0)
        }
    }
    Bytes::from_owner(Values(values))
}

/// Bytes as values.
pub(crate) fn bytes_f32(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|&four| f32::from_ne_bytes(four)).collect()
}
