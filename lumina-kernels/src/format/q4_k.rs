//! `Q4_K`: `f16` scales `d` and `m`, eight 6-bit pairs `(s, t)` in 12 bytes, then 256 4-bit numbers; values
//! `d · s · q − m · t` with a pair for each 32 elements.

pub(crate) const ELEMENTS: usize = 256;
pub(crate) const BYTES: usize = 144;
const PAIRS: usize = 4;
const QUANTS: usize = 16;

/// Pair `index` of scale and minimum. The first four take the low 6 bits of bytes 0–3 and 4–7; the others have their low halves in
/// bytes 8–11, and their upper two bits on top of the first four.
fn pair(packed: &[u8], index: usize) -> (u8, u8) {
    if index < 4 {
        (packed[index] & 63, packed[index + 4] & 63)
    } else {
        let low = packed[index + 4];
        ((low & 15) | (packed[index - 4] >> 6) << 4, (low >> 4) | (packed[index] >> 6) << 4)
    }
}

/// Of each 32 bytes of numbers, the low halves are 32 elements and the high halves the next 32.
pub(super) fn dequantise(block: &[u8; BYTES], values: &mut [f32; ELEMENTS]) {
    let (d, m) = (super::scale(block, 0), super::scale(block, 2));
    for (part, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (scale, minimum) = pair(&block[PAIRS..QUANTS], part);
        let (scale, minimum) = (d * f32::from(scale), m * f32::from(minimum));
        let bytes = &block[QUANTS + part / 2 * 32..][..32];
        for (value, byte) in values.iter_mut().zip(bytes) {
            let quant = if part % 2 == 0 { byte & 15 } else { byte >> 4 };
            *value = scale * f32::from(quant) - minimum;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_where_the_format_has_them() {
        // Scale i is 5i + 1, minimum i is 7i + 2; packed by hand from the description.
        let mut packed = [0u8; 12];
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
            assert_eq!(pair(&packed, i.into()), (5 * i + 1, 7 * i + 2));
        }
    }

    #[test]
    fn a_known_block() {
        let mut block = [0u8; BYTES];
        block[..4].copy_from_slice(&[0x00, 0x38, 0x00, 0x3C]); // d = 0.5, m = 1
        block[PAIRS] = 3; // scale of the first 32
        block[PAIRS + 5] = 2; // minimum of the second 32
        block[PAIRS + 1] = 1; // its scale
        block[QUANTS] = 0xF9;
        let mut values = [0.0; ELEMENTS];
        dequantise(&block, &mut values);
        assert_eq!((values[0], values[1], values[32], values[33]), (13.5, 0.0, 5.5, -2.0));
        assert_eq!(values[64..], [0.0; 192]);
    }
}
