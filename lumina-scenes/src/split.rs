//! Training, test and held-out scenes.

use crate::{ObjectKind, Scene};

impl ObjectKind {
    /// Whether this kind is in no scene, and no edited scene, of [`Split::Train`] and [`Split::Test`]: 27 of the 324.
    ///
    /// Every pair of size, fill, colour and shape occurs in other kinds, so a model that draws these combines
    /// attributes that it has seen in other combinations.
    pub const fn is_held_out(self) -> bool {
        let (size, fill, colour, shape) = (self.size as u32, self.fill as u32, self.colour as u32, self.shape as u32);
        (colour + shape + 2 * fill).is_multiple_of(6) && (fill + shape / 3) % 2 == size
    }
}

/// A split of the scenes: for training or for evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// Scenes for training, without kinds that [are held out](ObjectKind::is_held_out).
    Train = 0,
    /// Other scenes of the same distribution. Simple scenes can occur in both.
    Test = 1,
    /// Scenes with at least one object that [is held out](ObjectKind::is_held_out), which no training image contains.
    HeldOut = 2,
}

impl Split {
    /// Whether an edit may result in this scene. Training must not see held-out kinds through edits either.
    pub(crate) fn allows(self, edited: &Scene) -> bool {
        self == Self::HeldOut || !edited.objects().iter().any(|object| object.kind.is_held_out())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn held_out_kinds_are_seen_in_parts() {
        let held_out: Vec<ObjectKind> = ObjectKind::all().filter(|kind| kind.is_held_out()).collect();
        let seen: Vec<ObjectKind> = ObjectKind::all().filter(|kind| !kind.is_held_out()).collect();
        assert_eq!((held_out.len(), seen.len()), (27, 297));
        let pairs = |of: &dyn Fn(&ObjectKind) -> (u32, u32)| seen.iter().map(of).collect::<HashSet<_>>().len();
        assert_eq!(pairs(&|kind| (kind.size as u32, kind.fill as u32)), 2 * 3);
        assert_eq!(pairs(&|kind| (kind.size as u32, kind.colour as u32)), 2 * 6);
        assert_eq!(pairs(&|kind| (kind.size as u32, kind.shape as u32)), 2 * 9);
        assert_eq!(pairs(&|kind| (kind.fill as u32, kind.colour as u32)), 3 * 6);
        assert_eq!(pairs(&|kind| (kind.fill as u32, kind.shape as u32)), 3 * 9);
        assert_eq!(pairs(&|kind| (kind.colour as u32, kind.shape as u32)), 6 * 9);
        let values = |of: &dyn Fn(&ObjectKind) -> u32| held_out.iter().map(of).collect::<HashSet<_>>().len();
        assert_eq!((values(&|kind| kind.size as u32), values(&|kind| kind.fill as u32)), (2, 3));
        assert_eq!((values(&|kind| kind.colour as u32), values(&|kind| kind.shape as u32)), (6, 9));
    }
}
