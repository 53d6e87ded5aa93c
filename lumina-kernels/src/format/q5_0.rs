//! `Q5_0`: 32 5-bit integers with a scale. An element's value is `d · (q − 16)`. It is only read.

use super::block::{Block, f16_to_f32};

/// A block of 32 elements.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C)]
pub(crate) struct BlockQ5_0 {
    /// The scale `d`, an `f16`.
    d: [u8; 2],
    /// The integers `q`.
    quants: Quants5,
}

const _: () = assert!(size_of::<BlockQ5_0>() == 22);

/// 32 integers from 0 to 31, as `Q5_0` and `Q5_1` store them.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C)]
pub(super) struct Quants5 {
    /// The upper bits, that of element 0 in the lowest bit of a little-endian `u32`.
    high: [u8; 4],
    /// The low 4 bits: elements 0 to 15 in the low halves of the bytes, 16 to 31 in the high halves.
    nibbles: [u8; 16],
}

impl Quants5 {
    /// The integers in the order of the elements.
    pub(super) fn in_order(&self) -> [u8; 32] {
        let high = u32::from_le_bytes(self.high);
        let upper = |index: usize| ((high >> index & 1) << 4) as u8;
        let mut quants = [0; 32];
        for (index, byte) in self.nibbles.iter().enumerate() {
            quants[index] = byte & 15 | upper(index);
            quants[index + 16] = byte >> 4 | upper(index + 16);
        }
        quants
    }
}

#[allow(unsafe_code, reason = "blocks are views of the bytes of a file")]
// SAFETY: arrays of bytes, `#[repr(C)]`, so aligned to 1 without padding and valid with any bytes.
unsafe impl Block<32> for BlockQ5_0 {
    fn dequantise(&self, values: &mut [f32; 32]) {
        let d = f16_to_f32(self.d);
        for (value, quant) in values.iter_mut().zip(self.quants.in_order()) {
            *value = d * (f32::from(quant) - 16.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_block() {
        let mut bytes = [0u8; 22];
        bytes[..2].copy_from_slice(&[0x00, 0x38]); // d = 0.5
        (bytes[2], bytes[4], bytes[5]) = (0b1, 0b1, 0x80); // upper bits of elements 0, 16 and 31
        (bytes[6], bytes[21]) = (0x3F, 0xF1);
        let mut values = [0.0; 32];
        BlockQ5_0::slice(&bytes)[0].dequantise(&mut values);
        assert_eq!((values[0], values[1], values[15], values[16], values[31]), (7.5, -8.0, -7.5, 1.5, 7.5));
    }
}
