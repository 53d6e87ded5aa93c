//! What earlier passes drew.

/// The draws of earlier passes by position, in a ring of the last positions.
#[derive(Debug, Clone, Default)]
pub(super) struct Memory {
    slots: Vec<Slot>,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    position: usize,
    token: u32,
}

/// A position that no stream reaches.
const NOWHERE: usize = usize::MAX;

impl Memory {
    /// Makes place for so many successive positions.
    pub(super) fn reserve(&mut self, positions: usize) {
        if positions > self.slots.len() {
            self.slots.clear();
            self.slots.resize(positions.next_power_of_two(), Slot { position: NOWHERE, token: 0 });
        }
    }

    /// Notes the draw at a position.
    pub(super) fn note(&mut self, position: usize, token: u32) {
        let n_slots = self.slots.len();
        if let Some(slot) = position.checked_rem(n_slots).and_then(|index| self.slots.get_mut(index)) {
            *slot = Slot { position, token };
        }
    }

    /// The last draw at a position.
    pub(super) fn token(&self, position: usize) -> Option<u32> {
        let slot = self.slots.get(position.checked_rem(self.slots.len())?)?;
        (slot.position == position).then_some(slot.token)
    }
}
