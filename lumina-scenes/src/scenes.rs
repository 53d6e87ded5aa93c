//! Seeded scenes.

use lumina_core::{ImageSize, crop_sizes};

use crate::random::{RngPurpose, SeededRng};
use crate::scene::OFFSET_STEP_PX;
use crate::{Background, Error, HELD_OUT_KINDS, MAX_OBJECTS, Object, ObjectKind, ObjectSize, Result, Scene, Split};

/// The default target size of datasets in pixels: images of up to nine cells.
pub const DEFAULT_TARGET_PX: u32 = 96;

/// Offsets of small objects from the centre of their cell. Each is the centre of a quarter of the cell, so that one
/// 16×16 patch of an image tokenizer contains the whole object.
const QUARTER_OFFSETS_PX: [(i32, i32); 4] = [
    (-OFFSET_STEP_PX, -OFFSET_STEP_PX),
    (OFFSET_STEP_PX, -OFFSET_STEP_PX),
    (-OFFSET_STEP_PX, OFFSET_STEP_PX),
    (OFFSET_STEP_PX, OFFSET_STEP_PX),
];

/// An infinite sequence of scenes, each computed from the seed and its index alone.
///
/// All image sizes of the target are equally likely. One and two objects are more likely than three.
///
/// ```
/// use lumina_scenes::{HELD_OUT_KINDS, Scenes, Split};
///
/// let scenes = Scenes::new(7, Split::HeldOut, 96)?;
/// let scene = scenes.scene(1000);
/// assert!(scene.objects().iter().any(|object| HELD_OUT_KINDS.contains(&object.kind)));
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
    /// The scenes of a seed, with the image sizes of [`crop_sizes`] for `target_px`.
    ///
    /// # Errors
    /// [`Error::TargetSize`] if there are no sizes for the target.
    pub fn new(seed: u64, split: Split, target_px: u32) -> Result<Self> {
        Ok(Self { seed, split, sizes: crop_sizes(target_px).map_err(Error::TargetSize)? })
    }

    /// The image sizes.
    pub fn sizes(&self) -> &[ImageSize] {
        &self.sizes
    }

    /// The scene at an index.
    pub fn scene(&self, index: u64) -> Scene {
        const PROOF: &str = "the lists are not empty";
        let mut rng = SeededRng::new(self.seed, self.split, RngPurpose::Scene, index);
        let size = rng.choose(&self.sizes).expect(PROOF);
        let background = rng.choose(&Background::ALL).expect(PROOF);

        let (columns, rows) = (size.width_cells(), size.height_cells());
        let mut cells: Vec<(u32, u32)> =
            (0..rows).flat_map(|row| (0..columns).map(move |column| (column, row))).collect();
        rng.shuffle(&mut cells);
        let n_objects = [1, 1, 2, 2, MAX_OBJECTS];
        cells.truncate(rng.choose(&n_objects).expect(PROOF));

        let kinds: Vec<ObjectKind> = match self.split {
            Split::Train | Split::Test => ObjectKind::all().filter(|kind| !HELD_OUT_KINDS.contains(kind)).collect(),
            Split::HeldOut => ObjectKind::all().collect(),
        };
        let mut objects: Vec<Object> = Vec::with_capacity(cells.len());
        for cell in cells {
            // The cells are shuffled, so the first object may always be the held-out one.
            let held_out = self.split == Split::HeldOut && objects.is_empty();
            let kind = rng.choose(if held_out { &HELD_OUT_KINDS } else { &kinds }).expect(PROOF);
            let offset_px = match kind.size {
                ObjectSize::Small => rng.choose(&QUARTER_OFFSETS_PX).expect(PROOF),
                ObjectSize::Large => (0, 0),
            };
            objects.push(Object { kind, cell, offset_px });
        }
        if !separate(&mut objects) {
            // Keeps the first object, which is the held-out one in `Split::HeldOut`.
            objects.truncate(1);
        }
        Scene::new(size, background, objects).expect("objects are in different cells and far enough apart")
    }
}

/// Moves small objects that are too close to another object to a free quarter of their cell. Whether each of them has
/// one.
fn separate(objects: &mut [Object]) -> bool {
    for index in 0..objects.len() {
        if objects[index].kind.size == ObjectSize::Large {
            continue;
        }
        let is_free = |candidate: &Object| {
            let mut others = (0..).zip(&*objects).filter(|(other, _)| *other != index);
            !others.any(|(_, other)| candidate.is_too_close_to(other))
        };
        let offsets = [objects[index].offset_px].into_iter().chain(QUARTER_OFFSETS_PX);
        let mut candidates = offsets.map(|offset_px| Object { offset_px, ..objects[index] });
        match candidates.find(is_free) {
            Some(free) => objects[index] = free,
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

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
        let small = objects().filter(|object| object.kind.size == ObjectSize::Small);
        assert_eq!(small.map(|object| object.offset_px).collect::<HashSet<_>>(), HashSet::from(QUARTER_OFFSETS_PX));
    }

    #[test]
    fn an_image_of_one_cell_has_one_object() {
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
