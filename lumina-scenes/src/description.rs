//! Descriptions that pick objects of a scene.

use std::fmt;

use crate::{Colour, Fill, Object, ObjectShape, ObjectSize, Position, Scene};

/// What an instruction or a question says of an object. What is `None` is not stated, and anything fits.
///
/// Unlike a [`Mention`](crate::Mention), which says how an object is to be drawn, it picks one that is there: the red
/// circle may be a striped one.
///
/// ```
/// use lumina_scenes::{Colour, Description, ObjectShape, Scenes, Split};
///
/// let circle = Description { shape: Some(ObjectShape::Circle), ..Description::default() };
/// assert_eq!(circle.to_string(), "circle");
/// let red = Description { colour: Some(Colour::Red), ..Description::default() };
/// assert_eq!(red.to_string(), "red object");
/// # Ok::<(), lumina_scenes::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Description {
    /// Its size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<ObjectSize>,
    /// Its fill.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fill: Option<Fill>,
    /// Its colour.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub colour: Option<Colour>,
    /// Its shape.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shape: Option<ObjectShape>,
    /// Its position.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
}

impl Description {
    /// The objects of a scene that fit.
    pub fn of<'a>(&'a self, scene: &'a Scene) -> impl Iterator<Item = &'a Object> {
        scene.objects().iter().filter(|object| {
            let kind = object.kind;
            self.size.is_none_or(|size| size == kind.size)
                && self.fill.is_none_or(|fill| fill == kind.fill)
                && self.colour.is_none_or(|colour| colour == kind.colour)
                && self.shape.is_none_or(|shape| shape == kind.shape)
                && self.position.is_none_or(|position| position == scene.position(object))
        })
    }

    /// The descriptions that fit this object of a scene and no other, the most usual one first.
    pub(crate) fn only(scene: &Scene, object: &Object) -> Vec<Self> {
        let kind = object.kind;
        let (size, fill) = (Some(kind.size), Some(kind.fill));
        let (colour, shape, position) = (Some(kind.colour), Some(kind.shape), Some(scene.position(object)));
        let none = Self::default();
        let mut descriptions = vec![
            Self { colour, shape, ..none },
            Self { shape, ..none },
            Self { size, colour, shape, ..none },
            Self { fill, colour, shape, ..none },
            Self { size, fill, colour, shape, ..none },
            Self { colour, shape, position, ..none },
            Self { colour, ..none },
            Self { size, shape, ..none },
            Self { fill, shape, ..none },
            Self { size, ..none },
            Self { shape, position, ..none },
        ];
        descriptions.retain(|description| description.of(scene).count() == 1);
        descriptions
    }
}

impl fmt::Display for Description {
    /// As in instructions, without an article: `small red circle`, `striped object on the left`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words =
            [self.size.map(ObjectSize::name), self.fill.map(Fill::name), self.colour.map(Colour::name)].into_iter();
        for word in words.flatten() {
            write!(f, "{word} ")?;
        }
        f.write_str(self.shape.map_or("object", ObjectShape::name))?;
        self.position.map_or(Ok(()), |position| write!(f, " {position}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scenes;
    use crate::Split;

    #[test]
    fn descriptions_fit_one_object_alone() {
        let scenes = Scenes::new(4, Split::Train, 256).unwrap();
        for scene in (0..200).map(|index| scenes.scene(index)) {
            for object in scene.objects() {
                for description in Description::only(&scene, object) {
                    assert_eq!(description.of(&scene).collect::<Vec<_>>(), [object], "{description}");
                }
            }
            let different = scene.objects().len() == 1;
            assert!(!different || Description::only(&scene, &scene.objects()[0]).len() == 11);
        }
    }
}
