//! The formats without blocks: `F32`, `F16` and `BF16`, little-endian.

use half::{bf16, f16};

pub(super) fn read_f32(bytes: &[u8], values: &mut [f32]) {
    for (bytes, value) in bytes.as_chunks().0.iter().zip(values) {
        *value = f32::from_le_bytes(*bytes);
    }
}

pub(super) fn read_f16(bytes: &[u8], values: &mut [f32]) {
    for (bytes, value) in bytes.as_chunks().0.iter().zip(values) {
        *value = f16::from_le_bytes(*bytes).to_f32();
    }
}

pub(super) fn read_bf16(bytes: &[u8], values: &mut [f32]) {
    for (bytes, value) in bytes.as_chunks().0.iter().zip(values) {
        *value = bf16::from_le_bytes(*bytes).to_f32();
    }
}

pub(super) fn write_f32(values: &[f32], bytes: &mut [u8]) -> Result<(), usize> {
    for (value, bytes) in values.iter().zip(bytes.as_chunks_mut().0) {
        *bytes = value.to_le_bytes();
    }
    Ok(())
}

/// Fails with the index of a finite value beyond the range of `f16`.
pub(super) fn write_f16(values: &[f32], bytes: &mut [u8]) -> Result<(), usize> {
    for (element, (&value, bytes)) in values.iter().zip(bytes.as_chunks_mut().0).enumerate() {
        let half = f16::from_f32(value);
        if half.is_infinite() && value.is_finite() {
            return Err(element);
        }
        *bytes = half.to_le_bytes();
    }
    Ok(())
}

pub(super) fn write_bf16(values: &[f32], bytes: &mut [u8]) -> Result<(), usize> {
    for (value, bytes) in values.iter().zip(bytes.as_chunks_mut().0) {
        *bytes = bf16::from_f32(*value).to_le_bytes();
    }
    Ok(())
}
