//! Edits of a scene, as an instruction requests them.

use std::fmt;

use crate::{Background, Colour, Error, Object, ObjectShape, Result, Scene};

/// The object that an edit changes. It must be the only one of its colour and shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct EditTarget {
    /// Its colour.
    pub colour: Colour,
    /// Its shape.
    pub shape: ObjectShape,
}

/// An edit of a scene. `Display` writes the instruction, [`Edit::apply`] returns the edited scene.
///
/// ```
/// use lumina_scenes::{Colour, Edit, Scenes, Split};
///
/// let scene = Scenes::new(1, Split::Train, 96)?.scene(0);
/// for edit in Edit::possible(&scene) {
///     assert_ne!(edit.apply(&scene)?, scene, "{edit}");
/// }
/// # Ok::<(), lumina_scenes::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Edit {
    /// `make the red circle blue`.
    Recolour {
        /// The object to change.
        target: EditTarget,
        /// Its new colour.
        to: Colour,
    },
    /// `remove the red circle`; another object must remain.
    Remove {
        /// The object to remove.
        target: EditTarget,
    },
    /// `turn the red circle into a square`.
    Reshape {
        /// The object to change.
        target: EditTarget,
        /// Its new shape.
        to: ObjectShape,
    },
    /// `make the background black`.
    Background {
        /// The new background.
        to: Background,
    },
}

impl Edit {
    /// All edits that can be applied to a scene and change it.
    pub fn possible(scene: &Scene) -> Vec<Self> {
        let targets = scene.objects().iter().map(EditTarget::of);
        let edits = targets.flat_map(|target| {
            let recolour = Colour::ALL.into_iter().map(move |to| Self::Recolour { target, to });
            let reshape = ObjectShape::ALL.into_iter().map(move |to| Self::Reshape { target, to });
            recolour.chain(reshape).chain([Self::Remove { target }])
        });
        let backgrounds = Background::ALL.into_iter().map(|to| Self::Background { to });
        edits.chain(backgrounds).filter(|edit| edit.apply(scene).is_ok_and(|edited| edited != *scene)).collect()
    }

    /// The edited scene. Everything that the edit does not name stays the same.
    ///
    /// # Errors
    /// [`Error::Edit`] unless exactly one object has the colour and shape of the target, and [`Error::Scene`] if no
    /// object remains.
    pub fn apply(&self, scene: &Scene) -> Result<Scene> {
        let mut objects = scene.objects().to_vec();
        let mut background = scene.background();
        match *self {
            Self::Recolour { target, to } => objects[self.find(target, scene.objects())?].kind.colour = to,
            Self::Reshape { target, to } => objects[self.find(target, scene.objects())?].kind.shape = to,
            Self::Remove { target } => {
                objects.remove(self.find(target, scene.objects())?);
            }
            Self::Background { to } => background = to,
        }
        Scene::new(scene.size(), background, objects)
    }

    fn find(&self, target: EditTarget, objects: &[Object]) -> Result<usize> {
        let mut found = (0..objects.len()).filter(|&index| EditTarget::of(&objects[index]) == target);
        match (found.next(), found.count()) {
            (Some(index), 0) => Ok(index),
            (first, more) => Err(Error::Edit {
                edit: self.to_string(),
                reason: format!("the scene has {} of these, expected one", usize::from(first.is_some()) + more),
            }),
        }
    }
}

impl EditTarget {
    fn of(object: &Object) -> Self {
        Self { colour: object.kind.colour, shape: object.kind.shape }
    }
}

impl fmt::Display for EditTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {} {}", self.colour, self.shape)
    }
}

impl fmt::Display for Edit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Recolour { target, to } => write!(f, "make {target} {to}"),
            Self::Remove { target } => write!(f, "remove {target}"),
            Self::Reshape { target, to } => write!(f, "turn {target} into a {to}"),
            Self::Background { to } => write!(f, "make the background {to}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ObjectKind, ObjectSize};
    use lumina_core::ImageSize;

    fn scene(kinds: &[ObjectKind]) -> Scene {
        let objects = (0..).zip(kinds).map(|(column, &kind)| Object { kind, cell: (column, 0), offset_px: (0, 0) });
        Scene::new(ImageSize::new(96, 32).unwrap(), Background::White, objects.collect()).unwrap()
    }

    #[test]
    fn edits_follow_their_instructions() {
        let (circle, cross) = (
            ObjectKind::new(ObjectSize::Large, Colour::Red, ObjectShape::Circle),
            ObjectKind::new(ObjectSize::Small, Colour::Blue, ObjectShape::Cross),
        );
        let scene = scene(&[circle, cross]);
        let target = EditTarget { colour: Colour::Red, shape: ObjectShape::Circle };
        for (edit, text, caption) in [
            (
                Edit::Recolour { target, to: Colour::Green },
                "make the red circle green",
                "a large green circle on the left and a small blue cross in the centre on a white background",
            ),
            (
                Edit::Reshape { target, to: ObjectShape::Square },
                "turn the red circle into a square",
                "a large red square on the left and a small blue cross in the centre on a white background",
            ),
            (
                Edit::Remove { target },
                "remove the red circle",
                "a small blue cross in the centre on a white background",
            ),
            (
                Edit::Background { to: Background::SkyBlue },
                "make the background sky blue",
                "a large red circle on the left and a small blue cross in the centre on a sky blue background",
            ),
        ] {
            assert_eq!(edit.to_string(), text);
            assert_eq!(edit.apply(&scene).unwrap().caption().to_string(), caption);
            assert!(Edit::possible(&scene).contains(&edit));
            let json = serde_json::to_string(&edit).unwrap();
            assert_eq!(serde_json::from_str::<Edit>(&json).unwrap(), edit);
        }
        // Two objects, 5 + 3 + 1 edits each, and 3 other backgrounds.
        assert_eq!(Edit::possible(&scene).len(), 2 * 9 + 3);
    }

    #[test]
    fn a_target_must_be_one_object() {
        let kind = |size| ObjectKind::new(size, Colour::Red, ObjectShape::Circle);
        let target = EditTarget { colour: Colour::Red, shape: ObjectShape::Circle };
        let twins = scene(&[kind(ObjectSize::Large), kind(ObjectSize::Small)]);
        let error = Edit::Remove { target }.apply(&twins).unwrap_err().to_string();
        assert!(error.contains("remove the red circle") && error.contains("has 2 of these"), "{error}");
        assert_eq!(Edit::possible(&twins).len(), 3);
        let alone = scene(&[kind(ObjectSize::Large)]);
        assert!(matches!(Edit::Remove { target }.apply(&alone), Err(Error::Scene { .. })));
        let other = EditTarget { colour: Colour::Blue, shape: ObjectShape::Circle };
        assert!(Edit::Remove { target: other }.apply(&alone).unwrap_err().to_string().contains("has 0 of these"));
    }
}
