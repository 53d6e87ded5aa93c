//! `Q4_0`: an `f16` scale `d`, then 16 bytes whose low halves are elements 0 to 15 and high halves 16 to 31; values
//! `d · (q − 8)`.

use half::f16;

pub(crate) const ELEMENTS: usize = 32;
pub(crate) const BYTES: usize = 18;
/// Where the numbers begin.
pub(crate) const QUANTS: usize = 2;

/// Writes a block, or nothing where a value or the scale is not finite in `f16`.
pub(super) fn quantise(values: &[f32; ELEMENTS], block: &mut [u8; BYTES]) -> Option<()> {
    let magnitude = super::largest_magnitude(values)?;
    // The first of them, which decides the sign.
    let largest = values.iter().copied().find(|value| value.abs() == magnitude).unwrap_or_default();
    // The value of largest magnitude becomes 0, the end that reaches one step further.
    let d = largest / -8.0;
    let stored = f16::from_f32(d);
    if stored.is_infinite() {
        return None;
    }
    let inverse = if d.recip().is_finite() { d.recip() } else { 0.0 };
    block[..QUANTS].copy_from_slice(&stored.to_le_bytes());
    let quant = |value: f32| ((value * inverse + 8.5) as i32).clamp(0, 15) as u8;
    for (index, byte) in block[QUANTS..].iter_mut().enumerate() {
        *byte = quant(values[index]) | quant(values[index + 16]) << 4;
    }
    Some(())
}

pub(super) fn dequantise(block: &[u8; BYTES], values: &mut [f32; ELEMENTS]) {
    let d = super::scale(block, 0);
    for (index, byte) in block[QUANTS..].iter().enumerate() {
        values[index] = d * (f32::from(byte & 15) - 8.0);
        values[index + 16] = d * (f32::from(byte >> 4) - 8.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_block() {
        let mut values = [0.0; ELEMENTS];
        (values[0], values[1], values[16], values[31]) = (-8.0, 7.9, 3.4, -1.0);
        let mut block = [0xAA; BYTES];
        quantise(&values, &mut block).unwrap();
        assert_eq!(block[..4], [0x00, 0x3C, 0xB0, 0x8F]);
        assert_eq!(block[17], 0x78);
        let mut back = [0.0; ELEMENTS];
        dequantise(&block, &mut back);
        assert_eq!((back[0], back[1], back[2], back[16], back[31]), (-8.0, 7.0, 0.0, 3.0, -1.0));
    }

    #[test]
    fn the_largest_value_is_kept_whatever_its_sign() {
        for sign in [1.0, -1.0] {
            let mut values = [0.25 * sign; ELEMENTS];
            values[5] = 2.0 * sign;
            let mut block = [0; BYTES];
            quantise(&values, &mut block).unwrap();
            let mut back = [0.0; ELEMENTS];
            dequantise(&block, &mut back);
            assert_eq!(back, values);
        }
    }
}
