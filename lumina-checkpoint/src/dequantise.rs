//! Elements of every float and quantised type as `f32`.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::Dtype;

/// Dequantises `bytes`, whole blocks of `dtype`, to as many `f32`. `f64` is rounded to nearest, all other types are
/// exact. `false` where the type is neither a float type nor quantised.
pub(crate) fn dequantise(dtype: Dtype, bytes: &[u8], out: &mut [f32]) -> bool {
    debug_assert_eq!(bytes.len() / dtype.block_bytes() * dtype.block_elements(), out.len());
    match dtype {
        Dtype::F32 => each(bytes, out, f32::from_le_bytes),
        Dtype::F64 => each(bytes, out, |chunk| f64::from_le_bytes(chunk) as f32),
        Dtype::F16 => halves(bytes, out, f16::from_le_bytes),
        Dtype::BF16 => halves(bytes, out, bf16::from_le_bytes),
        quantised => {
            return quantised.format().is_some_and(|format| format.dequantise_row(bytes, out).is_ok());
        }
    }
    true
}

fn each<const N: usize>(bytes: &[u8], out: &mut [f32], from_le_bytes: impl Fn([u8; N]) -> f32) {
    for (value, &chunk) in out.iter_mut().zip(bytes.as_chunks().0) {
        *value = from_le_bytes(chunk);
    }
}

/// Casts 16-bit floats up in blocks, so that `half` can use the processor's conversion instructions. The bytes of a
/// file are not aligned, so each block is copied first.
fn halves<T: Copy + Default>(bytes: &[u8], out: &mut [f32], from_le_bytes: fn([u8; 2]) -> T)
where
    [T]: HalfFloatSliceExt,
{
    const BLOCK: usize = 1024;
    let mut block = [T::default(); BLOCK];
    for (chunks, out) in bytes.as_chunks::<2>().0.chunks(BLOCK).zip(out.chunks_mut(BLOCK)) {
        let block = &mut block[..chunks.len()];
        for (half, &chunk) in block.iter_mut().zip(chunks) {
            *half = from_le_bytes(chunk);
        }
        block.convert_to_f32_slice(&mut out[..chunks.len()]);
    }
}
