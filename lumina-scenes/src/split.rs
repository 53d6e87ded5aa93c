//! Training, test and held-out scenes.

use crate::{Colour, ObjectKind, ObjectShape, ObjectSize, Scene};

/// The kinds of objects that are in no scene, and no edited scene, of [`Split::Train`] and [`Split::Test`].
///
/// There is one of each colour. Every pair of colour and shape, size and shape, and size and colour occurs in other
/// kinds, so a model that draws them combines attributes that it has seen separately.
pub const HELD_OUT_KINDS: [ObjectKind; 6] = [
    ObjectKind::new(ObjectSize::Small, Colour::Red, ObjectShape::Triangle),
    ObjectKind::new(ObjectSize::Large, Colour::Green, ObjectShape::Circle),
    ObjectKind::new(ObjectSize::Small, Colour::Blue, ObjectShape::Cross),
    ObjectKind::new(ObjectSize::Large, Colour::Yellow, ObjectShape::Square),
    ObjectKind::new(ObjectSize::Small, Colour::Purple, ObjectShape::Circle),
    ObjectKind::new(ObjectSize::Large, Colour::Orange, ObjectShape::Triangle),
];

/// A split of the scenes: for training or for evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// Scenes for training, without [`HELD_OUT_KINDS`].
    Train = 0,
    /// Other scenes of the same distribution. Simple scenes can occur in both.
    Test = 1,
    /// Scenes with at least one object of [`HELD_OUT_KINDS`], which no training image contains.
    HeldOut = 2,
}

impl Split {
    /// Whether an edit may result in this scene. Training must not see held-out kinds through edits either.
    pub(crate) fn allows(self, edited: &Scene) -> bool {
        self == Self::HeldOut || !edited.objects().iter().any(|object| HELD_OUT_KINDS.contains(&object.kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn held_out_kinds_are_seen_in_parts() {
        let seen: Vec<ObjectKind> = ObjectKind::all().filter(|kind| !HELD_OUT_KINDS.contains(kind)).collect();
        assert_eq!(seen.len(), 42);
        let pairs = |kinds: &[ObjectKind]| {
            let of_colour: HashSet<_> = kinds.iter().map(|kind| (kind.colour, kind.shape)).collect();
            let of_size: HashSet<_> = kinds.iter().map(|kind| (kind.size, kind.shape)).collect();
            let of_both: HashSet<_> = kinds.iter().map(|kind| (kind.size, kind.colour)).collect();
            (of_colour.len(), of_size.len(), of_both.len())
        };
        assert_eq!(pairs(&seen), (24, 8, 12));
        let shapes: HashSet<_> = HELD_OUT_KINDS.iter().map(|kind| kind.shape).collect();
        let colours: HashSet<_> = HELD_OUT_KINDS.iter().map(|kind| kind.colour).collect();
        assert_eq!((shapes.len(), colours.len()), (4, 6));
    }
}
