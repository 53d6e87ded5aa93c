//! `Q8_0`: 32 signed 8-bit integers with a scale. An element's value is `d · q`.

use half::f16;

use super::block::{Block, Quantise, f16_to_f32, largest_magnitude};

/// A block of 32 elements.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C)]
pub(crate) struct BlockQ8_0 {
    /// The scale `d`, an `f16`.
    d: [u8; 2],
    /// The integers `q`.
    pub(crate) quants: [i8; 32],
}

const _: () = assert!(size_of::<BlockQ8_0>() == 34);

impl BlockQ8_0 {
    /// The scale `d`.
    #[inline(always)]
    pub(crate) fn scale(&self) -> f32 {
        f16_to_f32(self.d)
    }
}

#[allow(unsafe_code, reason = "blocks are views of the bytes of a file")]
// SAFETY: arrays of bytes, `#[repr(C)]`, so aligned to 1 without padding and valid with any bytes.
unsafe impl Block<32> for BlockQ8_0 {
    #[inline(always)]
    fn dequantise(&self, values: &mut [f32; 32]) {
        let d = self.scale();
        for (quant, value) in self.quants.iter().zip(values) {
            *value = d * f32::from(*quant);
        }
    }
}

impl Quantise<32> for BlockQ8_0 {
    /// The largest magnitude becomes 127.
    fn quantise(values: &[f32; 32]) -> Option<Self> {
        let largest = largest_magnitude(values)?;
        let d = largest / 127.0;
        let stored = f16::from_f32(d);
        if stored.is_infinite() {
            return None;
        }
        // A block of values too small for an inverse is a block of zeros.
        let inverse = if d.recip().is_finite() { d.recip() } else { 0.0 };
        Some(Self { d: stored.to_le_bytes(), quants: values.map(|value| round(value * inverse) as i8) })
    }
}

/// Rounds to nearest, halves away from zero, where `round` would be a call for each value. What is added is the float
/// before 0.5: 0.5 itself would round that float up to 1.
fn round(value: f32) -> i32 {
    (value + 0.499_999_97_f32.copysign(value)) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantise(values: &[f32; 32]) -> BlockQ8_0 {
        BlockQ8_0::quantise(values).unwrap()
    }

    #[test]
    fn a_known_block() {
        let mut values = [0.0; 32];
        (values[0], values[1], values[31]) = (127.0, -63.4, 0.5);
        let block = quantise(&values);
        assert_eq!((block.d, block.quants[0], block.quants[1]), ([0x00, 0x3C], 127, -63)); // 0x3C00 is 1.0
        assert_eq!(block.quants[31], 1); // halves away from zero
        let mut back = [0.0; 32];
        block.dequantise(&mut back);
        assert_eq!((back[0], back[1], back[2], back[31]), (127.0, -63.0, 0.0, 1.0));
    }

    #[test]
    fn fields_are_where_gguf_has_them() {
        let mut bytes = [0; 34];
        (bytes[1], bytes[2], bytes[33]) = (0x3C, 5, 0xFF);
        let block = BlockQ8_0::slice(&bytes)[0];
        assert_eq!((block.scale(), block.quants[0], block.quants[31]), (1.0, 5, -1));
    }

    #[test]
    fn rounds_as_round_does() {
        let edges = (-254..=254).map(|half| half as f32 / 2.0);
        for value in edges.flat_map(|edge| [edge, edge.next_up(), edge.next_down(), edge + 0.1]) {
            assert_eq!(round(value), value.round() as i32, "{value}");
        }
    }

    #[test]
    fn tiny_values_become_zero() {
        for tiny in [0.0, 1e-44, -1e-38] {
            let mut back = [1.0; 32];
            quantise(&[tiny; 32]).dequantise(&mut back);
            assert_eq!(back, [0.0; 32]);
        }
    }
}
