//! The registers of matrix instructions, and a step of a tile.
//!
//! Rows of weights are the rows of an instruction, rows of activations its columns: lane `4g + t` has rows g and g + 8
//! of weights and row g of activations, and the sums of the former with rows 2t and 2t + 1 of activations.

use cubecl::prelude::*;

use super::Kind;
use crate::bits::{Float2, half_pair};
use crate::matmul::{Float4, Load};
use crate::tensor_cores::{instruction, zeros};
use crate::weights::Format;

/// Of two words the lanes without the bit `mask` keep the first and those with it the second; they exchange the others.
/// The result has both words in the order of the lanes that they come from.
#[cube]
fn exchange(first: u32, second: u32, lane: u32, #[comptime] mask: u32) -> (u32, u32) {
    let upper = lane & mask != 0;
    let got = plane_shuffle_xor(select(upper, first, second), mask);
    (select(upper, got, first), select(upper, second, got))
}

/// The registers of a load of weights, two for each instruction of a step.
///
/// - 16 bits: as they lie. Instruction i has words 2i, 2i + 1 of each lane.
/// - Q8_0: lanes 0 and 1 have the halves of a block, 2 and 3 those of the next one. They exchange 8 bytes, so that
///   instruction i has block i: lane t has its bytes `8 · Q8_ORDER[t] …`.
/// - Q4_0: a lane has a block. They exchange words, so that instruction i has block i: lane t has numbers 4t … 4t + 3
///   and 16 + 4t … as 16 · (number − 8) in bytes.
#[cube]
pub(super) fn registers(load: Load, lane: u32, #[comptime] kind: Kind) -> Array<u32> {
    let mut words = Array::<u32>::new(comptime!(2 * kind.products()));
    if comptime!(kind.format == Format::Q8_0) {
        let first = exchange(load.extract(0usize), load.extract(2usize), lane, 2u32);
        let second = exchange(load.extract(1usize), load.extract(3usize), lane, 2u32);
        words[0] = first.0;
        words[1] = second.0;
        words[2] = first.1;
        words[3] = second.1;
    } else if comptime!(kind.format == Format::Q4_0) {
        let near = exchange(load.extract(0usize), load.extract(1usize), lane, 1u32);
        let far = exchange(load.extract(2usize), load.extract(3usize), lane, 1u32);
        let even = exchange(near.0, far.0, lane, 2u32);
        let odd = exchange(near.1, far.1, lane, 2u32);
        let mut blocks = Array::<u32>::new(4usize);
        blocks[0] = even.0;
        blocks[1] = odd.0;
        blocks[2] = even.1;
        blocks[3] = odd.1;
        #[unroll]
        for block in 0..4usize {
            // A nibble in the upper half of a byte, less 128, is 16 · (number − 8).
            words[block * 2] = ((blocks[block] << 4u32) & 0xf0f0_f0f0u32) ^ 0x8080_8080u32;
            words[block * 2 + 1] = (blocks[block] & 0xf0f0_f0f0u32) ^ 0x8080_8080u32;
        }
    } else {
        #[unroll]
        for i in 0..4usize {
            words[i] = load.extract(i);
        }
    }
    words
}

/// Which 8 bytes of a block each of the four lanes of a row has, in Q8_0.
pub(super) const Q8_ORDER: [usize; 4] = [0, 2, 1, 3];

/// The scales of the blocks of a step, of a row of weights that has `blocks`. Blocks beyond the end have those of
/// others.
#[cube]
pub(super) fn step_scales(scales: &[u32], row: u32, step: u32, blocks: u32, #[comptime] kind: Kind) -> Array<f32> {
    let count = comptime!(if kind.format.has_scales() { kind.blocks() } else { 1 });
    let mut factors = Array::<f32>::new(count);
    if comptime!(kind.format.has_scales()) {
        let first = step * count as u32;
        // The registers of Q4_0 are 16 times as large.
        let unit = comptime!(if kind.format == Format::Q4_0 { 0.0625f32 } else { 1.0f32 });
        #[unroll]
        for pair in 0..comptime!(count / 2) {
            let block = first + comptime!(pair as u32 * 2);
            if comptime!(kind.paired_scales) {
                let both = half_pair(scales[((row + min(block, blocks - 2u32)) / 2) as usize]);
                factors[pair * 2] = both.extract(0usize) * unit;
                factors[pair * 2 + 1] = both.extract(1usize) * unit;
            } else {
                #[unroll]
                for i in 0..2usize {
                    let index = row + min(block + i as u32, blocks - 1u32);
                    let word = scales[(index / 2) as usize] >> (index % 2 * 16u32);
                    factors[pair * 2 + i] = half_pair(word & 0xffffu32).extract(0usize) * unit;
                }
            }
        }
    }
    factors
}

/// The scales of packed activations for a step and two columns of a tile, by block. `place` is that of the step among
/// those of all groups.
#[cube]
pub(super) fn column_scales(x_scales: &[Float4], place: u32, lane: u32, #[comptime] kind: Kind) -> Array<Float2> {
    let count = comptime!(if kind.format.has_scales() { kind.blocks() } else { 1 });
    let mut factors = Array::<Float2>::new(count);
    if comptime!(kind.format.has_scales()) {
        #[unroll]
        for pair in 0..comptime!(count / 2) {
            let index = (place * comptime!(count as u32 / 2) + pair as u32) * 4 + lane % 4;
            let four = x_scales[index as usize];
            #[unroll]
            for i in 0..2usize {
                let mut factor = Float2::new(four.extract(comptime!(i * 2)));
                factor.insert(1usize, four.extract(comptime!(i * 2 + 1)));
                factors[pair * 2 + i] = factor;
            }
        }
    }
    factors
}

/// What the sums of two columns are multiplied with at the end of a run: a power of two beside `f16`.
#[cube]
pub(super) fn run_factor(x_scales: &[Float4], group: u32, lane: u32, #[comptime] kind: Kind) -> Float2 {
    let mut factor = Float2::new(1.0f32);
    if comptime!(kind.format == Format::F16) {
        let four = x_scales[(group * 4 + lane % 4) as usize];
        factor = Float2::new(four.extract(0usize));
        factor.insert(1usize, four.extract(1usize));
    }
    factor
}

/// Adds the products of a step to the sums of a tile. Beside 16 bits the sums run on in the instruction; a block of
/// bytes has a sum of its own, a whole number, which its scales multiply.
#[cube]
pub(super) fn multiply(
    low: &Array<u32>,
    high: &Array<u32>,
    low_scales: &Array<f32>,
    high_scales: &Array<f32>,
    x: &Array<Load>,
    x_scales: &Array<Float2>,
    sums: &mut Array<Float2>,
    scratch: &mut Shared<[u32]>,
    #[comptime] kind: Kind,
) {
    let mut x_words = Array::<u32>::new(comptime!(kind.loads() * 4));
    #[unroll]
    for i in 0..comptime!(kind.loads() * 4) {
        x_words[i] = x[i / 4].extract(comptime!(i % 4));
    }
    // A loop is not unrolled where instructions have barriers, which make programs large on a software driver.
    #[unroll(!kind.emulated)]
    for i in 0..comptime!(kind.products()) {
        let mut a = Array::<u32>::new(4usize);
        a[0] = low[i * 2];
        a[1] = high[i * 2];
        a[2] = low[i * 2 + 1];
        a[3] = high[i * 2 + 1];
        let mut b = Array::<u32>::new(2usize);
        if comptime!(kind.format.has_scales()) {
            b[0] = x_words[i * 2];
            b[1] = x_words[i * 2 + 1];
            let mut whole = zeros();
            instruction(&a, &b, &mut whole, scratch, kind.format, kind.emulated);
            sums[0] = fma(whole[0], Float2::new(low_scales[i]) * x_scales[i], sums[0]);
            sums[1] = fma(whole[1], Float2::new(high_scales[i]) * x_scales[i], sums[1]);
        } else {
            #[unroll(!kind.emulated)]
            for part in 0..comptime!(kind.parts) {
                b[0] = x_words[part * 4 + i * 2];
                b[1] = x_words[part * 4 + i * 2 + 1];
                instruction(&a, &b, sums, scratch, kind.format, kind.emulated);
            }
        }
    }
}
