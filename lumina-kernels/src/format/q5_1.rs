//! `Q5_1`: 32 5-bit integers with a scale and a minimum. An element's value is `d · q + m`. It is only read.

use super::block::{Block, f16_to_f32};
use super::q5_0::Quants5;

/// A block of 32 elements.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C)]
pub(crate) struct BlockQ5_1 {
    /// The scale `d`, an `f16`.
    d: [u8; 2],
    /// The minimum `m`, an `f16`.
    m: [u8; 2],
    /// The integers `q`.
    quants: Quants5,
}

const _: () = assert!(size_of::<BlockQ5_1>() == 24);

#[allow(unsafe_code, reason = "blocks are views of the bytes of a file")]
// SAFETY: arrays of bytes, `#[repr(C)]`, so aligned to 1 without padding and valid with any bytes.
unsafe impl Block<32> for BlockQ5_1 {
    fn dequantise(&self, values: &mut [f32; 32]) {
        let (d, m) = (f16_to_f32(self.d), f16_to_f32(self.m));
        for (value, quant) in values.iter_mut().zip(self.quants.in_order()) {
            *value = d * f32::from(quant) + m;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_block() {
        let mut bytes = [0u8; 24];
        bytes[..4].copy_from_slice(&[0x00, 0x38, 0x00, 0xBC]); // d = 0.5, m = -1
        (bytes[4], bytes[7]) = (0b1, 0x80); // upper bits of elements 0 and 31
        (bytes[8], bytes[23]) = (0x3F, 0xF1);
        let mut values = [0.0; 32];
        BlockQ5_1::slice(&bytes)[0].dequantise(&mut values);
        assert_eq!((values[0], values[1], values[15], values[16], values[31]), (14.5, -1.0, -0.5, 0.5, 14.5));
    }
}
