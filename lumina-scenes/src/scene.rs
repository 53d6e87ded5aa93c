//! A scene: what is where in a picture.

use lumina_core::{CELL_PX, ImageSize};

use crate::{Background, Description, Error, Kind, Mention, Place, Result};

/// The most objects in a scene.
pub const MAX_OBJECTS: usize = 3;
/// How far a small object is moved from the middle of its cell, in pixels. With it all centres lie on a lattice of
/// this many pixels, so that few different patches occur.
pub const STEP_PX: i32 = 8;
/// The fewest pixels between the bounding boxes of two objects.
pub const MIN_GAP_PX: i32 = 4;
/// The longest side of a picture, in cells: that of the largest target size.
const MAX_CELLS: u32 = 120;

/// An object in its cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Object {
    /// What it looks like.
    pub kind: Kind,
    /// Column and row of its cell, from the top left.
    pub cell: (u32, u32),
    /// How far its centre lies right of and below that of the cell, in pixels. 0 for large objects; −8, 0 or 8 for
    /// small ones.
    pub offset_px: (i32, i32),
}

impl Object {
    /// Its centre, in pixels from the picture's left and top.
    pub fn centre_px(&self) -> (i32, i32) {
        // A cell that is in no picture must not overflow before a scene has refused it.
        let middle = |cell: u32, offset: i32| {
            let middle = cell.saturating_mul(CELL_PX).saturating_add(CELL_PX / 2);
            i32::try_from(middle).unwrap_or(i32::MAX).saturating_add(offset)
        };
        (middle(self.cell.0, self.offset_px.0), middle(self.cell.1, self.offset_px.1))
    }

    /// Whether the bounding boxes are nearer than [`MIN_GAP_PX`] to each other.
    pub(crate) fn crowds(&self, other: &Self) -> bool {
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
/// use lumina_scenes::{Background, Colour, Kind, Object, Scene, Shape, Size};
///
/// let circle = Kind::new(Size::Large, Colour::Red, Shape::Circle);
/// let object = Object { kind: circle, cell: (2, 0), offset_px: (0, 0) };
/// let scene = Scene::new(ImageSize::new(96, 64)?, Background::White, vec![object])?;
/// assert_eq!(scene.description().to_string(), "a large red circle in the top right on a white background");
/// assert_eq!(scene.picture().dimensions(), (96, 64));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "UncheckedScene")]
pub struct Scene {
    size: ImageSize,
    background: Background,
    objects: Vec<Object>,
}

/// A scene as it is read, before it is known to be possible.
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
    /// A scene of these objects, which are put into reading order.
    ///
    /// # Errors
    /// [`Error::Scene`] where there are none or more than [`MAX_OBJECTS`], where one lies outside the picture, is
    /// moved by something else than [`STEP_PX`], or crowds another, and where the picture is longer than 3840 pixels.
    pub fn new(size: ImageSize, background: Background, mut objects: Vec<Object>) -> Result<Self> {
        let wrong = |reason: String| Err(Error::Scene { reason });
        let (columns, rows) = (size.width_cells(), size.height_cells());
        if columns.max(rows) > MAX_CELLS {
            return wrong(format!("a picture of {size} pixels, longer than {} a side", MAX_CELLS * CELL_PX));
        }
        if objects.is_empty() || objects.len() > MAX_OBJECTS {
            return wrong(format!("{} objects, not 1 to {MAX_OBJECTS}", objects.len()));
        }
        for Object { kind, cell, offset_px } in &objects {
            if cell.0 >= columns || cell.1 >= rows {
                return wrong(format!("a {kind} in cell {cell:?} of {columns}x{rows}"));
            }
            let steps: &[i32] = if kind.size == crate::Size::Small { &[-STEP_PX, 0, STEP_PX] } else { &[0] };
            if !steps.contains(&offset_px.0) || !steps.contains(&offset_px.1) {
                return wrong(format!("a {kind} moved by {offset_px:?} pixels, not by {steps:?}"));
            }
        }
        for (index, object) in objects.iter().enumerate() {
            if let Some(other) = objects[..index].iter().find(|other| object.crowds(other)) {
                return wrong(format!("a {} less than {MIN_GAP_PX} pixels from a {}", object.kind, other.kind));
            }
        }
        objects.sort_by_key(|object| (object.cell.1, object.cell.0));
        Ok(Self { size, background, objects })
    }

    /// The size of its picture.
    pub fn size(&self) -> ImageSize {
        self.size
    }

    /// What is behind the objects.
    pub fn background(&self) -> Background {
        self.background
    }

    /// The objects in reading order: by row, then by column.
    pub fn objects(&self) -> &[Object] {
        &self.objects
    }

    /// The place of an object of this scene in words.
    pub fn place(&self, object: &Object) -> Place {
        Place::of_cell(object.cell, (self.size.width_cells(), self.size.height_cells()))
    }

    /// The canonical caption: all objects with their places, in reading order. What captioning answers.
    pub fn description(&self) -> Description {
        let mentions = self.objects.iter().map(|object| self.mention(object)).collect();
        Description::list(mentions, self.background).expect("a scene has as many objects as a caption can")
    }

    /// An object as the canonical caption mentions it.
    pub(crate) fn mention(&self, object: &Object) -> Mention {
        Mention { kind: object.kind, place: Some(self.place(object)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Colour, Shape, Size};

    fn object(size: Size, cell: (u32, u32), offset_px: (i32, i32)) -> Object {
        Object { kind: Kind::new(size, Colour::Red, Shape::Square), cell, offset_px }
    }

    #[test]
    fn impossible_scenes_are_refused() {
        let make = |objects| Scene::new(ImageSize::new(96, 64).unwrap(), Background::Grey, objects);
        let reason = |objects: Vec<Object>| make(objects).unwrap_err().to_string();
        assert!(reason(vec![]).contains("0 objects"));
        assert!(reason(vec![object(Size::Small, (3, 0), (0, 0))]).contains("cell (3, 0)"));
        let far = object(Size::Small, (u32::MAX, u32::MAX), (i32::MAX, 8));
        assert_eq!(far.centre_px(), (i32::MAX, i32::MAX));
        assert!(reason(vec![far]).contains("of 3x2"));
        assert!(reason(vec![object(Size::Large, (0, 0), (8, 0))]).contains("(8, 0)"));
        assert!(reason(vec![object(Size::Small, (0, 0), (5, 0))]).contains("(5, 0)"));
        let close = vec![object(Size::Small, (0, 0), (8, 0)), object(Size::Small, (1, 0), (-8, 0))];
        assert!(reason(close).contains("less than 4 pixels"));
        let twice = vec![object(Size::Small, (0, 0), (8, 8)), object(Size::Small, (0, 0), (-8, -8))];
        assert!(reason(twice).contains("less than 4 pixels"));
        assert!(make(vec![object(Size::Large, (0, 0), (0, 0)), object(Size::Large, (1, 0), (0, 0))]).is_ok());
        let vast = ImageSize::new(32 * 121, 32).unwrap();
        assert!(Scene::new(vast, Background::Grey, vec![object(Size::Small, (0, 0), (0, 0))]).is_err());
    }

    #[test]
    fn a_scene_that_is_read_is_checked() {
        let objects = vec![object(Size::Small, (1, 1), (0, 8)), object(Size::Large, (0, 0), (0, 0))];
        let scene = Scene::new(ImageSize::new(64, 64).unwrap(), Background::SkyBlue, objects).unwrap();
        assert_eq!(scene.objects()[0].cell, (0, 0), "reading order");
        let json = serde_json::to_string(&scene).unwrap();
        assert_eq!(serde_json::from_str::<Scene>(&json).unwrap(), scene);
        let broken = json.replace("[1,1]", "[7,1]");
        assert_ne!(broken, json);
        assert!(serde_json::from_str::<Scene>(&broken).is_err());
    }
}
