//! Alternatives.

use crate::speculation::draft::MAX_WIDTH;
use crate::speculation::memory::Memory;
use crate::{DrawKey, race};

/// Adds tokens to `alternatives`, of which the first `n` are known, until it is full: those that came nearest to winning
/// the last draw at a position. Another distribution most probably draws one of them. Without a key, nearest is
/// likeliest. Returns how many there are then; where the candidates of the draw were not kept, there are no more.
pub(crate) fn add_runner_ups(
    memory: &Memory,
    key: Option<DrawKey>,
    position: usize,
    alternatives: &mut [u32],
    n: usize,
) -> usize {
    let (known, rest) = alternatives.split_at_mut(n);
    let n_nearest = rest.len().min(MAX_WIDTH);
    if n_nearest == 0 {
        return n;
    }
    let mut nearest = [(u32::MAX, 0); MAX_WIDTH];
    let nearest = &mut nearest[..n_nearest];
    for &(token, depth) in memory.candidates(position) {
        let latest = nearest[n_nearest - 1].0;
        // Most are too deep to come among them.
        let earliest = depth.saturating_add(if key.is_some() { race::EARLIEST[0] } else { 0 });
        if earliest >= latest || known.contains(&token) {
            continue;
        }
        let time =
            key.map_or(depth, |key| depth + race::arrival(race::noise(key.seed, key.branch, position as u32, token)));
        if time < latest {
            let at = nearest.partition_point(|&(other, _)| other <= time);
            nearest[at..].rotate_right(1);
            nearest[at] = (time, token);
        }
    }
    let found = nearest.iter().take_while(|&&(time, _)| time < u32::MAX);
    n + rest.iter_mut().zip(found).map(|(entry, &(_, token))| *entry = token).count()
}
