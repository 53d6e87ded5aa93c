//! `Q3_K`: 256 3-bit integers, with a 6-bit scale `s` for each 16 of them. An element's value is
//! `d · (s − 32) · (q − 4)`. It is only read.

use super::block::{Block, f16_to_f32};
use super::q2_k::Quants2;

/// A block of 256 elements, in eight runs of 32.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C)]
pub(crate) struct BlockQ3K {
    /// The upper bits of the integers `q`: bit `i` of byte `j` is that of element `32 · i + j`.
    high: [u8; 32],
    /// Their lower two bits.
    low: Quants2,
    /// The scales `s`. Those of index 0–7 have their low 4 bits in the low halves of the first eight bytes, the others
    /// in the high halves. The upper two bits of scale `i` are bits `2 · (i / 4)` and the next of byte `8 + i % 4`.
    scales: [u8; 12],
    /// The scale `d` of the scales, an `f16`.
    d: [u8; 2],
}

const _: () = assert!(size_of::<BlockQ3K>() == 110);

impl BlockQ3K {
    /// The scale `s` of elements `16 · index` to `16 · index + 15`.
    fn scale(&self, index: usize) -> u8 {
        let low = self.scales[index % 8] >> (index / 8 * 4) & 15;
        let high = self.scales[8 + index % 4] >> (index / 4 * 2) & 3;
        low | high << 4
    }
}

#[allow(unsafe_code, reason = "blocks are views of the bytes of a file")]
// SAFETY: arrays of bytes, `#[repr(C)]`, so aligned to 1 without padding and valid with any bytes.
unsafe impl Block<256> for BlockQ3K {
    fn dequantise(&self, values: &mut [f32; 256]) {
        let d = f16_to_f32(self.d);
        for (run, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let low = self.low.run(run);
            for (part, values) in values.as_chunks_mut::<16>().0.iter_mut().enumerate() {
                let scale = d * (f32::from(self.scale(2 * run + part)) - 32.0);
                let bits = low[16 * part..].iter().zip(&self.high[16 * part..]);
                for (value, (low, high)) in values.iter_mut().zip(bits) {
                    *value = scale * (f32::from(low | (high >> run & 1) << 2) - 4.0);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_block() {
        const LOW: usize = 32;
        const SCALES: usize = 96;
        let mut bytes = [0u8; 110];
        bytes[108..].copy_from_slice(&[0x00, 0x38]); // 0.5
        bytes[SCALES..SCALES + 12].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0xAA, 0xAA, 0xAA, 0xAA]); // all 32
        bytes[SCALES] = 0x03; // elements 0–15: 35
        bytes[SCALES + 7] = 0x10; // elements 240–255: 33
        bytes[SCALES + 9] = 0xA2; // elements 80–95 (index 5): 0
        bytes[LOW] = 0b11; // elements 0, 32, 64, 96
        bytes[0] = 0b1; // upper bit of element 0
        bytes[LOW + 63] = 0b0100_0000; // element 255
        bytes[31] = 0b1000_0000; // its upper bit
        let mut values = [0.0; 256];
        BlockQ3K::slice(&bytes)[0].dequantise(&mut values);
        assert_eq!((values[0], values[1], values[255], values[254]), (4.5, -6.0, 0.5, -2.0));
        assert_eq!((values[16], values[80]), (0.0, 64.0));
    }
}
