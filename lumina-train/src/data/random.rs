//! Random numbers that follow from a seed and a place.

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// The generator of a purpose (so that no two share numbers), a seed, and a stream: an item, an epoch.
pub(super) fn generator(purpose: &[u8; 8], seed: u64, stream: u64) -> ChaCha12Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(purpose);
    let mut generator = ChaCha12Rng::from_seed(key);
    generator.set_stream(stream);
    generator
}

/// A number in `0..n`, or 0 where `n` is 0. Uniform up to n / 2⁶⁴.
pub(super) fn below(generator: &mut ChaCha12Rng, n: u64) -> u64 {
    let wide = u128::from(generator.next_u64()) * u128::from(n);
    (wide >> 64) as u64
}

/// Moves `n` of the elements, drawn without replacement, to the front, in the order in which they were drawn.
pub(super) fn shuffle_front<T>(generator: &mut ChaCha12Rng, elements: &mut [T], n: usize) {
    for place in 0..n.min(elements.len()) {
        let left = (elements.len() - place) as u64;
        elements.swap(place, place + below(generator, left) as usize);
    }
}

/// Shuffles the elements.
pub(super) fn shuffle<T>(generator: &mut ChaCha12Rng, elements: &mut [T]) {
    shuffle_front(generator, elements, elements.len());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_even_and_within_bounds() {
        let mut generator = generator(b"test    ", 1, 2);
        let mut counts = [0; 7];
        for _ in 0..7000 {
            counts[below(&mut generator, 7) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
        assert_eq!((below(&mut generator, 0), below(&mut generator, 1)), (0, 0));
    }

    #[test]
    fn a_shuffle_keeps_all_and_depends_on_purpose_seed_and_stream() {
        let shuffled = |purpose, seed, stream| {
            let mut elements: Vec<u32> = (0..50).collect();
            shuffle(&mut generator(purpose, seed, stream), &mut elements);
            elements
        };
        let first = shuffled(b"test    ", 1, 2);
        let mut sorted = first.clone();
        sorted.sort_unstable();
        assert!(sorted.into_iter().eq(0..50));
        assert_eq!(first, shuffled(b"test    ", 1, 2));
        for other in [shuffled(b"other   ", 1, 2), shuffled(b"test    ", 2, 2), shuffled(b"test    ", 1, 3)] {
            assert_ne!(first, other);
        }
    }
}
