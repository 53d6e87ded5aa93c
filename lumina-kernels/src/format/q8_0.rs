//! `Q8_0`: an `f16` scale `d`, then 32 signed bytes `q`; values `d · q`.

use half::f16;

pub(crate) const ELEMENTS: usize = 32;
pub(crate) const BYTES: usize = 34;
/// Where the numbers begin.
pub(crate) const QUANTS: usize = 2;

/// Writes a block, or nothing where a value or the scale is not finite in `f16`.
pub(super) fn quantise(values: &[f32; ELEMENTS], block: &mut [u8; BYTES]) -> Option<()> {
    let mut largest = 0.0f32;
    for value in values {
        if !value.is_finite() {
            return None;
        }
        largest = largest.max(value.abs());
    }
    let d = largest / 127.0;
    let stored = f16::from_f32(d);
    if stored.is_infinite() {
        return None;
    }
    // A block of values too small for an inverse is a block of zeros.
    let inverse = if d.recip().is_finite() { d.recip() } else { 0.0 };
    block[..QUANTS].copy_from_slice(&stored.to_le_bytes());
    for (value, quant) in values.iter().zip(&mut block[QUANTS..]) {
        *quant = (value * inverse).round() as i8 as u8;
    }
    Some(())
}

pub(super) fn dequantise(block: &[u8; BYTES], values: &mut [f32; ELEMENTS]) {
    let d = super::scale(block, 0);
    for (quant, value) in block[QUANTS..].iter().zip(values) {
        *value = d * f32::from(*quant as i8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_block() {
        let mut values = [0.0; ELEMENTS];
        (values[0], values[1], values[31]) = (127.0, -63.4, 0.5);
        let mut block = [0xAA; BYTES];
        quantise(&values, &mut block).unwrap();
        assert_eq!(block[..4], [0x00, 0x3C, 127, (-63i8) as u8]); // 0x3C00 is 1.0
        assert_eq!(block[33], 1); // halves away from zero
        let mut back = [0.0; ELEMENTS];
        dequantise(&block, &mut back);
        assert_eq!((back[0], back[1], back[2], back[31]), (127.0, -63.0, 0.0, 1.0));
    }

    #[test]
    fn nothing_and_next_to_nothing() {
        for tiny in [0.0, 1e-44, -1e-38] {
            let mut block = [0xAA; BYTES];
            quantise(&[tiny; ELEMENTS], &mut block).unwrap();
            let mut back = [1.0; ELEMENTS];
            dequantise(&block, &mut back);
            assert_eq!(back, [0.0; ELEMENTS]);
        }
    }
}
