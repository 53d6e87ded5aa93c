//! Seeded scenes.

use lumina_core::{ImageSize, crop_sizes};

use crate::random::{Draws, Purpose};
use crate::scene::STEP_PX;
use crate::{Background, Colour, Error, Kind, MAX_OBJECTS, Object, Result, Scene, Shape, Size};

/// The target size of data sets unless another is asked for, in pixels: pictures of up to nine cells.
pub const DEFAULT_TARGET_PX: u32 = 96;

/// The kinds of objects that are in no scene and in no edited scene of [`Split::Train`] and [`Split::Test`].
///
/// There is one of each colour; every pair of colour and shape, size and shape, size and colour occurs in other kinds.
/// A model that draws them has put together what it has seen apart.
pub const HELD_OUT: [Kind; 6] = [
    Kind::new(Size::Small, Colour::Red, Shape::Triangle),
    Kind::new(Size::Large, Colour::Green, Shape::Circle),
    Kind::new(Size::Small, Colour::Blue, Shape::Cross),
    Kind::new(Size::Large, Colour::Yellow, Shape::Square),
    Kind::new(Size::Small, Colour::Purple, Shape::Circle),
    Kind::new(Size::Large, Colour::Orange, Shape::Triangle),
];

/// Where small objects lie in their cells: in a quarter, so that one patch of an image tokenizer shows all of them.
const QUARTERS: [(i32, i32); 4] = [(-STEP_PX, -STEP_PX), (STEP_PX, -STEP_PX), (-STEP_PX, STEP_PX), (STEP_PX, STEP_PX)];

/// Which scenes: those to learn from, or those to judge by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// Scenes to learn from, without [`HELD_OUT`].
    Train = 0,
    /// Other draws from the same distribution. Simple scenes can occur in both.
    Test = 1,
    /// Scenes with at least one object of [`HELD_OUT`]: no picture of their kind was in training.
    HeldOut = 2,
}

impl Split {
    /// Whether an edited scene may be this one: what is held out must not come in by an edit.
    pub(crate) fn admits(self, edited: &Scene) -> bool {
        self == Self::HeldOut || !edited.objects().iter().any(|object| HELD_OUT.contains(&object.kind))
    }
}

/// An endless list of scenes, each computed from the seed and its index alone.
///
/// All picture sizes of the target are equally likely; one and two objects are more likely than three.
///
/// ```
/// use lumina_scenes::{HELD_OUT, Scenes, Split};
///
/// let scenes = Scenes::new(7, Split::HeldOut, 96)?;
/// let scene = scenes.scene(1000);
/// assert!(scene.objects().iter().any(|object| HELD_OUT.contains(&object.kind)));
/// assert_eq!(scene, scenes.scene(1000));
/// # Ok::<(), lumina_scenes::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Scenes {
    seed: u64,
    split: Split,
    sizes: Vec<ImageSize>,
}

impl Scenes {
    /// The scenes of a seed, in the sizes that [`crop_sizes`] has for `target_px`.
    ///
    /// # Errors
    /// [`Error::TargetSize`] where it has none.
    pub fn new(seed: u64, split: Split, target_px: u32) -> Result<Self> {
        Ok(Self { seed, split, sizes: crop_sizes(target_px).map_err(Error::TargetSize)? })
    }

    /// The sizes of the pictures.
    pub fn sizes(&self) -> &[ImageSize] {
        &self.sizes
    }

    /// The scene at an index.
    pub fn scene(&self, index: u64) -> Scene {
        const PROOF: &str = "the lists are not empty";
        let mut draws = Draws::new(self.seed, self.split, Purpose::Scene, index);
        let size = draws.pick(&self.sizes).expect(PROOF);
        let background = draws.pick(&Background::ALL).expect(PROOF);

        let (columns, rows) = (size.width_cells(), size.height_cells());
        let mut cells: Vec<(u32, u32)> =
            (0..rows).flat_map(|row| (0..columns).map(move |column| (column, row))).collect();
        draws.shuffle(&mut cells);
        let n_objects = [1, 1, 2, 2, MAX_OBJECTS];
        cells.truncate(draws.pick(&n_objects).expect(PROOF));

        let kinds: Vec<Kind> = match self.split {
            Split::Train | Split::Test => Kind::all().filter(|kind| !HELD_OUT.contains(kind)).collect(),
            Split::HeldOut => Kind::all().collect(),
        };
        let mut objects: Vec<Object> = Vec::with_capacity(cells.len());
        for cell in cells {
            // The cells are in random order, so it does not matter which of them has the kind that is held out.
            let held_out = self.split == Split::HeldOut && objects.is_empty();
            let kind = draws.pick(if held_out { &HELD_OUT } else { &kinds }).expect(PROOF);
            let offset_px = match kind.size {
                Size::Small => draws.pick(&QUARTERS).expect(PROOF),
                Size::Large => (0, 0),
            };
            objects.push(Object { kind, cell, offset_px });
        }
        // In another quarter a small object may crowd nothing.
        for index in 0..objects.len() {
            if objects[index].kind.size == Size::Large {
                continue;
            }
            let places = [objects[index].offset_px].into_iter().chain(QUARTERS);
            let mut places = places.map(|offset_px| Object { offset_px, ..objects[index] });
            let crowds =
                |object: &Object| (0..).zip(&objects).any(|(other, near)| other != index && object.crowds(near));
            match places.find(|object| !crowds(object)) {
                Some(free) => objects[index] = free,
                None => {
                    // The first one stays, which may be what the split is about.
                    objects.truncate(1);
                    break;
                }
            }
        }
        Scene::new(size, background, objects).expect("every object is in a cell of its own and crowds no other")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn what_is_held_out_is_seen_in_parts() {
        let seen: Vec<Kind> = Kind::all().filter(|kind| !HELD_OUT.contains(kind)).collect();
        assert_eq!(seen.len(), 42);
        let pairs = |kinds: &[Kind]| {
            let of_colour: HashSet<_> = kinds.iter().map(|kind| (kind.colour, kind.shape)).collect();
            let of_size: HashSet<_> = kinds.iter().map(|kind| (kind.size, kind.shape)).collect();
            let of_both: HashSet<_> = kinds.iter().map(|kind| (kind.size, kind.colour)).collect();
            (of_colour.len(), of_size.len(), of_both.len())
        };
        assert_eq!(pairs(&seen), (24, 8, 12));
        let shapes: HashSet<_> = HELD_OUT.iter().map(|kind| kind.shape).collect();
        let colours: HashSet<_> = HELD_OUT.iter().map(|kind| kind.colour).collect();
        assert_eq!((shapes.len(), colours.len()), (4, 6));
    }

    #[test]
    fn everything_occurs() {
        let scenes = Scenes::new(0, Split::Train, DEFAULT_TARGET_PX).unwrap();
        let drawn: Vec<Scene> = (0..2000).map(|index| scenes.scene(index)).collect();
        let count = |of: &dyn Fn(&Scene) -> usize| drawn.iter().map(of).collect::<HashSet<_>>().len();
        assert_eq!(count(&|scene| scene.objects().len()), 3);
        assert_eq!(count(&|scene| scene.background() as usize), 4);
        assert_eq!(scenes.sizes().len(), 7);
        let sizes: HashSet<_> = drawn.iter().map(Scene::size).collect();
        assert_eq!(sizes.len(), 7);
        let objects = || drawn.iter().flat_map(Scene::objects);
        assert_eq!(objects().map(|object| object.kind).collect::<HashSet<_>>().len(), 42);
        let small = objects().filter(|object| object.kind.size == Size::Small);
        assert_eq!(small.map(|object| object.offset_px).collect::<HashSet<_>>(), HashSet::from(QUARTERS));
    }

    #[test]
    fn one_cell_has_one_object() {
        let scenes = Scenes::new(3, Split::HeldOut, 32).unwrap();
        assert!((0..50).all(|index| scenes.scene(index).objects().len() == 1));
        assert!(matches!(Scenes::new(3, Split::Train, 31), Err(Error::TargetSize(_))));
    }

    #[test]
    fn seeds_and_splits_differ() {
        let first = |seed, split| {
            let scenes = Scenes::new(seed, split, 96).unwrap();
            (0..20).map(|index| scenes.scene(index)).collect::<Vec<_>>()
        };
        assert_eq!(first(1, Split::Train), first(1, Split::Train));
        assert_ne!(first(1, Split::Train), first(2, Split::Train));
        assert_ne!(first(1, Split::Train), first(1, Split::Test));
    }
}
