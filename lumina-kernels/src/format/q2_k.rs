//! `Q2_K`: 256 2-bit integers, with a scale `s` and a minimum `t` for each 16 of them. An element's value is
//! `d · s · q − m · t`. It is only read.

use super::block::{Block, f16_to_f32};

/// A block of 256 elements, in two halves of four runs of 32.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C)]
pub(crate) struct BlockQ2K {
    /// The scales `s` in the low halves of the bytes, the minima `t` in the high halves.
    pairs: [u8; 16],
    /// The integers `q`.
    quants: Quants2,
    /// The scale `d` of the scales, an `f16`.
    d: [u8; 2],
    /// The scale `m` of the minima, an `f16`.
    m: [u8; 2],
}

const _: () = assert!(size_of::<BlockQ2K>() == 84);

/// 256 integers from 0 to 3, as `Q2_K` and `Q3_K` store them: for each half 32 bytes, with bits 0–1 for run 0, 2–3 for
/// run 1, and so on.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(transparent)]
pub(super) struct Quants2([[u8; 32]; 2]);

impl Quants2 {
    /// The integers of a run of 32, from 0 to 7.
    pub(super) fn run(&self, run: usize) -> [u8; 32] {
        self.0[run / 4].map(|byte| byte >> (run % 4 * 2) & 3)
    }
}

#[allow(unsafe_code, reason = "blocks are views of the bytes of a file")]
// SAFETY: arrays of bytes, `#[repr(C)]`, so aligned to 1 without padding and valid with any bytes.
unsafe impl Block<256> for BlockQ2K {
    fn dequantise(&self, values: &mut [f32; 256]) {
        let (d, m) = (f16_to_f32(self.d), f16_to_f32(self.m));
        for (run, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let quants = self.quants.run(run);
            for (part, values) in values.as_chunks_mut::<16>().0.iter_mut().enumerate() {
                let pair = self.pairs[2 * run + part];
                let (scale, minimum) = (d * f32::from(pair & 15), m * f32::from(pair >> 4));
                for (value, quant) in values.iter_mut().zip(&quants[16 * part..]) {
                    *value = scale * f32::from(*quant) - minimum;
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
        const QUANTS: usize = 16;
        let mut bytes = [0u8; 84];
        bytes[80..].copy_from_slice(&[0x00, 0x38, 0x00, 0x3C]); // d = 0.5, m = 1
        bytes[0] = 0x24; // elements 0–15: scale 4, minimum 2
        bytes[3] = 0x01; // elements 48–63: scale 1
        bytes[15] = 0x12; // elements 240–255: scale 2, minimum 1
        bytes[QUANTS] = 0b11; // element 0
        bytes[QUANTS + 31] = 0b1000; // element 63
        bytes[QUANTS + 63] = 0b1100_0000; // element 255
        let mut values = [0.0; 256];
        BlockQ2K::slice(&bytes)[0].dequantise(&mut values);
        assert_eq!((values[0], values[1], values[63], values[255], values[254]), (4.0, -2.0, 1.0, 2.0, -1.0));
        assert_eq!(values[64..240], [0.0; 176]);
    }
}
