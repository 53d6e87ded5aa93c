//! Alternatives.

use crate::DrawKey;
use crate::draw::{first, insert};
use crate::speculation::draft::MAX_WIDTH;
use crate::speculation::memory::Memory;

/// The tokens that came nearest to winning the last draw at a position, the winner first: another distribution most
/// probably draws one of them. None where the candidates of that draw were not kept.
pub(crate) fn runner_ups(memory: &Memory, key: Option<DrawKey>, position: usize) -> [Option<u32>; MAX_WIDTH] {
    let nearest: [_; MAX_WIDTH] = nearest(key, position, memory.candidates(position).iter().copied());
    nearest.map(|(time, token)| (time < u32::MAX).then_some(token))
}

/// The first of these tokens with their depths, each with its time and the winner first. Without a key no noise is
/// drawn, and the likeliest come first.
pub(super) fn nearest<const N: usize>(
    key: Option<DrawKey>,
    position: usize,
    depths: impl Iterator<Item = (u32, u32)>,
) -> [(u32, u32); N] {
    if let Some(key) = key {
        return first(key, position as u32, depths);
    }
    let mut likeliest = [(u32::MAX, 0); N];
    depths.for_each(|(token, depth)| insert(&mut likeliest, (depth, token)));
    likeliest
}
