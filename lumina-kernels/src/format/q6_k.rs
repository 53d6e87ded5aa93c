//! `Q6_K`: 256 6-bit integers, with an 8-bit scale `s` for each 16 of them. An element's value is `d · s · (q − 32)`.
//! It is only read.

use super::block::{Block, f16_to_f32};

/// A block of 256 elements, in two halves of four runs of 32.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C)]
pub(crate) struct BlockQ6K {
    /// The low 4 bits of the integers `q`: for each half 32 bytes for runs 0 and 2, then 32 bytes for runs 1 and 3.
    low: [u8; 128],
    /// The upper 2 bits: for each half 32 bytes, with bits 0–1 for run 0, 2–3 for run 1, and so on.
    high: [u8; 64],
    /// The scales `s`.
    scales: [i8; 16],
    /// The scale `d` of the scales, an `f16`.
    d: [u8; 2],
}

const _: () = assert!(size_of::<BlockQ6K>() == 210);

#[allow(unsafe_code, reason = "blocks are views of the bytes of a file")]
// SAFETY: arrays of bytes, `#[repr(C)]`, so aligned to 1 without padding and valid with any bytes.
unsafe impl Block<256> for BlockQ6K {
    fn dequantise(&self, values: &mut [f32; 256]) {
        let d = f16_to_f32(self.d);
        for (run, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let (half, run_of_half) = (run / 4, run % 4);
            let low = &self.low[half * 64 + run_of_half % 2 * 32..][..32];
            let high = &self.high[half * 32..][..32];
            for (part, values) in values.as_chunks_mut::<16>().0.iter_mut().enumerate() {
                let scale = d * f32::from(self.scales[2 * run + part]);
                let bits = low[16 * part..].iter().zip(&high[16 * part..]);
                for (value, (low, high)) in values.iter_mut().zip(bits) {
                    let (low, high) = (low >> (run_of_half / 2 * 4) & 15, high >> (run_of_half * 2) & 3);
                    *value = scale * f32::from(i16::from(low | high << 4) - 32);
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
        const HIGH: usize = 128;
        const SCALES: usize = 192;
        let mut bytes = [0u8; 210];
        bytes[208..].copy_from_slice(&[0x00, 0x38]); // 0.5
        bytes[SCALES] = 2; // elements 0–15
        bytes[SCALES + 5] = (-1i8) as u8; // elements 80–95
        bytes[SCALES + 15] = 1; // elements 240–255
        bytes[0] = 0x0F; // low half of element 0, and 0 for element 64
        bytes[HIGH] = 0b11; // upper bits of element 0
        bytes[16] = 0x20; // low half of element 80 is 2
        bytes[HIGH + 16] = 0b01_0000; // its upper bits are 1
        bytes[64 + 32 + 31] = 0x70; // element 255: half 1, run 3, place 31
        bytes[HIGH + 32 + 31] = 0b1000_0000;
        let mut values = [0.0; 256];
        BlockQ6K::slice(&bytes)[0].dequantise(&mut values);
        assert_eq!(values[0], 0.5 * 2.0 * 31.0);
        assert_eq!(values[1], 0.5 * 2.0 * -32.0);
        assert_eq!(values[80], -0.5 * (18.0 - 32.0));
        assert_eq!(values[255], 0.5 * (39.0 - 32.0));
        assert_eq!(values[16..80], [0.0; 64]);
    }
}
