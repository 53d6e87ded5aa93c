//! Seeded scenes.

use lumina_core::{CELL_PX, ImageSize, crop_sizes};

use crate::arrangement::{RELATED, default_positions, place_in_order};
use crate::random::{RngPurpose, SeededRng};
use crate::scene::{MIN_GAP_PX, free_places, position};
use crate::{Backdrop, Error, Object, ObjectKind, ObjectSize, Position, Result, Scene, Split};

/// The default target size of datasets in pixels.
pub const DEFAULT_TARGET_PX: u32 = 256;

/// How often scenes have one, two, three and four objects, if there is space.
const OBJECT_WEIGHTS: [u32; 4] = [4, 4, 2, 1];

/// An infinite sequence of scenes, each computed from the seed and its index alone.
///
/// All image sizes of the target into which an object fits are equally likely, unless
/// [`with_sizes`](Self::with_sizes) says otherwise. Objects are in the middle of their third of rows and columns, each
/// in another, or as near to it as their neighbours allow. Where the image is too small for as many large objects, all
/// are small. In one scene in five all objects are of one kind.
///
/// In more than half of the scenes objects are where prompts that name no places have them: one in the centre, two or
/// three side by side (three in a square image as a triangle, in a tall one below each other), four in the corners; or
/// two of them below each other or side by side, as relations have them.
///
/// ```
/// use lumina_scenes::{Scenes, Split};
///
/// let scenes = Scenes::new(7, Split::HeldOut, 256)?;
/// let scene = scenes.scene(1000);
/// assert!(scene.objects().iter().any(|object| object.kind.is_held_out()));
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
    /// The scenes of a seed, with those image sizes of [`crop_sizes`] for `target_px` into which an object fits.
    ///
    /// # Errors
    /// [`Error::TargetSize`] if there are no sizes for the target, [`Error::Scene`] if objects fit into none of them.
    pub fn new(seed: u64, split: Split, target_px: u32) -> Result<Self> {
        let mut sizes = crop_sizes(target_px).map_err(Error::TargetSize)?;
        let large = ObjectSize::Large.side_px();
        // One that fills the image leaves no background.
        sizes.retain(|size| {
            let (width, height) = (size.width_px(), size.height_px());
            width.min(height) >= large && width.max(height) > large
        });
        if sizes.is_empty() {
            let reason = format!(
                "objects of {large} pixels do not fit into images of {target_px}; choose a target size of at least {}",
                large + CELL_PX
            );
            return Err(Error::Scene { reason });
        }
        Ok(Self { seed, split, sizes })
    }

    /// The same with these image sizes only. All are equally likely; a size that is listed twice is so twice.
    ///
    /// # Errors
    /// [`Error::Scene`] if there are none, or if one is not among the [sizes](Self::sizes).
    pub fn with_sizes(mut self, sizes: Vec<ImageSize>) -> Result<Self> {
        let all = std::mem::replace(&mut self.sizes, sizes);
        let list = || all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        if self.sizes.is_empty() {
            return Err(Error::Scene { reason: format!("no image sizes; choose some of {}", list()) });
        }
        if let Some(other) = self.sizes.iter().find(|size| !all.contains(size)) {
            let reason = format!("images of {other} pixels, which are not of the target size; choose of {}", list());
            return Err(Error::Scene { reason });
        }
        Ok(self)
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
        let backdrops: Vec<Backdrop> = Backdrop::all().collect();
        let backdrop = rng.choose(&backdrops).expect(PROOF);
        let n_objects = 1 + rng.weighted_index(OBJECT_WEIGHTS.into_iter()).expect(PROOF);
        let side = ObjectSize::Large.side_px() + MIN_GAP_PX;
        let is_roomy = n_objects == 1 || size.width_px() * size.height_px() >= n_objects as u32 * side * side;
        let all: Vec<ObjectKind> =
            ObjectKind::all().filter(|kind| is_roomy || kind.size == ObjectSize::Small).collect();
        let (held_out, seen): (Vec<_>, Vec<_>) = all.iter().partition(|kind| kind.is_held_out());
        let alike = rng.below(5) == 0;
        let mut kinds: Vec<ObjectKind> = Vec::with_capacity(n_objects);
        for _ in 0..n_objects {
            kinds.push(match (self.split, kinds.first()) {
                (_, Some(first)) if alike => *first,
                (Split::HeldOut, None) => rng.choose(&held_out).expect(PROOF),
                (Split::HeldOut, Some(_)) => rng.choose(&all).expect(PROOF),
                (Split::Train | Split::Test, _) => rng.choose(&seen).expect(PROOF),
            });
        }
        let is_arranged = alike || rng.below(2) == 0;
        let objects = if is_arranged { arranged(kinds.clone(), size, &mut rng) } else { None };
        let objects = objects.unwrap_or_else(|| scattered(&kinds, size, &mut rng));
        Scene::new(size, backdrop, objects).expect("the first object fits, and the others beside it")
    }
}

/// The objects where prompts put them that name no places, or two of them as a relation has them. `None` if they do
/// not fit.
fn arranged(mut kinds: Vec<ObjectKind>, size: ImageSize, rng: &mut SeededRng) -> Option<Vec<Object>> {
    rng.shuffle(&mut kinds);
    let related = rng.choose(&RELATED).filter(|_| kinds.len() == 2 && rng.below(2) == 0);
    let positions = related.as_ref().map_or(default_positions(kinds.len(), size), |positions| positions.as_slice());
    place_in_order(kinds.into_iter().zip(positions.iter().copied()), size)
}

/// The objects at random places. Later ones have what place the first ones leave; there is none for some of them.
fn scattered(kinds: &[ObjectKind], size: ImageSize, rng: &mut SeededRng) -> Vec<Object> {
    let mut objects: Vec<Object> = Vec::with_capacity(kinds.len());
    for &kind in kinds {
        let is_empty = |at: &Position| objects.iter().all(|other| position(other, size) != *at);
        let place = |at| free_places(kind, size, &objects, at).first().copied();
        let free: Vec<Object> = Position::ALL.into_iter().filter(is_empty).filter_map(place).collect();
        objects.extend(rng.choose(&free));
    }
    // In the order of their positions, so that these say where each is.
    let mut ordered: Vec<(ObjectKind, Position)> =
        objects.iter().map(|object| (object.kind, position(object, size))).collect();
    ordered.sort_by_key(|&(_, at)| at);
    place_in_order(ordered, size).unwrap_or(objects)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MAX_OBJECTS;
    use std::collections::HashSet;

    #[test]
    fn everything_occurs() {
        let scenes = Scenes::new(0, Split::Train, DEFAULT_TARGET_PX).unwrap();
        let drawn: Vec<Scene> = (0..4000).map(|index| scenes.scene(index)).collect();
        let count = |of: &dyn Fn(&Scene) -> usize| drawn.iter().map(of).collect::<HashSet<_>>().len();
        assert_eq!(count(&|scene| scene.objects().len()), MAX_OBJECTS);
        let backdrops: HashSet<_> = drawn.iter().map(Scene::backdrop).collect();
        assert_eq!(backdrops.len(), 8);
        let sizes: HashSet<_> = drawn.iter().map(Scene::size).collect();
        assert_eq!(sizes.len(), scenes.sizes().len());
        let objects = || drawn.iter().flat_map(Scene::objects);
        assert_eq!(objects().map(|object| object.kind).collect::<HashSet<_>>().len(), 297);
        let large = objects().filter(|object| object.kind.size == ObjectSize::Large).count() as f64;
        let share = large / objects().count() as f64;
        assert!((0.3..0.6).contains(&share), "{share}");
        let alike = drawn.iter().filter(|scene| {
            scene.objects().len() > 1 && scene.objects().windows(2).all(|pair| pair[0].kind == pair[1].kind)
        });
        let alike = alike.count();
        assert!((300..700).contains(&alike), "{alike}");
    }

    #[test]
    fn small_images_have_several_objects_as_well() {
        let scenes = Scenes::new(1, Split::Train, 128).unwrap();
        let mut several = 0;
        for scene in (0..1000).map(|index| scenes.scene(index)).filter(|scene| scene.objects().len() > 1) {
            assert!(scene.objects().iter().all(|object| object.kind.size == ObjectSize::Small));
            several += 1;
        }
        assert!(several > 500, "{several}");
    }

    #[test]
    fn targets_too_small_for_an_object_are_refused() {
        assert!(Scenes::new(3, Split::Train, 128).is_ok());
        assert!(matches!(Scenes::new(3, Split::Train, 64), Err(Error::Scene { .. })));
        assert!(Scenes::new(3, Split::Train, 127).unwrap_err().to_string().contains("at least 128"));
        assert!(matches!(Scenes::new(3, Split::Train, 31), Err(Error::TargetSize(_))));
    }

    #[test]
    fn sizes_can_be_chosen() {
        let size = |width, height| ImageSize::new(width, height).unwrap();
        let all = Scenes::new(4, Split::Train, 256).unwrap();
        let scenes = all.clone().with_sizes(vec![size(256, 256), size(256, 256), size(384, 160)]).unwrap();
        let n_wide = (0..600).filter(|&index| scenes.scene(index).size() == size(384, 160)).count();
        assert!((150..250).contains(&n_wide), "{n_wide}");
        assert!((0..600).all(|index| scenes.sizes().contains(&scenes.scene(index).size())));
        let message = all.clone().with_sizes(vec![size(512, 512)]).unwrap_err().to_string();
        assert!(message.contains("512x512") && message.contains("256x256"), "{message}");
        assert!(matches!(all.with_sizes(vec![]), Err(Error::Scene { .. })));
    }

    #[test]
    fn seeds_and_splits_differ() {
        let first = |seed, split| {
            let scenes = Scenes::new(seed, split, 128).unwrap();
            (0..20).map(|index| scenes.scene(index)).collect::<Vec<_>>()
        };
        assert_eq!(first(1, Split::Train), first(1, Split::Train));
        assert_ne!(first(1, Split::Train), first(2, Split::Train));
        assert_ne!(first(1, Split::Train), first(1, Split::Test));
    }
}
