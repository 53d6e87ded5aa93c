//! `Q4_K`: 256 4-bit integers, with a scale `s` and a minimum `t` for each 32 of them. An element's value is
//! `d · s · q − m · t`. It is only read.

use super::block::{Block, f16_to_f32};

/// A block of 256 elements.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C)]
pub(crate) struct BlockQ4K {
    /// The scale `d` of the scales, an `f16`.
    d: [u8; 2],
    /// The scale `m` of the minima, an `f16`.
    m: [u8; 2],
    /// The scales `s` and minima `t`.
    pairs: Pairs,
    /// The integers `q`: in each 32 bytes the low halves are 32 elements, and the high halves the next 32.
    nibbles: [[u8; 32]; 4],
}

const _: () = assert!(size_of::<BlockQ4K>() == 144);

/// Eight pairs `(s, t)` of 6 bits each. The first four have the low 6 bits of bytes 0–3 and 4–7. The others have their
/// low halves in bytes 8–11, and their upper two bits above the first four.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(transparent)]
pub(super) struct Pairs([u8; 12]);

impl Pairs {
    /// Scale and minimum of elements `32 · index` to `32 · index + 31`.
    pub(super) fn get(&self, index: usize) -> (u8, u8) {
        let Self(pairs) = self;
        if index < 4 {
            (pairs[index] & 63, pairs[index + 4] & 63)
        } else {
            let low = pairs[index + 4];
            ((low & 15) | (pairs[index - 4] >> 6) << 4, (low >> 4) | (pairs[index] >> 6) << 4)
        }
    }
}

#[allow(unsafe_code, reason = "blocks are views of the bytes of a file")]
// SAFETY: arrays of bytes, `#[repr(C)]`, so aligned to 1 without padding and valid with any bytes.
unsafe impl Block<256> for BlockQ4K {
    fn dequantise(&self, values: &mut [f32; 256]) {
        let (d, m) = (f16_to_f32(self.d), f16_to_f32(self.m));
        for (part, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let (scale, minimum) = self.pairs.get(part);
            let (scale, minimum) = (d * f32::from(scale), m * f32::from(minimum));
            for (value, byte) in values.iter_mut().zip(&self.nibbles[part / 2]) {
                let quant = if part % 2 == 0 { byte & 15 } else { byte >> 4 };
                *value = scale * f32::from(quant) - minimum;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_where_the_format_has_them() {
        // Scale i is 5i + 1, minimum i is 7i + 2; packed by hand from the description.
        let mut pairs = Pairs([0; 12]);
        let packed = &mut pairs.0;
        for i in 0..8u8 {
            let (s, t) = (5 * i + 1, 7 * i + 2);
            if i < 4 {
                packed[usize::from(i)] |= s;
                packed[usize::from(i) + 4] |= t;
            } else {
                packed[usize::from(i) + 4] = (s & 15) | (t & 15) << 4;
                packed[usize::from(i) - 4] |= (s >> 4) << 6;
                packed[usize::from(i)] |= (t >> 4) << 6;
            }
        }
        for i in 0..8u8 {
            assert_eq!(pairs.get(i.into()), (5 * i + 1, 7 * i + 2));
        }
    }

    #[test]
    fn a_known_block() {
        let mut bytes = [0u8; 144];
        bytes[..4].copy_from_slice(&[0x00, 0x38, 0x00, 0x3C]); // d = 0.5, m = 1
        bytes[4] = 3; // scale of the first 32
        bytes[4 + 5] = 2; // minimum of the second 32
        bytes[4 + 1] = 1; // its scale
        bytes[16] = 0xF9;
        let mut values = [0.0; 256];
        BlockQ4K::slice(&bytes)[0].dequantise(&mut values);
        assert_eq!((values[0], values[1], values[32], values[33]), (13.5, 0.0, 5.5, -2.0));
        assert_eq!(values[64..], [0.0; 192]);
    }
}
