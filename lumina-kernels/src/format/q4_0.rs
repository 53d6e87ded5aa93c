//! `Q4_0`: 32 4-bit integers with a scale. An element's value is `d · (q − 8)`.

use half::f16;

use super::block::{Block, Quantise, f16_to_f32, largest_magnitude};

/// A block of 32 elements.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C)]
pub(crate) struct BlockQ4_0 {
    /// The scale `d`, an `f16`.
    d: [u8; 2],
    /// The integers `q`, from 0 to 15: elements 0 to 15 in the low halves of the bytes, 16 to 31 in the high halves.
    pub(crate) nibbles: [u8; 16],
}

const _: () = assert!(size_of::<BlockQ4_0>() == 18);

impl BlockQ4_0 {
    /// The scale `d`.
    #[inline(always)]
    pub(crate) fn scale(&self) -> f32 {
        f16_to_f32(self.d)
    }

    /// The integers `q` in the order of the elements.
    #[inline(always)]
    pub(crate) fn quants(&self) -> [u8; 32] {
        let mut quants = [0; 32];
        for (index, byte) in self.nibbles.iter().enumerate() {
            (quants[index], quants[index + 16]) = (byte & 15, byte >> 4);
        }
        quants
    }
}

#[allow(unsafe_code, reason = "blocks are views of the bytes of a file")]
// SAFETY: arrays of bytes, `#[repr(C)]`, so aligned to 1 without padding and valid with any bytes.
unsafe impl Block<32> for BlockQ4_0 {
    #[inline(always)]
    fn dequantise(&self, values: &mut [f32; 32]) {
        let d = self.scale();
        for (index, byte) in self.nibbles.iter().enumerate() {
            values[index] = d * (f32::from(byte & 15) - 8.0);
            values[index + 16] = d * (f32::from(byte >> 4) - 8.0);
        }
    }
}

impl Quantise<32> for BlockQ4_0 {
    /// The value of the largest magnitude becomes 0, as the range reaches one step further at that end.
    fn quantise(values: &[f32; 32]) -> Option<Self> {
        let magnitude = largest_magnitude(values)?;
        // The first of them determines the sign.
        let largest = values.iter().copied().find(|value| value.abs() == magnitude).unwrap_or_default();
        let d = largest / -8.0;
        let stored = f16::from_f32(d);
        if stored.is_infinite() {
            return None;
        }
        let inverse = if d.recip().is_finite() { d.recip() } else { 0.0 };
        let quant = |value: f32| ((value * inverse + 8.5) as i32).clamp(0, 15) as u8;
        let mut nibbles = [0; 16];
        for (index, byte) in nibbles.iter_mut().enumerate() {
            *byte = quant(values[index]) | quant(values[index + 16]) << 4;
        }
        Some(Self { d: stored.to_le_bytes(), nibbles })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(values: &[f32; 32]) -> (BlockQ4_0, [f32; 32]) {
        let block = BlockQ4_0::quantise(values).unwrap();
        let mut back = [0.0; 32];
        block.dequantise(&mut back);
        (block, back)
    }

    #[test]
    fn a_known_block() {
        let mut values = [0.0; 32];
        (values[0], values[1], values[16], values[31]) = (-8.0, 7.9, 3.4, -1.0);
        let (block, back) = round_trip(&values);
        assert_eq!((block.d, block.nibbles[0], block.nibbles[1]), ([0x00, 0x3C], 0xB0, 0x8F));
        assert_eq!(block.nibbles[15], 0x78);
        assert_eq!((back[0], back[1], back[2], back[16], back[31]), (-8.0, 7.0, 0.0, 3.0, -1.0));
    }

    #[test]
    fn fields_are_where_gguf_has_them() {
        let mut bytes = [0; 18];
        (bytes[1], bytes[2], bytes[17]) = (0x3C, 0x0F, 0x70);
        let block = BlockQ4_0::slice(&bytes)[0];
        assert_eq!((block.scale(), block.quants()[0], block.quants()[31]), (1.0, 15, 7));
    }

    #[test]
    fn the_largest_value_is_exact_whatever_its_sign() {
        for sign in [1.0, -1.0] {
            let mut values = [0.25 * sign; 32];
            values[5] = 2.0 * sign;
            assert_eq!(round_trip(&values).1, values);
        }
    }
}
