//! The two orders of the channels of an attention head.
//!
//! Rotary positions rotate channels two by two. Hugging Face's code pairs channel `i` of a head with `i + width / 2`,
//! so a head is two halves; llama.cpp pairs `2i` with `2i + 1` for this architecture (its rope type is the "normal"
//! one), so its converter reorders the rows of the query and key projections, and the QK-norms with them. Attention
//! takes products of queries and keys channel by channel, so both orders give one result, each with its own rotation.

/// Attention heads, one after the other, of `width` units of `unit_bytes`: rows of a projection's weight, elements of
/// its bias or of a norm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Heads {
    width: usize,
    unit_bytes: usize,
}

impl Heads {
    /// `None` where `width` is odd, anything is 0, or a head's bytes overflow.
    pub(super) fn new(width: usize, unit_bytes: usize) -> Option<Self> {
        let usable = width > 0 && width.is_multiple_of(2) && unit_bytes > 0;
        (usable && width.checked_mul(unit_bytes).is_some()).then_some(Self { width, unit_bytes })
    }

    /// The place in heads in pairs of unit `at` of heads in halves.
    fn place_in_pairs(self, at: usize) -> usize {
        let (head, channel, half) = (at / self.width, at % self.width, self.width / 2);
        head * self.width + channel % half * 2 + channel / half
    }

    /// The place in heads in halves of unit `at` of heads in pairs.
    fn place_in_halves(self, at: usize) -> usize {
        let (head, channel, half) = (at / self.width, at % self.width, self.width / 2);
        head * self.width + channel / 2 + channel % 2 * half
    }

    /// Copies from llama.cpp's order into Hugging Face's. Bytes beyond the last whole head are left as they are.
    pub(super) fn pairs_to_halves(self, bytes: &[u8], ordered: &mut [u8]) {
        self.gather(bytes, ordered, Self::place_in_pairs);
    }

    /// Copies from Hugging Face's order into llama.cpp's. Bytes beyond the last whole head are left out.
    pub(super) fn halves_to_pairs(self, bytes: &[u8]) -> Vec<u8> {
        let mut ordered = vec![0; bytes.len() / (self.width * self.unit_bytes) * self.width * self.unit_bytes];
        self.gather(bytes, &mut ordered, Self::place_in_halves);
        ordered
    }

    fn gather(self, bytes: &[u8], ordered: &mut [u8], place: impl Fn(Self, usize) -> usize) {
        let units = bytes.len() / (self.width * self.unit_bytes) * self.width;
        for (at, unit) in ordered.chunks_exact_mut(self.unit_bytes).enumerate().take(units) {
            let from = place(self, at) * self.unit_bytes;
            unit.copy_from_slice(&bytes[from..from + self.unit_bytes]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_the_two_halves_interleaved() {
        // Two heads of six channels: halves 0 1 2 | 3 4 5 are the pairs 0 3, 1 4, 2 5.
        let heads = Heads::new(6, 1).unwrap();
        let pairs: Vec<usize> = (0..12).map(|at| heads.place_in_halves(at)).collect();
        assert_eq!(pairs, [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]);
        for at in 0..12 {
            assert_eq!(heads.place_in_pairs(heads.place_in_halves(at)), at);
        }
        let in_pairs: Vec<u8> = pairs.iter().map(|&at| at as u8).collect();
        let in_halves: Vec<u8> = (0..12).collect();
        let mut ordered = [0; 12];
        heads.pairs_to_halves(&in_pairs, &mut ordered);
        assert_eq!(ordered[..], in_halves);
        assert_eq!(heads.halves_to_pairs(&in_halves), in_pairs);
    }

    #[test]
    fn units_of_several_bytes_move_whole() {
        let heads = Heads::new(4, 2).unwrap();
        let mut ordered = [0; 8];
        heads.pairs_to_halves(&[0, 0, 2, 2, 1, 1, 3, 3], &mut ordered);
        assert_eq!(ordered, [0, 0, 1, 1, 2, 2, 3, 3]);
    }

    #[test]
    fn odd_and_empty_heads_are_none() {
        for (width, bytes) in [(0, 1), (3, 1), (2, 0), (usize::MAX - 1, 2)] {
            assert_eq!(Heads::new(width, bytes), None);
        }
    }
}
