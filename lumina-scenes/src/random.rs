//! Seeded random choices.

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::Split;

/// What random numbers are used for. Each purpose has its own stream.
#[derive(Debug, Clone, Copy)]
pub(crate) enum RngPurpose {
    Scene = 0,
    Record = 1,
    Wording = 2,
}

/// The random numbers of one scene or record: ChaCha with key = (seed, split, purpose) and stream = index. No scene
/// depends on how many were generated before it.
#[derive(Debug, Clone)]
pub(crate) struct SeededRng(ChaCha12Rng);

impl SeededRng {
    pub(crate) fn new(seed: u64, split: Split, purpose: RngPurpose, index: u64) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8] = split as u8;
        key[9] = purpose as u8;
        let mut generator = ChaCha12Rng::from_seed(key);
        generator.set_stream(index);
        Self(generator)
    }

    /// A random integer in `0..end`; `end` must be at least 1. Uniform to within 2⁻³².
    pub(crate) fn below(&mut self, end: u32) -> u32 {
        ((u64::from(self.0.next_u32()) * u64::from(end)) >> u32::BITS) as u32
    }

    /// A random element of a list; `None` if the list is empty.
    pub(crate) fn choose<T: Copy>(&mut self, list: &[T]) -> Option<T> {
        list.get(self.below(list.len().max(1) as u32) as usize).copied()
    }

    /// A random index with probability in proportion to its weight; `None` if all weights are 0.
    pub(crate) fn weighted_index(&mut self, weights: impl Iterator<Item = u32> + Clone) -> Option<usize> {
        let sum: u64 = weights.clone().map(u64::from).sum();
        let mut remaining = ((u128::from(self.0.next_u32()) * u128::from(sum)) >> u32::BITS) as u64;
        weights.map(u64::from).position(|weight| {
            let found = remaining < weight;
            remaining = remaining.saturating_sub(weight);
            found
        })
    }

    /// Shuffles a list.
    pub(crate) fn shuffle<T>(&mut self, list: &mut [T]) {
        for last in (1..list.len()).rev() {
            list.swap(last, self.below(last as u32 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_respect_weights_and_bounds() {
        let mut rng = SeededRng::new(1, Split::Train, RngPurpose::Scene, 0);
        let mut counts = [0; 3];
        for _ in 0..4000 {
            counts[rng.weighted_index([1, 0, 3].into_iter()).unwrap()] += 1;
        }
        assert!(counts[1] == 0 && (900..1100).contains(&counts[0]), "{counts:?}");
        assert_eq!(rng.weighted_index([0, 0].into_iter()), None);
        let last = (0..100).filter(|_| rng.weighted_index([u32::MAX, u32::MAX].into_iter()) == Some(1)).count();
        assert!((30..70).contains(&last), "{last}");
        assert_eq!(rng.choose::<u8>(&[]), None);
        let mut list: Vec<u32> = (0..20).collect();
        rng.shuffle(&mut list);
        assert_ne!(list, (0..20).collect::<Vec<_>>());
        list.sort_unstable();
        assert_eq!(list, (0..20).collect::<Vec<_>>());
    }
}
