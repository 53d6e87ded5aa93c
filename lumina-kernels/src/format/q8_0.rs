//! `Q8_0`: an `f16` scale `d`, then 32 signed bytes `q`; values `d · q`.

use half::f16;

pub(crate) const ELEMENTS: usize = 32;
pub(crate) const BYTES: usize = 34;
/// Where the numbers begin.
pub(crate) const QUANTS: usize = 2;

/// Writes a block, or nothing where a value or the scale is not finite in `f16`.
pub(super) fn quantise(values: &[f32; ELEMENTS], block: &mut [u8; BYTES]) -> Option<()> {
    let largest = super::largest_magnitude(values)?;
    let d = largest / 127.0;
    let stored = f16::from_f32(d);
    if stored.is_infinite() {
        return None;
    }
    // A block of values too small for an inverse is a block of zeros.
    let inverse = if d.recip().is_finite() { d.recip() } else { 0.0 };
    block[..QUANTS].copy_from_slice(&stored.to_le_bytes());
    for (value, quant) in values.iter().zip(&mut block[QUANTS..]) {
        *quant = round(value * inverse) as i8 as u8;
    }
    Some(())
}

/// Rounds to nearest, halves away from zero, where `round` would be a call for each value. What is added is the float before
/// 0.5: 0.5 itself would take that float up to 1.
fn round(value: f32) -> i32 {
    (value + 0.499_999_97_f32.copysign(value)) as i32
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
    fn rounds_as_round_does() {
        let edges = (-254..=254).map(|half| half as f32 / 2.0);
        for value in edges.flat_map(|edge| [edge, edge.next_up(), edge.next_down(), edge + 0.1]) {
            assert_eq!(round(value), value.round() as i32, "{value}");
        }
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
