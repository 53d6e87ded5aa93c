//! `Q5_K`: 256 5-bit integers, with a scale `s` and a minimum `t` for each 32 of them, as in `Q4_K`. An element's value
//! is `d · s · q − m · t`. It is only read.

use super::block::{Block, f16_to_f32};
use super::q4_k::Pairs;

/// A block of 256 elements.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C)]
pub(crate) struct BlockQ5K {
    /// The scale `d` of the scales, an `f16`.
    d: [u8; 2],
    /// The scale `m` of the minima, an `f16`.
    m: [u8; 2],
    /// The scales `s` and minima `t`.
    pairs: Pairs,
    /// The upper bits of the integers `q`: bit `i` of byte `j` is that of element `32 · i + j`.
    high: [u8; 32],
    /// Their low 4 bits: in each 32 bytes the low halves are 32 elements, and the high halves the next 32.
    nibbles: [[u8; 32]; 4],
}

const _: () = assert!(size_of::<BlockQ5K>() == 176);

#[allow(unsafe_code, reason = "blocks are views of the bytes of a file")]
// SAFETY: arrays of bytes, `#[repr(C)]`, so aligned to 1 without padding and valid with any bytes.
unsafe impl Block<256> for BlockQ5K {
    fn dequantise(&self, values: &mut [f32; 256]) {
        let (d, m) = (f16_to_f32(self.d), f16_to_f32(self.m));
        for (part, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let (scale, minimum) = self.pairs.get(part);
            let (scale, minimum) = (d * f32::from(scale), m * f32::from(minimum));
            let bits = self.nibbles[part / 2].iter().zip(&self.high);
            for (value, (low, high)) in values.iter_mut().zip(bits) {
                let quant = low >> (part % 2 * 4) & 15 | (high >> part & 1) << 4;
                *value = scale * f32::from(quant) - minimum;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_block() {
        let mut bytes = [0u8; 176];
        bytes[..4].copy_from_slice(&[0x00, 0x38, 0x00, 0x3C]); // d = 0.5, m = 1
        bytes[4] = 3; // scale of the first 32
        bytes[4 + 5] = 2; // minimum of the second 32
        bytes[4 + 1] = 1; // its scale
        bytes[16] = 0b01; // upper bit of element 0, none for element 32
        bytes[17] = 0b10; // upper bit of element 33
        bytes[48] = 0xF9;
        let mut values = [0.0; 256];
        BlockQ5K::slice(&bytes)[0].dequantise(&mut values);
        assert_eq!((values[0], values[1], values[32], values[33]), (37.5, 0.0, 5.5, 6.0));
        assert_eq!(values[64..], [0.0; 192]);
    }
}
