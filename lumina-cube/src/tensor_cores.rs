//! Matrix instructions, for devices that have them with fragments in registers (CUDA from compute capability 8.0).
//!
//! An instruction makes 16 × 8 sums of products. Lane `4g + t` of a plane has, in registers of 32 bits each:
//!
//! - of `a`: rows g and g + 8 at k = [t], rows g and g + 8 at k = [4 + t];
//! - of `b`: column g at k = [t], and at k = [4 + t];
//! - sums: row g in columns 2t and 2t + 1, then row g + 8 in the same.
//!
//! `[i]` is the i-th word of k: two numbers of 16 bits, or four bytes.

use cubecl::cmma::MmaDefinition;
use cubecl::features::MmaConfig;
use cubecl::ir::{ElemType, FloatKind, IntKind};
use cubecl::prelude::*;
use half::{bf16, f16};

use crate::bits::{Float2, half_pair};
use crate::weights::Format;

/// Lanes of a plane, which compute an instruction together.
pub(crate) const PLANE: u32 = 32;

/// Words that each unit writes for an emulated instruction.
const EMULATED_WORDS: usize = 6;

/// Words of shared memory that a cube of so many units needs for its instructions.
pub(crate) const fn scratch_words(units: usize, emulated: bool) -> usize {
    if emulated { units * EMULATED_WORDS } else { 1 }
}

/// Whether a device has the instructions for numbers of these formats.
pub(crate) fn are_offered(client: &Client, formats: &[Format]) -> bool {
    let properties = client.properties();
    let hardware = &properties.hardware;
    [hardware.plane_size_min, hardware.plane_size_max] == [PLANE; 2]
        && formats.iter().all(|format| {
            let float = |kind| (ElemType::Float(kind), ElemType::Float(FloatKind::F32), 16);
            let (a_type, cd_type, k) = match format {
                Format::F32 => return false,
                Format::F16 => float(FloatKind::F16),
                Format::BF16 => float(FloatKind::BF16),
                Format::Q8_0 | Format::Q4_0 => (ElemType::Int(IntKind::I8), ElemType::Int(IntKind::I32), 32),
            };
            properties.features.matmul.mma.contains(&MmaConfig { a_type, b_type: a_type, cd_type, m: 16, n: 8, k })
        })
}

/// The sums of a tile before its first product.
#[cube]
pub(crate) fn zeros() -> Array<Float2> {
    let mut sums = Array::<Float2>::new(2usize);
    sums[0] = Float2::new(0.0f32);
    sums[1] = Float2::new(0.0f32);
    sums
}

/// `sums += a · b`: 16 products of numbers in 16 bits each, or 32 of signed bytes. Sums of bytes are whole numbers,
/// and zero before. Where it is emulated each number is computed by itself, for tests on devices without the
/// instruction; `scratch` has [`scratch_words`].
#[cube]
pub(crate) fn instruction(
    a: &Array<u32>,
    b: &Array<u32>,
    sums: &mut Array<Float2>,
    scratch: &mut Shared<[u32]>,
    #[comptime] format: Format,
    #[comptime] emulated: bool,
) {
    if comptime!(emulated) {
        emulate(a, b, sums, scratch, format);
    } else if comptime!(format.has_scales()) {
        let definition = MmaDefinition::<i8, i8, i32>::new(16usize, 8usize, 32usize);
        let mut whole = Array::<Vector<i32, Const<2>>>::new(2usize);
        whole[0] = Vector::new(0i32);
        whole[1] = Vector::new(0i32);
        let a_words = registers::<i8, Const<4>>(a, 4usize);
        let b_words = registers::<i8, Const<4>>(b, 2usize);
        definition.execute_inplace(&a_words, &b_words, &mut whole);
        #[unroll]
        for i in 0..2usize {
            sums[i] = Float2::cast_from(whole[i]);
        }
    } else if comptime!(format == Format::BF16) {
        floats_instruction::<bf16>(a, b, sums);
    } else {
        floats_instruction::<f16>(a, b, sums);
    }
}

#[cube]
fn floats_instruction<E: Float>(a: &Array<u32>, b: &Array<u32>, sums: &mut Array<Float2>) {
    let definition = MmaDefinition::<E, E, f32>::new(16usize, 8usize, 16usize);
    let a_words = registers::<E, Const<2>>(a, 4usize);
    let b_words = registers::<E, Const<2>>(b, 2usize);
    definition.execute_inplace(&a_words, &b_words, sums);
}

/// Words as the numbers in them.
#[cube]
fn registers<E: Numeric, N: Size>(words: &Array<u32>, #[comptime] n: usize) -> Array<Vector<E, N>> {
    let mut numbers = Array::<Vector<E, N>>::new(n);
    #[unroll]
    for i in 0..n {
        numbers[i] = Vector::reinterpret(words[i]);
    }
    numbers
}

/// [`instruction`] number by number: units write their registers, and each computes its sums.
#[cube]
fn emulate(
    a: &Array<u32>,
    b: &Array<u32>,
    sums: &mut Array<Float2>,
    scratch: &mut Shared<[u32]>,
    #[comptime] format: Format,
) {
    let base = (UNIT_POS / PLANE * PLANE) as usize;
    let lane = (UNIT_POS % PLANE) as usize;
    #[unroll]
    for i in 0..4usize {
        scratch[(base + lane) * EMULATED_WORDS + i] = a[i];
    }
    #[unroll]
    for i in 0..2usize {
        scratch[(base + lane) * EMULATED_WORDS + 4 + i] = b[i];
    }
    sync_cube();
    #[unroll]
    for half in 0..2usize {
        let mut pair = sums[half];
        #[unroll]
        for j in 0..2usize {
            let mut sum = pair.extract(j);
            for word in 0..8usize {
                let a_word = scratch[(base + lane / 4 * 4 + word % 4) * EMULATED_WORDS + word / 4 * 2 + half];
                let b_word = scratch[(base + (lane % 4 * 2 + j) * 4 + word % 4) * EMULATED_WORDS + 4 + word / 4];
                sum = add_words(a_word, b_word, sum, format);
            }
            pair.insert(j, sum);
        }
        sums[half] = pair;
    }
    sync_cube();
}

/// `sum` and the products of the numbers of two words.
#[cube]
fn add_words(a: u32, b: u32, sum: f32, #[comptime] format: Format) -> f32 {
    let mut sum = sum;
    if comptime!(format.has_scales()) {
        #[unroll]
        for byte in 0..4u32 {
            let shift = comptime!(24 - byte * 8);
            let product = (i32::reinterpret(a << shift) >> 24i32) * (i32::reinterpret(b << shift) >> 24i32);
            sum += f32::cast_from(product);
        }
    } else if comptime!(format == Format::BF16) {
        sum = fma(f32::reinterpret(a << 16u32), f32::reinterpret(b << 16u32), sum);
        sum = fma(f32::reinterpret(a & 0xffff_0000u32), f32::reinterpret(b & 0xffff_0000u32), sum);
    } else {
        let (a_pair, b_pair) = (half_pair(a), half_pair(b));
        sum = fma(a_pair.extract(0usize), b_pair.extract(0usize), sum);
        sum = fma(a_pair.extract(1usize), b_pair.extract(1usize), sum);
    }
    sum
}
