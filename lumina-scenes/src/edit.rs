//! Edits of a scene, as an instruction requests them.

use std::fmt;

use crate::{Backdrop, Background, Colour, Error, Object, ObjectShape, Result, Scene};

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
        let mut backdrop = scene.backdrop();
        match *self {
            Self::Recolour { target, to } => objects[self.find(target, scene.objects())?].kind.colour = to,
            Self::Reshape { target, to } => objects[self.find(target, scene.objects())?].kind.shape = to,
            Self::Remove { target } => {
                objects.remove(self.find(target, scene.objects())?);
            }
            Self::Background { to } => backdrop = Backdrop::plain(to),
        }
        Scene::new(scene.size(), backdrop, objects)
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
