//! `f32` values as the bytes that are exchanged.

use bytes::Bytes;

/// Values as bytes in the processor's order, without a copy.
pub(crate) fn f32_bytes(values: Vec<f32>) -> Bytes {
    struct Values(Vec<f32>);
    impl AsRef<[u8]> for Values {
        fn as_ref(&self) -> &[u8] {
            bytemuck::cast_slice(&self.0)
        }
    }
    Bytes::from_owner(Values(values))
}

/// Bytes as values.
pub(crate) fn bytes_f32(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|&four| f32::from_ne_bytes(four)).collect()
}
