//! A scene: objects on a backdrop.

use lumina_core::ImageSize;

use crate::{Backdrop, Caption, Error, MAX_OBJECTS, Mention, ObjectKind, Position, Result};

/// Objects begin at multiples of this many pixels, a patch of the image tokenizer, so that few different patches occur.
pub const GRID_PX: u32 = 16;
/// The fewest pixels between the bounding squares of two objects.
pub const MIN_GAP_PX: u32 = GRID_PX;
/// The longest side of an image in pixels: that of the largest target size.
const MAX_SIDE_PX: u32 = 3840;

/// An object at its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Object {
    /// Size, fill, colour and shape.
    pub kind: ObjectKind,
    /// Column and row of its top left corner, in units of [`GRID_PX`].
    pub at: (u32, u32),
}

impl Object {
    /// Its top left corner, in pixels from the image's left and top.
    pub fn top_left_px(&self) -> (i32, i32) {
        // Saturates: a place outside of any image must not overflow before `Scene::new` refuses it.
        let corner = |at: u32| i32::try_from(at.saturating_mul(GRID_PX)).unwrap_or(i32::MAX);
        (corner(self.at.0), corner(self.at.1))
    }

    /// Its centre, in pixels from the image's left and top.
    pub fn centre_px(&self) -> (i32, i32) {
        let half = (self.kind.size.side_px() / 2).cast_signed();
        let (left, top) = self.top_left_px();
        (left.saturating_add(half), top.saturating_add(half))
    }

    /// Columns and rows from its top left corner to behind its last, in units of [`GRID_PX`].
    fn end(&self) -> (u32, u32) {
        let side = self.kind.size.side_px() / GRID_PX;
        (self.at.0.saturating_add(side), self.at.1.saturating_add(side))
    }

    /// Whether the gap between the bounding squares is smaller than [`MIN_GAP_PX`].
    fn is_too_close_to(&self, other: &Self) -> bool {
        let gap = MIN_GAP_PX / GRID_PX;
        let near =
            |a: u32, a_end: u32, b: u32, b_end: u32| a < b_end.saturating_add(gap) && b < a_end.saturating_add(gap);
        let (end, other_end) = (self.end(), other.end());
        near(self.at.0, end.0, other.at.0, other_end.0) && near(self.at.1, end.1, other.at.1, other_end.1)
    }
}

/// One to four objects on a backdrop.
///
/// ```
/// use lumina_core::ImageSize;
/// use lumina_scenes::{Backdrop, Background, Colour, Fill, Object, ObjectKind, ObjectShape, ObjectSize, Scene};
///
/// let star = ObjectKind::new(ObjectSize::Large, Fill::Striped, Colour::Red, ObjectShape::Star);
/// let object = Object { kind: star, at: (9, 0) };
/// let scene = Scene::new(ImageSize::new(256, 256)?, Backdrop::plain(Background::White), vec![object])?;
/// assert_eq!(scene.caption().to_string(), "a large striped red star in the top right on a white background");
/// assert_eq!(scene.image().dimensions(), (256, 256));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "UncheckedScene")]
pub struct Scene {
    size: ImageSize,
    backdrop: Backdrop,
    objects: Vec<Object>,
}

/// A deserialised scene that has not been checked.
#[derive(serde::Deserialize)]
struct UncheckedScene {
    size: ImageSize,
    backdrop: Backdrop,
    objects: Vec<Object>,
}

impl TryFrom<UncheckedScene> for Scene {
    type Error = Error;
    fn try_from(UncheckedScene { size, backdrop, objects }: UncheckedScene) -> Result<Self> {
        Self::new(size, backdrop, objects)
    }
}

impl Scene {
    /// A scene of these objects, which are sorted into reading order.
    ///
    /// # Errors
    /// [`Error::Scene`] if there are no objects or more than [`MAX_OBJECTS`], if one is not inside the image or is too
    /// close to another, and if the image is longer than 3840 pixels.
    pub fn new(size: ImageSize, backdrop: Backdrop, mut objects: Vec<Object>) -> Result<Self> {
        let invalid = |reason: String| Err(Error::Scene { reason });
        let (width, height) = (size.width_px(), size.height_px());
        if width.max(height) > MAX_SIDE_PX {
            return invalid(format!("an image of {size} pixels; the longest side is {MAX_SIDE_PX}"));
        }
        if objects.is_empty() || objects.len() > MAX_OBJECTS {
            return invalid(format!("{} objects, expected 1 to {MAX_OBJECTS}", objects.len()));
        }
        for (index, object) in objects.iter().enumerate() {
            if !fits(object, size) {
                return invalid(format!(
                    "a {} at {:?} of {}x{}",
                    object.kind,
                    object.at,
                    width / GRID_PX,
                    height / GRID_PX
                ));
            }
            if let Some(other) = objects[..index].iter().find(|other| object.is_too_close_to(other)) {
                return invalid(format!("a {} less than {MIN_GAP_PX} pixels from a {}", object.kind, other.kind));
            }
        }
        // By the thirds of rows and columns as captions name them, then exactly.
        objects.sort_by_key(|object| {
            let (x, y) = object.centre_px();
            (Position::of_point((x, y), (width, height)), y, x)
        });
        Ok(Self { size, backdrop, objects })
    }

    /// The size of its image.
    pub fn size(&self) -> ImageSize {
        self.size
    }

    /// What is behind the objects.
    pub fn backdrop(&self) -> Backdrop {
        self.backdrop
    }

    /// The objects in reading order: by the positions that captions name, top to bottom and left to right.
    pub fn objects(&self) -> &[Object] {
        &self.objects
    }

    /// The position of an object of this scene.
    pub fn position(&self, object: &Object) -> Position {
        position(object, self.size)
    }

    /// Where an object of this kind can be put, beside those that are there: the places with this position, nearest to
    /// the middle of its third of the image first.
    pub fn free_places(&self, kind: ObjectKind, position: Position) -> Vec<Object> {
        free_places(kind, self.size, &self.objects, position)
    }

    /// The [free places](Self::free_places) once the object at this index is removed.
    pub(crate) fn places_without(&self, index: usize, kind: ObjectKind, position: Position) -> Vec<Object> {
        let mut others = self.objects.clone();
        others.remove(index);
        free_places(kind, self.size, &others, position)
    }

    /// The canonical caption, which is the answer of captioning: all objects with their positions, in reading order.
    pub fn caption(&self) -> Caption {
        let mentions = self.objects.iter().map(|object| self.mention(object)).collect();
        Caption::list(mentions, Some(self.backdrop)).expect("a scene has as many objects as a caption can")
    }

    /// The mention of an object in the canonical caption.
    pub(crate) fn mention(&self, object: &Object) -> Mention {
        Mention { position: Some(self.position(object)), ..Mention::of(object.kind) }
    }
}

pub(crate) fn position(object: &Object, size: ImageSize) -> Position {
    Position::of_point(object.centre_px(), (size.width_px(), size.height_px()))
}

fn fits(object: &Object, size: ImageSize) -> bool {
    let (right, bottom) = object.end();
    right <= size.width_px() / GRID_PX && bottom <= size.height_px() / GRID_PX
}

/// All places of an object in an image.
pub(crate) fn places(kind: ObjectKind, size: ImageSize) -> impl Iterator<Item = Object> {
    let (columns, rows) = (size.width_px() / GRID_PX, size.height_px() / GRID_PX);
    let all = (0..rows).flat_map(move |row| (0..columns).map(move |column| Object { kind, at: (column, row) }));
    all.filter(move |object| fits(object, size))
}

/// The places for an object beside others that have this position, nearest to the middle of its third first.
pub(crate) fn free_places(kind: ObjectKind, size: ImageSize, others: &[Object], at: Position) -> Vec<Object> {
    let (column, row) = at.thirds();
    let middle = |third: u32, length: u32| ((2 * third + 1) * length / 6).cast_signed();
    let (x, y) = (middle(column, size.width_px()), middle(row, size.height_px()));
    let is_free =
        |place: &Object| position(place, size) == at && !others.iter().any(|other| place.is_too_close_to(other));
    let mut places: Vec<Object> = places(kind, size).filter(is_free).collect();
    places.sort_by_key(|place| {
        let centre = place.centre_px();
        ((centre.0 - x).pow(2) + (centre.1 - y).pow(2), place.at.1, place.at.0)
    });
    places
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Background, Colour, Fill, ObjectShape, ObjectSize};

    const GREY: Backdrop = Backdrop::plain(Background::Grey);

    fn object(size: ObjectSize, at: (u32, u32)) -> Object {
        Object { kind: ObjectKind::new(size, Fill::Plain, Colour::Red, ObjectShape::Square), at }
    }

    #[test]
    fn invalid_scenes_are_refused() {
        let make = |objects| Scene::new(ImageSize::new(192, 128).unwrap(), GREY, objects);
        let reason = |objects: Vec<Object>| make(objects).unwrap_err().to_string();
        assert!(reason(vec![]).contains("0 objects"));
        assert!(make(vec![object(ObjectSize::Small, (9, 5))]).is_ok());
        assert!(reason(vec![object(ObjectSize::Small, (10, 0))]).contains("at (10, 0) of 12x8"));
        assert!(reason(vec![object(ObjectSize::Large, (0, 3))]).contains("at (0, 3)"));
        let far = object(ObjectSize::Small, (u32::MAX, u32::MAX));
        assert_eq!(far.centre_px(), (i32::MAX, i32::MAX));
        assert!(reason(vec![far]).contains("of 12x8"));
        for at in [(3, 0), (0, 3), (2, 2), (0, 0)] {
            let close = vec![object(ObjectSize::Small, (0, 0)), object(ObjectSize::Small, at)];
            assert!(reason(close).contains("less than 16 pixels"), "{at:?}");
        }
        assert!(make(vec![object(ObjectSize::Small, (0, 0)), object(ObjectSize::Small, (4, 0))]).is_ok());
        assert!(reason((0..5).map(|_| object(ObjectSize::Small, (0, 0))).collect()).contains("5 objects"));
        let vast = ImageSize::new(3872, 32).unwrap();
        assert!(Scene::new(vast, GREY, vec![object(ObjectSize::Small, (0, 0))]).is_err());
    }

    #[test]
    fn deserialised_scenes_are_checked() {
        let objects = vec![object(ObjectSize::Small, (4, 4)), object(ObjectSize::Small, (0, 0))];
        let scene = Scene::new(ImageSize::new(128, 128).unwrap(), GREY, objects).unwrap();
        assert_eq!(scene.objects()[0].at, (0, 0), "reading order");
        let json = serde_json::to_string(&scene).unwrap();
        assert_eq!(serde_json::from_str::<Scene>(&json).unwrap(), scene);
        let broken = json.replace("[4,4]", "[7,4]");
        assert_ne!(broken, json);
        assert!(serde_json::from_str::<Scene>(&broken).is_err());
    }

    #[test]
    fn free_places_are_where_they_should_be() {
        let size = ImageSize::new(256, 256).unwrap();
        let scene = Scene::new(size, GREY, vec![object(ObjectSize::Large, (0, 0))]).unwrap();
        let star = ObjectKind::new(ObjectSize::Small, Fill::Plain, Colour::Blue, ObjectShape::Star);
        assert!(scene.free_places(star, Position::TopLeft).is_empty());
        for position in Position::ALL.into_iter().skip(1) {
            let places = scene.free_places(star, position);
            for place in &places {
                let added = Scene::new(size, GREY, vec![scene.objects()[0], *place]).unwrap();
                assert_eq!(added.position(place), position);
            }
            assert!(places.len() >= 4, "{position}: {}", places.len());
        }
        assert_eq!(scene.free_places(star, Position::BottomRight)[0].centre_px(), (216, 216));
    }
}
