//! `Q4_1`: 32 4-bit integers with a scale and a minimum. An element's value is `d · q + m`. It is only read.

use super::block::{Block, f16_to_f32};

/// A block of 32 elements.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C)]
pub(crate) struct BlockQ4_1 {
    /// The scale `d`, an `f16`.
    d: [u8; 2],
    /// The minimum `m`, an `f16`.
    m: [u8; 2],
    /// The integers `q`: elements 0 to 15 in the low halves of the bytes, 16 to 31 in the high halves.
    nibbles: [u8; 16],
}

const _: () = assert!(size_of::<BlockQ4_1>() == 20);

#[allow(unsafe_code, reason = "blocks are views of the bytes of a file")]
// SAFETY: arrays of bytes, `#[repr(C)]`, so aligned to 1 without padding and valid with any bytes.
unsafe impl Block<32> for BlockQ4_1 {
    fn dequantise(&self, values: &mut [f32; 32]) {
        let (d, m) = (f16_to_f32(self.d), f16_to_f32(self.m));
        for (index, byte) in self.nibbles.iter().enumerate() {
            values[index] = d * f32::from(byte & 15) + m;
            values[index + 16] = d * f32::from(byte >> 4) + m;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_block() {
        let mut bytes = [0u8; 20];
        bytes[..4].copy_from_slice(&[0x00, 0x38, 0x00, 0xBC]); // d = 0.5, m = -1
        (bytes[4], bytes[19]) = (0x3F, 0x80);
        let mut values = [0.0; 32];
        BlockQ4_1::slice(&bytes)[0].dequantise(&mut values);
        assert_eq!((values[0], values[1], values[15], values[16], values[31]), (6.5, -1.0, -1.0, 0.5, 3.0));
    }
}
