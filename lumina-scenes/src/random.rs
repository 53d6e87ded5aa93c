//! Seeded choices.

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::Split;

/// What choices are for: each purpose has numbers of its own.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Purpose {
    Scene = 0,
    Record = 1,
}

/// The choices of one scene or record. Numbers are ChaCha's with key = (seed, split, purpose) and stream = index, so
/// no scene depends on how many were made before it.
pub(crate) struct Draws(ChaCha12Rng);

impl Draws {
    pub(crate) fn new(seed: u64, split: Split, purpose: Purpose, index: u64) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8] = split as u8;
        key[9] = purpose as u8;
        let mut generator = ChaCha12Rng::from_seed(key);
        generator.set_stream(index);
        Self(generator)
    }

    /// A whole number below `end`, which is at least 1; all are equally likely to within 2⁻³².
    pub(crate) fn below(&mut self, end: u32) -> u32 {
        ((u64::from(self.0.next_u32()) * u64::from(end)) >> u32::BITS) as u32
    }

    /// One of a list.
    pub(crate) fn pick<T: Copy>(&mut self, list: &[T]) -> Option<T> {
        list.get(self.below(list.len().max(1) as u32) as usize).copied()
    }

    /// An index into a list of weights, in proportion to them; `None` where their sum is 0.
    pub(crate) fn weighted(&mut self, weights: impl Iterator<Item = u32> + Clone) -> Option<usize> {
        let sum = weights.clone().fold(0u32, u32::saturating_add);
        let mut left = self.below(sum.max(1));
        weights.into_iter().position(|weight| {
            let here = left < weight;
            left = left.saturating_sub(weight);
            here
        })
    }

    /// Puts a list into random order.
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
    fn choices_keep_to_weights_and_bounds() {
        let mut draws = Draws::new(1, Split::Train, Purpose::Scene, 0);
        let mut counts = [0; 3];
        for _ in 0..4000 {
            counts[draws.weighted([1, 0, 3].into_iter()).unwrap()] += 1;
        }
        assert!(counts[1] == 0 && (900..1100).contains(&counts[0]), "{counts:?}");
        assert_eq!(draws.weighted([0, 0].into_iter()), None);
        assert_eq!(draws.pick::<u8>(&[]), None);
        let mut list: Vec<u32> = (0..20).collect();
        draws.shuffle(&mut list);
        assert_ne!(list, (0..20).collect::<Vec<_>>());
        list.sort_unstable();
        assert_eq!(list, (0..20).collect::<Vec<_>>());
    }
}
