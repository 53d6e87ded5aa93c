//! Numbers of 16 and 8 bits, in the bits of a word.

use cubecl::prelude::*;
use half::{bf16, f16};

use crate::weights::Format;

/// Two numbers side by side.
pub(crate) type Float2 = Vector<f32, Const<2>>;

/// naga 30 gives a wrong result for `bitcast<vec2<f16>>(u32)`, which is what WGSL gets of `reinterpret`; SPIR-V, MSL
/// and CUDA are right. Of these three only CUDA can be told by its features.
const NATIVE_F16: bool = cfg!(any(feature = "vulkan", feature = "metal"));

/// Whether a word is reinterpreted as two `f16`, and not decoded in whole numbers.
#[cube]
pub(crate) fn native_f16() -> comptime_type!(bool) {
    let properties = comptime::device_properties().comptime();
    comptime!(NATIVE_F16 || properties.features.memory_reinterpret)
}

/// The two `f16` of a word.
#[cube]
pub(crate) fn half_pair(word: u32) -> Float2 {
    let native = native_f16();
    if comptime!(native) {
        Float2::cast_from(Vector::<f16, Const<2>>::reinterpret(word))
    } else {
        let mut pair = Float2::new(half_value(word & 0xffffu32));
        pair.insert(1usize, half_value(word >> 16u32));
        pair
    }
}

/// The value of an `f16`, in whole numbers; infinity and NaN become large numbers, which files are checked for.
#[cube]
pub(crate) fn half_value(half: u32) -> f32 {
    let magnitude = half & 0x7fffu32;
    let normal = f32::reinterpret((magnitude << 13u32) + 0x3800_0000u32);
    // 2⁻²⁴, the unit of subnormal numbers.
    let small = f32::cast_from(magnitude) * 5.960_464_5e-8f32;
    let value = select(magnitude < 0x400u32, small, normal);
    f32::reinterpret(u32::reinterpret(value) | ((half & 0x8000u32) << 16u32))
}

/// The `f16` nearest to a number, ties to even, in whole numbers; what is too large or not finite becomes NaN.
#[cube]
pub(crate) fn round_f16(value: f32) -> u32 {
    let bits = u32::reinterpret(value);
    let magnitude = bits & 0x7fff_ffffu32;
    // Beside one half the last bit is 2⁻²⁴, the unit of subnormal numbers.
    let small = u32::reinterpret(f32::reinterpret(magnitude) + 0.5f32) - 0x3f00_0000u32;
    let normal = (magnitude - 0x3800_0000u32 + 0xfffu32 + ((magnitude >> 13u32) & 1u32)) >> 13u32;
    let finite = select(magnitude < 0x3880_0000u32, small, normal);
    select(magnitude < 0x477f_f000u32, finite, 0x7e00u32) | ((bits >> 16u32) & 0x8000u32)
}

/// The `bf16` nearest to a number, ties to even; what is not finite becomes NaN.
#[cube]
pub(crate) fn round_bf16(value: f32) -> u32 {
    let bits = u32::reinterpret(value);
    let rounded = (bits + 0x7fffu32 + ((bits >> 16u32) & 1u32)) >> 16u32;
    select((bits & 0x7fff_ffffu32) < 0x7f80_0000u32, rounded, 0x7fc0u32)
}

/// Two numbers in 16 bits, the first in the lower ones, each rounded to the nearest, ties to even. In whole numbers it
/// works on every device, and is slow; what is too large or not finite becomes NaN then.
#[cube]
pub(crate) fn round_pair(pair: Float2, #[comptime] format: Format, #[comptime] in_whole_numbers: bool) -> u32 {
    if comptime!(in_whole_numbers) {
        let (low, high) = (pair.extract(0usize), pair.extract(1usize));
        if comptime!(format == Format::BF16) {
            round_bf16(low) | (round_bf16(high) << 16u32)
        } else {
            round_f16(low) | (round_f16(high) << 16u32)
        }
    } else if comptime!(format == Format::BF16) {
        u32::reinterpret(Vector::<bf16, Const<2>>::cast_from(pair))
    } else {
        u32::reinterpret(Vector::<f16, Const<2>>::cast_from(pair))
    }
}

/// The two numbers of a word, in `bf16` or `f16`.
#[cube]
pub(crate) fn pair_values(word: u32, #[comptime] format: Format) -> Float2 {
    if comptime!(format == Format::BF16) {
        let mut pair = Float2::new(f32::reinterpret(word << 16u32));
        pair.insert(1usize, f32::reinterpret(word & 0xffff_0000u32));
        pair
    } else {
        half_pair(word)
    }
}

/// Adding 1.5 · 2²³ rounds to the nearest whole number, ties to even; the number is then in the low bits.
const ROUND: f32 = 12_582_912.0;

/// A number up to ±127 rounded to a byte in two's complement, ties to even. `zero` is 0: the compiler does not know,
/// and so cannot fuse the product that a number comes from and the sum here.
#[cube]
pub(crate) fn round_byte(value: f32, zero: u32) -> u32 {
    let alone = f32::reinterpret(u32::reinterpret(value) ^ zero);
    (u32::reinterpret(alone + f32::new(ROUND)) - 0x4b40_0000u32) & 0xffu32
}
