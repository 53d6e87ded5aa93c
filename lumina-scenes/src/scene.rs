//! A scene: objects on a background.

use lumina_core::{CELL_PX, ImageSize};

use crate::{Background, Caption, Error, MAX_OBJECTS, Mention, ObjectKind, ObjectSize, Position, Result};

/// The offset of a small object from the centre of its cell, in pixels. All centres are on a grid of this spacing, so
/// that few different patches occur.
pub const OFFSET_STEP_PX: i32 = 8;
/// The fewest pixels between the bounding boxes of two objects.
pub const MIN_GAP_PX: i32 = 4;
/// The longest side of an image in cells: that of the largest target size.
const MAX_CELLS: u32 = 120;

/// An object in its cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Object {
    /// Size, colour and shape.
    pub kind: ObjectKind,
    /// Column and row of its cell, from the top left.
    pub cell: (u32, u32),
    /// Offset of its centre from the centre of the cell, to the right and down, in pixels. 0 for large objects; −8, 0
    /// or 8 for small ones.
    pub offset_px: (i32, i32),
}

impl Object {
    /// Its centre, in pixels from the image's left and top.
    pub fn centre_px(&self) -> (i32, i32) {
        // Saturates: a cell outside of any image must not overflow before `Scene::new` refuses it.
        let centre = |cell: u32, offset: i32| {
            let centre = cell.saturating_mul(CELL_PX).saturating_add(CELL_PX / 2);
            i32::try_from(centre).unwrap_or(i32::MAX).saturating_add(offset)
        };
        (centre(self.cell.0, self.offset_px.0), centre(self.cell.1, self.offset_px.1))
    }

    /// Whether the gap between the bounding boxes is smaller than [`MIN_GAP_PX`].
    pub(crate) fn is_too_close_to(&self, other: &Self) -> bool {
        let sides = (self.kind.size.side_px() + other.kind.size.side_px()).cast_signed();
        let near = |a: i32, b: i32| 2 * (a - b).abs() < sides + 2 * MIN_GAP_PX;
        let (a, b) = (self.centre_px(), other.centre_px());
        near(a.0, b.0) && near(a.1, b.1)
    }
}

/// One to three objects on a plain background.
///
/// ```
/// use lumina_core::ImageSize;
/// use lumina_scenes::{Background, Colour, ObjectKind, Object, Scene, ObjectShape, ObjectSize};
///
/// let circle = ObjectKind::new(ObjectSize::Large, Colour::Red, ObjectShape::Circle);
/// let object = Object { kind: circle, cell: (2, 0), offset_px: (0, 0) };
/// let scene = Scene::new(ImageSize::new(96, 64)?, Background::White, vec![object])?;
/// assert_eq!(scene.caption().to_string(), "a large red circle in the top right on a white background");
/// assert_eq!(scene.image().dimensions(), (96, 64));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "UncheckedScene")]
pub struct Scene {
    size: ImageSize,
    background: Background,
    objects: Vec<Object>,
}

/// A deserialised scene that has not been checked.
#[derive(serde::Deserialize)]
struct UncheckedScene {
    size: ImageSize,
    background: Background,
    objects: Vec<Object>,
}

impl TryFrom<UncheckedScene> for Scene {
    type Error = Error;
    fn try_from(UncheckedScene { size, background, objects }: UncheckedScene) -> Result<Self> {
        Self::new(size, background, objects)
    }
}

impl Scene {
    /// A scene of these objects, which are sorted into reading order.
    ///
    /// # Errors
    /// [`Error::Scene`] if there are no objects or more than [`MAX_OBJECTS`], if one is outside the image, has another
    /// offset than 0 or [`OFFSET_STEP_PX`], or is too close to another, and if the image is longer than 3840 pixels.
    pub fn new(size: ImageSize, background: Background, mut objects: Vec<Object>) -> Result<Self> {
        let invalid = |reason: String| Err(Error::Scene { reason });
        let (columns, rows) = (size.width_cells(), size.height_cells());
        if columns.max(rows) > MAX_CELLS {
            return invalid(format!("an image of {size} pixels; the longest side is {}", MAX_CELLS * CELL_PX));
        }
        if objects.is_empty() || objects.len() > MAX_OBJECTS {
            return invalid(format!("{} objects, expected 1 to {MAX_OBJECTS}", objects.len()));
        }
        for Object { kind, cell, offset_px } in &objects {
            if cell.0 >= columns || cell.1 >= rows {
                return invalid(format!("a {kind} in cell {cell:?} of {columns}x{rows}"));
            }
            let steps: &[i32] =
                if kind.size == ObjectSize::Small { &[-OFFSET_STEP_PX, 0, OFFSET_STEP_PX] } else { &[0] };
            if !steps.contains(&offset_px.0) || !steps.contains(&offset_px.1) {
                return invalid(format!("a {kind} with an offset of {offset_px:?} pixels, expected {steps:?}"));
            }
        }
        for (index, object) in objects.iter().enumerate() {
            if let Some(other) = objects[..index].iter().find(|other| object.is_too_close_to(other)) {
                return invalid(format!("a {} less than {MIN_GAP_PX} pixels from a {}", object.kind, other.kind));
            }
        }
        objects.sort_by_key(|object| (object.cell.1, object.cell.0));
        Ok(Self { size, background, objects })
    }

    /// The size of its image.
    pub fn size(&self) -> ImageSize {
        self.size
    }

    /// The background.
    pub fn background(&self) -> Background {
        self.background
    }

    /// The objects in reading order: by row, then by column.
    pub fn objects(&self) -> &[Object] {
        &self.objects
    }

    /// The position of an object of this scene.
    pub fn position(&self, object: &Object) -> Position {
        Position::of_cell(object.cell, (self.size.width_cells(), self.size.height_cells()))
    }

    /// The canonical caption, which is the answer of captioning: all objects with their positions, in reading order.
    pub fn caption(&self) -> Caption {
        let mentions = self.objects.iter().map(|object| self.mention(object)).collect();
        Caption::list(mentions, self.background).expect("a scene has as many objects as a caption can")
    }

    /// The mention of an object in the canonical caption.
    pub(crate) fn mention(&self, object: &Object) -> Mention {
        Mention { kind: object.kind, position: Some(self.position(object)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Colour, ObjectShape, ObjectSize};

    fn object(size: ObjectSize, cell: (u32, u32), offset_px: (i32, i32)) -> Object {
        Object { kind: ObjectKind::new(size, Colour::Red, ObjectShape::Square), cell, offset_px }
    }

    #[test]
    fn invalid_scenes_are_refused() {
        let make = |objects| Scene::new(ImageSize::new(96, 64).unwrap(), Background::Grey, objects);
        let reason = |objects: Vec<Object>| make(objects).unwrap_err().to_string();
        assert!(reason(vec![]).contains("0 objects"));
        assert!(reason(vec![object(ObjectSize::Small, (3, 0), (0, 0))]).contains("cell (3, 0)"));
        let far = object(ObjectSize::Small, (u32::MAX, u32::MAX), (i32::MAX, 8));
        assert_eq!(far.centre_px(), (i32::MAX, i32::MAX));
        assert!(reason(vec![far]).contains("of 3x2"));
        assert!(reason(vec![object(ObjectSize::Large, (0, 0), (8, 0))]).contains("(8, 0)"));
        assert!(reason(vec![object(ObjectSize::Small, (0, 0), (5, 0))]).contains("(5, 0)"));
        let close = vec![object(ObjectSize::Small, (0, 0), (8, 0)), object(ObjectSize::Small, (1, 0), (-8, 0))];
        assert!(reason(close).contains("less than 4 pixels"));
        let twice = vec![object(ObjectSize::Small, (0, 0), (8, 8)), object(ObjectSize::Small, (0, 0), (-8, -8))];
        assert!(reason(twice).contains("less than 4 pixels"));
        assert!(
            make(vec![object(ObjectSize::Large, (0, 0), (0, 0)), object(ObjectSize::Large, (1, 0), (0, 0))]).is_ok()
        );
        let vast = ImageSize::new(32 * 121, 32).unwrap();
        assert!(Scene::new(vast, Background::Grey, vec![object(ObjectSize::Small, (0, 0), (0, 0))]).is_err());
    }

    #[test]
    fn deserialised_scenes_are_checked() {
        let objects = vec![object(ObjectSize::Small, (1, 1), (0, 8)), object(ObjectSize::Large, (0, 0), (0, 0))];
        let scene = Scene::new(ImageSize::new(64, 64).unwrap(), Background::SkyBlue, objects).unwrap();
        assert_eq!(scene.objects()[0].cell, (0, 0), "reading order");
        let json = serde_json::to_string(&scene).unwrap();
        assert_eq!(serde_json::from_str::<Scene>(&json).unwrap(), scene);
        let broken = json.replace("[1,1]", "[7,1]");
        assert_ne!(broken, json);
        assert!(serde_json::from_str::<Scene>(&broken).is_err());
    }
}
