//! What earlier passes drew, and from what.

use crate::{Candidates, race};

/// Candidates of a draw that are kept: the most likely ones.
const MAX_LISTED: usize = 512;
/// Draws that are kept of a position, each after other tokens.
const MAX_DRAWS: usize = 16;
/// A position that no stream reaches.
const NOWHERE: usize = usize::MAX;

/// Draws of earlier passes by position, and the likeliest candidates of some of them. A ring: what lies too far back is
/// forgotten.
#[derive(Debug, Clone, Default)]
pub(super) struct Memory {
    slots: Vec<Slot>,
    /// [`MAX_LISTED`] for each slot: a token and its [depth](race::depth), ascending by token.
    listed: Vec<(u32, u32)>,
    /// The highest position with a list.
    last_listed: Option<usize>,
    /// Passes so far.
    pass: u32,
    trust: Trust,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    position: usize,
    /// The last one first.
    draws: [DrawAfter; MAX_DRAWS],
    n_draws: usize,
    n_listed: usize,
}

/// A draw, and the two tokens before it, the nearer one first.
#[derive(Debug, Clone, Copy, Default)]
struct DrawAfter {
    before: [u32; 2],
    token: u32,
    pass: u32,
}

impl DrawAfter {
    /// How many of the tokens before are these.
    fn matches(&self, before: [u32; 2]) -> usize {
        self.before.iter().zip(before).take_while(|&(own, other)| *own == other).count()
    }
}

/// Whether a draw after the same tokens is right more often than the last draw, which came after others: counted where
/// they differ. It depends on how far back the model looks, as the older draw had older tokens further before it.
#[derive(Debug, Clone, Default)]
struct Trust {
    /// How often the one and the other were right, by the number of the same tokens and by the passes since, to a power
    /// of two.
    counts: [[[u32; 2]; 4]; 2],
}

impl Trust {
    fn of(n_same: usize, age: u32) -> (usize, usize) {
        (usize::from(n_same > 1), age.max(1).ilog2().min(3) as usize)
    }

    /// Whether to believe the draw after the same tokens.
    fn prefers(&self, n_same: usize, age: u32) -> bool {
        let (same, age) = Self::of(n_same, age);
        let [after_same, last] = self.counts[same][age];
        after_same >= last
    }

    fn note(&mut self, n_same: usize, age: u32, right: [bool; 2]) {
        let (same, age) = Self::of(n_same, age);
        let counts = &mut self.counts[same][age];
        counts.iter_mut().zip(right).for_each(|(count, right)| *count += u32::from(right));
        // What comes later counts more.
        if counts.iter().any(|&count| count >= 32) {
            counts.iter_mut().for_each(|count| *count /= 2);
        }
    }
}

impl Slot {
    fn known(&self) -> &[DrawAfter] {
        &self.draws[..self.n_draws]
    }

    /// The last draw after the same two tokens, or the same one, and how many of them are the same.
    fn after_same(&self, before: [u32; 2]) -> Option<(usize, usize)> {
        [2, 1].into_iter().find_map(|n_same| {
            let index = self.known().iter().position(|draw| draw.matches(before) == n_same)?;
            Some((index, n_same))
        })
    }

    const NOTHING: Self = Self {
        position: NOWHERE,
        draws: [DrawAfter { before: [0; 2], token: 0, pass: 0 }; MAX_DRAWS],
        n_draws: 0,
        n_listed: 0,
    };
}

impl Memory {
    /// Makes place for so many successive positions.
    pub(super) fn reserve(&mut self, positions: usize) {
        if positions > self.slots.len() {
            let n_slots = positions.next_power_of_two();
            let old = std::mem::replace(&mut self.slots, vec![Slot::NOTHING; n_slots]);
            let n_listed = if self.listed.is_empty() { 0 } else { n_slots * MAX_LISTED };
            let old_listed = std::mem::replace(&mut self.listed, vec![(0, 0); n_listed]);
            for (index, slot) in old.into_iter().enumerate().filter(|(_, slot)| slot.position != NOWHERE) {
                let place = slot.position % n_slots;
                self.slots[place] = slot;
                if slot.n_listed > 0 {
                    let list = &old_listed[index * MAX_LISTED..][..slot.n_listed];
                    self.listed[place * MAX_LISTED..][..slot.n_listed].copy_from_slice(list);
                }
            }
        }
    }

    /// Begins a pass.
    pub(super) fn begin_pass(&mut self) {
        self.pass = self.pass.wrapping_add(1);
    }

    /// Learns from the token of the stream at a position, after two tokens of the stream, which draws to believe. To be
    /// called before it is noted.
    pub(super) fn learn(&mut self, position: usize, before: [u32; 2], token: u32) {
        let Some((_, slot)) = self.slot(position) else { return };
        if let Some((index, n_same)) = slot.after_same(before) {
            let [after_same, last] = [slot.draws[index], slot.draws[0]];
            let age = self.pass.wrapping_sub(after_same.pass);
            if after_same.token != last.token {
                self.trust.note(n_same, age, [after_same.token == token, last.token == token]);
            }
        }
    }

    /// Notes the draw at a position after two tokens, the nearer one first.
    pub(super) fn note(&mut self, position: usize, before: [u32; 2], token: u32) {
        let Some(index) = position.checked_rem(self.slots.len()) else { return };
        let slot = &mut self.slots[index];
        if slot.position != position {
            (slot.position, slot.n_draws, slot.n_listed) = (position, 0, 0);
        }
        // To the front, in the place of the one after the same tokens, or of the oldest.
        let same = slot.draws[..slot.n_draws].iter().position(|draw| draw.before == before);
        let end = same.unwrap_or_else(|| {
            slot.n_draws = (slot.n_draws + 1).min(MAX_DRAWS);
            slot.n_draws - 1
        });
        slot.draws.copy_within(..end, 1);
        slot.draws[0] = DrawAfter { before, token, pass: self.pass };
    }

    /// Notes what the last draw at a position was from.
    pub(super) fn note_candidates(&mut self, position: usize, candidates: &mut Candidates) {
        let Some(index) = position.checked_rem(self.slots.len()) else { return };
        if self.slots[index].position != position {
            return;
        }
        // Where a device draws, there are no lists.
        if self.listed.is_empty() {
            self.listed.resize(self.slots.len() * MAX_LISTED, (0, 0));
        }
        let least = candidates.nth_highest(MAX_LISTED).unwrap_or(f32::NEG_INFINITY);
        let highest = candidates.highest();
        let list = &mut self.listed[index * MAX_LISTED..][..MAX_LISTED];
        let likely = candidates.iter().filter(|&(_, logit)| logit >= least);
        let depths = likely.map(|(token, logit)| (token, race::depth(highest, logit)));
        let n_listed = list.iter_mut().zip(depths).map(|(entry, depth)| *entry = depth).count();
        self.slots[index].n_listed = n_listed;
        self.last_listed = self.last_listed.max(Some(position));
    }

    fn slot(&self, position: usize) -> Option<(usize, &Slot)> {
        let index = position.checked_rem(self.slots.len())?;
        self.slots.get(index).filter(|slot| slot.position == position).map(|slot| (index, slot))
    }

    /// The distinct draws at a position, the one first that is most probably drawn again after two tokens, the nearer
    /// one first: that after the same tokens, or the last one, as was learnt. Fills `draws` up to its end or to fewer,
    /// and returns how many, and whether the first of them was drawn after the same token.
    pub(super) fn draws(&self, position: usize, before: [u32; 2], draws: &mut [u32]) -> (usize, bool) {
        let Some((_, slot)) = self.slot(position) else { return (0, false) };
        let is_believed = |&(index, n_same): &(usize, usize)| {
            self.trust.prefers(n_same, self.pass.wrapping_sub(slot.draws[index].pass))
        };
        let best = slot.after_same(before).filter(is_believed).map_or(0, |(index, _)| index);
        let Some(&best) = slot.known().get(best) else { return (0, false) };
        let of_match = |n_same| slot.known().iter().filter(move |draw| draw.matches(before) == n_same);
        let mut n = 0;
        for draw in std::iter::once(&best).chain([2, 1, 0].into_iter().flat_map(of_match)) {
            if n < draws.len() && !draws[..n].contains(&draw.token) {
                draws[n] = draw.token;
                n += 1;
            }
        }
        (n, best.matches(before) > 0)
    }

    /// The last draw at a position.
    pub(super) fn last_draw(&self, position: usize) -> Option<u32> {
        self.slot(position).and_then(|(_, slot)| slot.known().first()).map(|draw| draw.token)
    }

    /// The first of [`Memory::draws`].
    pub(super) fn draw(&self, position: usize, before: [u32; 2]) -> Option<u32> {
        let mut draw = [0];
        (self.draws(position, before, &mut draw).0 > 0).then_some(draw[0])
    }

    /// The likeliest candidates of the last draw at a position, ascending by token, with their depths; empty where they
    /// were not kept.
    pub(super) fn candidates(&self, position: usize) -> &[(u32, u32)] {
        let list = self.slot(position).filter(|(_, slot)| slot.n_listed > 0);
        list.map_or(&[], |(index, slot)| &self.listed[index * MAX_LISTED..][..slot.n_listed])
    }

    /// The highest position whose candidates are known.
    pub(super) fn last_listed(&self) -> Option<usize> {
        self.last_listed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_after_the_same_tokens_come_first() {
        let mut memory = Memory::default();
        memory.note(3, [1, 1], 7);
        assert_eq!(memory.last_draw(3), None, "there is no place");
        memory.reserve(5);
        for (before, token) in [([1, 2], 10), ([3, 2], 11), ([1, 4], 12), ([5, 6], 13), ([3, 2], 14), ([7, 7], 12)] {
            memory.note(9, before, token);
        }
        let draws = |before, n: usize| {
            let mut draws = vec![0; n];
            let (n, matches) = memory.draws(9, before, &mut draws);
            (draws[..n].to_vec(), matches)
        };
        assert_eq!(draws([1, 2], 8), (vec![10, 12, 14, 13], true));
        assert_eq!(draws([1, 9], 8), (vec![12, 10, 14, 13], true));
        assert_eq!(draws([9, 2], 3), (vec![12, 14, 13], false));
        assert_eq!((memory.draw(9, [3, 2]), memory.draw(9, [9, 9])), (Some(14), Some(12)));
        assert_eq!((memory.last_draw(9), memory.last_draw(1)), (Some(12), None));
        // The ring has 8 places, then 16.
        memory.reserve(9);
        assert_eq!(memory.last_draw(9), Some(12));
        memory.note(25, [0, 0], 1);
        assert_eq!((memory.last_draw(9), memory.last_draw(25)), (None, Some(1)));
        memory.note(17, [0, 0], 1);
        for token in 0..2 * MAX_DRAWS as u32 {
            memory.note(17, [token, 0], token);
        }
        let mut draws = [0; 2 * MAX_DRAWS];
        assert_eq!(memory.draws(17, [3, 0], &mut draws), (MAX_DRAWS, false));
    }

    #[test]
    fn what_is_right_more_often_is_believed() {
        let mut memory = Memory::default();
        memory.reserve(200);
        let draw = |memory: &Memory, position| memory.draw(position, [1, 2]);
        for (position, truth) in [(0, 10), (1, 11), (2, 11), (3, 10), (4, 10)] {
            memory.begin_pass();
            memory.note(position, [1, 9], 10);
            memory.begin_pass();
            memory.note(position, [3, 4], 11);
            memory.begin_pass();
            // That after the same token, as long as it was not wrong more often.
            assert_eq!(draw(&memory, position), Some(if position == 3 { 11 } else { 10 }), "{position}");
            memory.learn(position, [1, 2], truth);
        }
        // Of draws of the same pass, or after two of the same tokens, nothing was learnt.
        memory.note(5, [1, 9], 10);
        memory.note(5, [1, 2], 12);
        memory.note(5, [3, 4], 11);
        assert_eq!((draw(&memory, 5), memory.draw(5, [1, 8])), (Some(12), Some(12)));
    }

    #[test]
    fn the_likeliest_candidates_are_kept() {
        let mut memory = Memory::default();
        memory.reserve(8);
        memory.note(10, [0, 0], 1);
        memory.note_candidates(10, &mut Candidates::from_row(&[0.0, 2.0, 1.0]).unwrap());
        memory.note_candidates(11, &mut Candidates::from_row(&[0.0]).unwrap());
        let depths = [(0, 2 * 24_204_406), (1, 0), (2, 24_204_406)];
        assert_eq!(memory.candidates(10), depths);
        assert_eq!(memory.last_listed(), Some(10), "nothing was drawn at 11");

        let row: Vec<f32> = (0..2 * MAX_LISTED).map(|token| (token * 37 % (2 * MAX_LISTED)) as f32).collect();
        memory.note(11, [1, 0], 5);
        memory.note_candidates(11, &mut Candidates::from_row(&row).unwrap());
        let kept: Vec<u32> = (0..row.len() as u32).filter(|&token| row[token as usize] >= MAX_LISTED as f32).collect();
        assert!(memory.candidates(11).iter().map(|&(token, _)| token).eq(kept.iter().copied()));

        // What is known moves to a greater ring.
        memory.reserve(30);
        assert_eq!((memory.candidates(10), memory.last_draw(10)), (&depths[..], Some(1)));
        assert_eq!((memory.candidates(11).len(), memory.last_draw(11)), (MAX_LISTED, Some(5)));
        memory.note(42, [0, 0], 3);
        assert!(memory.candidates(10).is_empty() && memory.candidates(42).is_empty());
    }
}
