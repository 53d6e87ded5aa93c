//! `Q6_K`: 128 bytes of lower halves, 64 bytes of upper two bits, 16 signed scales `s`, and an `f16` scale `d`; values
//! `d · s · (q − 32)` with a scale for each 16 elements.

pub(crate) const ELEMENTS: usize = 256;
pub(crate) const BYTES: usize = 210;
const HIGH: usize = 128;
const SCALES: usize = 192;
const SCALE: usize = 208;

/// In each half of a block, 32 bytes of upper bits serve four runs of 32 elements: bits 0–1 the first, 2–3 the second and so on.
/// The lower halves of runs 0 and 2 lie in the same 32 bytes, those of 1 and 3 in the next.
pub(super) fn dequantise(block: &[u8; BYTES], values: &mut [f32; ELEMENTS]) {
    let d = super::scale(block, SCALE);
    for (index, value) in values.iter_mut().enumerate() {
        let (half, run, place) = (index / 128, index / 32 % 4, index % 32);
        let low = block[half * 64 + run % 2 * 32 + place] >> (run / 2 * 4) & 15;
        let high = block[HIGH + half * 32 + place] >> (run * 2) & 3;
        let quant = i16::from(low | high << 4) - 32;
        let scale = block[SCALES + index / 16] as i8;
        *value = d * f32::from(scale) * f32::from(quant);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_block() {
        let mut block = [0u8; BYTES];
        block[SCALE..].copy_from_slice(&[0x00, 0x38]); // 0.5
        block[SCALES] = 2; // elements 0–15
        block[SCALES + 5] = (-1i8) as u8; // elements 80–95
        block[SCALES + 15] = 1; // elements 240–255
        block[0] = 0x0F; // low half of element 0, and 0 for element 64
        block[HIGH] = 0b11; // upper bits of element 0
        block[16] = 0x20; // low half of element 80 is 2
        block[HIGH + 16] = 0b01_0000; // its upper bits are 1
        block[64 + 32 + 31] = 0x70; // element 255: half 1, run 3, place 31
        block[HIGH + 32 + 31] = 0b1000_0000;
        let mut values = [0.0; ELEMENTS];
        dequantise(&block, &mut values);
        assert_eq!(values[0], 0.5 * 2.0 * 31.0);
        assert_eq!(values[1], 0.5 * 2.0 * -32.0);
        assert_eq!(values[80], -0.5 * (18.0 - 32.0));
        assert_eq!(values[255], 0.5 * (39.0 - 32.0));
        assert_eq!(values[16..80], [0.0; 64]);
    }
}
