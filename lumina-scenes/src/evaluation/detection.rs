//! Detects the objects in an image.

use image::RgbImage;

use super::backdrop::detect_backdrop;
use super::identify::identify;
use super::regions::RegionMap;
use crate::{Backdrop, GRID_PX, Object, ObjectKind, Position, Scene};

/// A detected object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DetectedObject {
    /// Its size, fill, colour and shape.
    pub kind: ObjectKind,
    /// Its centre, in pixels from the image's left and top.
    pub centre_px: (i32, i32),
}

impl DetectedObject {
    /// The nearest centre of an object of a scene, all of which are at multiples of half a [`GRID_PX`]. The detected
    /// one can be a pixel off, and two objects in a row then seem to be above each other.
    pub(super) fn nearest_centre_px(&self) -> (i32, i32) {
        let step = (GRID_PX / 2).cast_signed();
        let nearest = |at: i32| at.saturating_add(step / 2).div_euclid(step) * step;
        (nearest(self.centre_px.0), nearest(self.centre_px.1))
    }
}

/// The detected content of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detection {
    /// Width and height, in pixels.
    pub size_px: (u32, u32),
    /// What is behind the objects, if it is as in a scene.
    pub backdrop: Option<Backdrop>,
    /// The objects, in any order.
    pub objects: Vec<DetectedObject>,
    /// How many regions differ from the backdrop and are not an object of a scene. Many specks are one.
    pub n_unknown_regions: usize,
}

impl Detection {
    /// The correct detection for the image of a scene.
    pub fn of_scene(scene: &Scene) -> Self {
        let detected = |object: &Object| DetectedObject { kind: object.kind, centre_px: object.centre_px() };
        Self {
            size_px: scene.size().into(),
            backdrop: Some(scene.backdrop()),
            objects: scene.objects().iter().map(detected).collect(),
            n_unknown_regions: 0,
        }
    }

    /// The position of an object.
    pub fn position(&self, object: &DetectedObject) -> Position {
        Position::of_point(object.nearest_centre_px(), self.size_px)
    }
}

/// Detects backdrop and objects in any image.
///
/// Blur, noise and smeared edges, as image tokenizers cause them, are tolerated. A region that is not clearly one of
/// the shapes, in one fill, colour and size, counts as unknown.
///
/// ```
/// use lumina_scenes::evaluation::detect;
/// use lumina_scenes::{Scenes, Split};
///
/// let scene = Scenes::new(5, Split::Test, 256)?.scene(0);
/// let detection = detect(&scene.image());
/// assert_eq!(detection.backdrop, Some(scene.backdrop()));
/// assert_eq!(detection.objects.len(), scene.objects().len());
/// # Ok::<(), lumina_scenes::Error>(())
/// ```
pub fn detect(image: &RgbImage) -> Detection {
    let backdrop = detect_backdrop(image);
    let mut detection = Detection { size_px: image.dimensions(), backdrop, objects: Vec::new(), n_unknown_regions: 0 };
    let Some(backdrop) = backdrop else { return detection };
    let map = RegionMap::new(image, backdrop);
    detection.n_unknown_regions += usize::from(map.is_speckled());
    for region in map.regions() {
        match identify(image, backdrop, &map, region) {
            Some(object) => detection.objects.push(object),
            None => detection.n_unknown_regions += 1,
        }
    }
    detection
}
