//! Changes of a scene that an instruction can ask for.

use std::fmt;

use crate::{Background, Colour, Error, Object, Result, Scene, Shape};

/// The object that an edit is about, which must be the only one of its colour and shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Target {
    /// Its colour.
    pub colour: Colour,
    /// Its shape.
    pub shape: Shape,
}

/// A change of a scene. `Display` writes the instruction, and [`Edit::apply`] makes the edited scene.
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
        /// What to change.
        target: Target,
        /// Its new colour.
        to: Colour,
    },
    /// `remove the red circle`; another object must stay.
    Remove {
        /// What to remove.
        target: Target,
    },
    /// `turn the red circle into a square`.
    Reshape {
        /// What to change.
        target: Target,
        /// Its new shape.
        to: Shape,
    },
    /// `make the background black`.
    Background {
        /// The new background.
        to: Background,
    },
}

impl Edit {
    /// The edits that can be made to a scene and change it.
    pub fn possible(scene: &Scene) -> Vec<Self> {
        let targets = scene.objects().iter().map(Target::of);
        let edits = targets.flat_map(|target| {
            let recolour = Colour::ALL.into_iter().map(move |to| Self::Recolour { target, to });
            let reshape = Shape::ALL.into_iter().map(move |to| Self::Reshape { target, to });
            recolour.chain(reshape).chain([Self::Remove { target }])
        });
        let backgrounds = Background::ALL.into_iter().map(|to| Self::Background { to });
        edits.chain(backgrounds).filter(|edit| edit.apply(scene).is_ok_and(|edited| edited != *scene)).collect()
    }

    /// The edited scene: everything else stays as it is.
    ///
    /// # Errors
    /// [`Error::Edit`] where not just one object is of the colour and shape that the edit names, and
    /// [`Error::Scene`] where none is left.
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

    fn find(&self, target: Target, objects: &[Object]) -> Result<usize> {
        let mut found = (0..objects.len()).filter(|&index| Target::of(&objects[index]) == target);
        match (found.next(), found.count()) {
            (Some(index), 0) => Ok(index),
            (first, more) => Err(Error::Edit {
                edit: self.to_string(),
                reason: format!("the scene has {} of these, not one", usize::from(first.is_some()) + more),
            }),
        }
    }
}

impl Target {
    fn of(object: &Object) -> Self {
        Self { colour: object.kind.colour, shape: object.kind.shape }
    }
}

impl fmt::Display for Target {
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
    use crate::{Kind, Size};
    use lumina_core::ImageSize;

    fn scene(kinds: &[Kind]) -> Scene {
        let objects = (0..).zip(kinds).map(|(column, &kind)| Object { kind, cell: (column, 0), offset_px: (0, 0) });
        Scene::new(ImageSize::new(96, 32).unwrap(), Background::White, objects.collect()).unwrap()
    }

    #[test]
    fn edits_do_what_they_say() {
        let (circle, cross) =
            (Kind::new(Size::Large, Colour::Red, Shape::Circle), Kind::new(Size::Small, Colour::Blue, Shape::Cross));
        let scene = scene(&[circle, cross]);
        let target = Target { colour: Colour::Red, shape: Shape::Circle };
        for (edit, text, caption) in [
            (
                Edit::Recolour { target, to: Colour::Green },
                "make the red circle green",
                "a large green circle on the left and a small blue cross in the centre on a white background",
            ),
            (
                Edit::Reshape { target, to: Shape::Square },
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
            assert_eq!(edit.apply(&scene).unwrap().description().to_string(), caption);
            assert!(Edit::possible(&scene).contains(&edit));
            let json = serde_json::to_string(&edit).unwrap();
            assert_eq!(serde_json::from_str::<Edit>(&json).unwrap(), edit);
        }
        // Two objects, 5 + 3 + 1 edits each, and 3 other backgrounds.
        assert_eq!(Edit::possible(&scene).len(), 2 * 9 + 3);
    }

    #[test]
    fn a_target_is_one_object() {
        let kind = |size| Kind::new(size, Colour::Red, Shape::Circle);
        let target = Target { colour: Colour::Red, shape: Shape::Circle };
        let twins = scene(&[kind(Size::Large), kind(Size::Small)]);
        let error = Edit::Remove { target }.apply(&twins).unwrap_err().to_string();
        assert!(error.contains("remove the red circle") && error.contains("has 2 of these"), "{error}");
        assert_eq!(Edit::possible(&twins).len(), 3);
        let alone = scene(&[kind(Size::Large)]);
        assert!(matches!(Edit::Remove { target }.apply(&alone), Err(Error::Scene { .. })));
        let other = Target { colour: Colour::Blue, shape: Shape::Circle };
        assert!(Edit::Remove { target: other }.apply(&alone).unwrap_err().to_string().contains("has 0 of these"));
    }
}
