//! Edits of a scene, as an instruction requests them.

use std::fmt;

use crate::caption::article;
use crate::random::SeededRng;
use crate::{
    Background, Colour, Description, Error, Fill, Object, ObjectKind, ObjectShape, ObjectSize, Position, Result, Scene,
    Split,
};

/// An edit of a scene. `Display` writes the canonical instruction, [`Edit::apply`] returns the edited scene.
///
/// Its target must be the only object that the description fits.
///
/// ```
/// use lumina_scenes::{Edit, Scenes, Split};
///
/// let scene = Scenes::new(1, Split::Train, 256)?.scene(0);
/// for edit in Edit::possible(&scene).take(50) {
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
        target: Description,
        /// Its new colour.
        to: Colour,
    },
    /// `make the red circle striped`.
    Refill {
        /// The object to change.
        target: Description,
        /// Its new fill.
        to: Fill,
    },
    /// `make the red circle large`. Its centre moves as little as its neighbours and the grid require.
    Resize {
        /// The object to change.
        target: Description,
        /// Its new size.
        to: ObjectSize,
    },
    /// `turn the red circle into a square`.
    Reshape {
        /// The object to change.
        target: Description,
        /// Its new shape.
        to: ObjectShape,
    },
    /// `replace the red circle with a small green star`, which is as near to the old place as possible.
    Replace {
        /// The object to replace.
        target: Description,
        /// What comes in its place.
        with: ObjectKind,
    },
    /// `remove the red circle`; another object must remain.
    Remove {
        /// The object to remove.
        target: Description,
    },
    /// `add a small red star in the top left`, at the first of the [free places](Scene::free_places).
    Add {
        /// What to add.
        kind: ObjectKind,
        /// Where.
        position: Position,
    },
    /// `move the red circle to the bottom right`, to the first of the [free places](Scene::free_places).
    Move {
        /// The object to move.
        target: Description,
        /// Where to.
        to: Position,
    },
    /// `make the background black`. A shaded one stays shaded.
    Background {
        /// The new colour.
        to: Background,
    },
    /// `make the background shaded` or `make the background plain`.
    Shade {
        /// Whether it is to be shaded.
        shaded: bool,
    },
}

/// How many variants [`Edit`] has.
const N_TYPES: usize = 10;

impl Edit {
    /// All edits that can be applied to a scene and change it, with the usual description of their targets. There are
    /// thousands.
    pub fn possible(scene: &Scene) -> impl Iterator<Item = Self> + '_ {
        let target = |object: &Object| Description::only(scene, object).first().copied();
        let targets: Vec<Description> = scene.objects().iter().filter_map(target).collect();
        let all = (0..N_TYPES).flat_map(move |edit_type| Self::of_type(edit_type, &targets));
        all.filter(|edit| edit.apply(scene).is_ok_and(|edited| edited != *scene))
    }

    /// A possible edit. The type is chosen first, then the edit, so that no type is rare.
    pub(crate) fn random(scene: &Scene, split: Split, rng: &mut SeededRng) -> Self {
        let allowed = |edit: &Self| {
            let is_possible = edit.apply(scene).is_ok_and(|edited| edited != *scene && split.allows(&edited));
            is_possible && edit.has_one_reading(scene)
        };
        let mut edit_types: Vec<usize> = (0..N_TYPES).collect();
        rng.shuffle(&mut edit_types);
        for edit_type in edit_types {
            let mut targets = Vec::new();
            for object in scene.objects() {
                let descriptions = Description::only(scene, object);
                let usual = rng.below(2) == 0;
                targets.extend(if usual { descriptions.first().copied() } else { rng.choose(&descriptions) });
            }
            let mut edits = Self::of_type(edit_type, &targets);
            rng.shuffle(&mut edits);
            if let Some(edit) = edits.into_iter().find(allowed) {
                return edit;
            }
        }
        // The shade of the background can always be changed, and no split forbids it.
        Self::Shade { shaded: !scene.backdrop().shaded }
    }

    /// Whether people agree on what is asked for. Moved `to the left`, what is in the top right goes to the middle of
    /// the left for some, and stays at the top for others.
    fn has_one_reading(&self, scene: &Scene) -> bool {
        let Self::Move { target, to } = *self else { return true };
        let from = target.of(scene).next().map(|object| scene.position(object).thirds());
        from.is_some_and(|(column, row)| match to {
            Position::Left | Position::Right => row == 1,
            Position::Top | Position::Bottom => column == 1,
            _ => true,
        })
    }

    /// All edits of a type, possible or not.
    fn of_type(edit_type: usize, targets: &[Description]) -> Vec<Self> {
        fn each<T: Copy>(
            targets: &[Description],
            values: impl IntoIterator<Item = T>,
            edit: impl Fn(Description, T) -> Edit,
        ) -> Vec<Edit> {
            let pairs = values.into_iter().flat_map(|value| targets.iter().map(move |&target| (target, value)));
            pairs.map(|(target, value)| edit(target, value)).collect()
        }
        match edit_type {
            0 => each(targets, Colour::ALL, |target, to| Self::Recolour { target, to }),
            1 => each(targets, Fill::ALL, |target, to| Self::Refill { target, to }),
            2 => each(targets, ObjectSize::ALL, |target, to| Self::Resize { target, to }),
            3 => each(targets, ObjectShape::ALL, |target, to| Self::Reshape { target, to }),
            4 => each(targets, ObjectKind::all(), |target, with| Self::Replace { target, with }),
            5 => targets.iter().map(|&target| Self::Remove { target }).collect(),
            6 => {
                let places = ObjectKind::all().flat_map(|kind| Position::ALL.map(|position| (kind, position)));
                places.map(|(kind, position)| Self::Add { kind, position }).collect()
            }
            7 => each(targets, Position::ALL, |target, to| Self::Move { target, to }),
            8 => Background::ALL.map(|to| Self::Background { to }).to_vec(),
            _ => [false, true].map(|shaded| Self::Shade { shaded }).to_vec(),
        }
    }

    /// The edited scene. Everything that the edit does not name stays the same.
    ///
    /// # Errors
    /// [`Error::Edit`] unless exactly one object is as the target says, and if there is no place for what it adds,
    /// moves or enlarges; [`Error::Scene`] if no object remains, or too many.
    pub fn apply(&self, scene: &Scene) -> Result<Scene> {
        let mut objects = scene.objects().to_vec();
        let mut backdrop = scene.backdrop();
        match *self {
            Self::Recolour { target, to } => objects[self.find(target, scene)?].kind.colour = to,
            Self::Refill { target, to } => objects[self.find(target, scene)?].kind.fill = to,
            Self::Reshape { target, to } => objects[self.find(target, scene)?].kind.shape = to,
            Self::Resize { target, to } => {
                let index = self.find(target, scene)?;
                let kind = ObjectKind { size: to, ..objects[index].kind };
                objects[index] = self.nearest(scene, index, kind)?;
            }
            Self::Replace { target, with } => {
                let index = self.find(target, scene)?;
                objects[index] = self.nearest(scene, index, with)?;
            }
            Self::Remove { target } => {
                objects.remove(self.find(target, scene)?);
            }
            Self::Add { kind, position } => {
                objects.push(scene.free_places(kind, position).first().copied().ok_or_else(|| self.no_place())?);
            }
            Self::Move { target, to } => {
                let index = self.find(target, scene)?;
                let object = objects.remove(index);
                // The object itself is not in its way; where it is alone, all of the image is free.
                let places = scene.places_without(index, object.kind, to);
                objects.push(match scene.position(&object) == to {
                    true => object,
                    false => places.first().copied().ok_or_else(|| self.no_place())?,
                });
            }
            Self::Background { to } => backdrop.background = to,
            Self::Shade { shaded } => backdrop.shaded = shaded,
        }
        Scene::new(scene.size(), backdrop, objects)
    }

    /// The index of the target.
    fn find(&self, target: Description, scene: &Scene) -> Result<usize> {
        let mut found = target.of(scene);
        match (found.next(), found.count()) {
            (Some(object), 0) => Ok(scene.objects().iter().position(|other| other == object).unwrap_or_default()),
            (first, more) => {
                let reason = format!("the scene has {} of these, expected one", usize::from(first.is_some()) + more);
                Err(self.error(reason))
            }
        }
    }

    /// The place for an object of this kind, in the place of another, that has the same position and is nearest to it.
    fn nearest(&self, scene: &Scene, index: usize, kind: ObjectKind) -> Result<Object> {
        let old = scene.objects()[index];
        if old.kind.size == kind.size {
            return Ok(Object { kind, ..old });
        }
        let (x, y) = old.centre_px();
        let distance = |place: &Object| {
            let centre = place.centre_px();
            ((centre.0 - x).pow(2) + (centre.1 - y).pow(2), place.at.1, place.at.0)
        };
        let places = scene.places_without(index, kind, scene.position(&old));
        places.into_iter().min_by_key(distance).ok_or_else(|| self.no_place())
    }

    fn no_place(&self) -> Error {
        self.error("there is no free place for it".to_owned())
    }

    fn error(&self, reason: String) -> Error {
        Error::Edit { edit: self.to_string(), reason }
    }
}

/// A position after `to`: `the top left`.
pub(crate) fn place(position: Position) -> &'static str {
    let name = position.name();
    name.split_once(' ').map_or(name, |(_, place)| place)
}

impl fmt::Display for Edit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Recolour { target, to } => write!(f, "make the {target} {to}"),
            Self::Refill { target, to } => write!(f, "make the {target} {to}"),
            Self::Resize { target, to } => write!(f, "make the {target} {to}"),
            Self::Reshape { target, to } => write!(f, "turn the {target} into {} {to}", article(to.name())),
            Self::Replace { target, with } => write!(f, "replace the {target} with a {with}"),
            Self::Remove { target } => write!(f, "remove the {target}"),
            Self::Add { kind, position } => write!(f, "add a {kind} {position}"),
            Self::Move { target, to } => write!(f, "move the {target} to {}", place(to)),
            Self::Background { to } => write!(f, "make the background {to}"),
            Self::Shade { shaded } => {
                write!(f, "make the background {}", if shaded { "shaded" } else { "plain" })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Backdrop, Scenes};
    use std::collections::HashSet;
    use std::mem::{Discriminant, discriminant};

    const STAR: ObjectKind = ObjectKind::new(ObjectSize::Small, Fill::Plain, Colour::Red, ObjectShape::Star);

    fn scene(objects: Vec<Object>) -> Scene {
        let size = lumina_core::ImageSize::new(256, 256).unwrap();
        Scene::new(size, Backdrop::plain(Background::White), objects).unwrap()
    }

    fn star() -> Description {
        Description { shape: Some(ObjectShape::Star), ..Description::default() }
    }

    #[test]
    fn edits_change_what_they_name_alone() {
        let ring = ObjectKind { shape: ObjectShape::Ring, ..STAR };
        let [first, second] = [Object { kind: STAR, at: (1, 1) }, Object { kind: ring, at: (12, 12) }];
        let before = scene(vec![first, second]);
        for (edit, instruction, after) in [
            (
                Edit::Resize { target: star(), to: ObjectSize::Large },
                "make the star large",
                "a large red star in the top left and a small red ring in the bottom right on a white background",
            ),
            (
                Edit::Move { target: star(), to: Position::Top },
                "move the star to the top",
                "a small red star at the top and a small red ring in the bottom right on a white background",
            ),
            (
                Edit::Replace { target: star(), with: ObjectKind { colour: Colour::Blue, ..ring } },
                "replace the star with a small blue ring",
                "a small blue ring in the top left and a small red ring in the bottom right on a white background",
            ),
            (
                Edit::Reshape { target: star(), to: ObjectShape::Arrow },
                "turn the star into an arrow",
                "a small red arrow in the top left and a small red ring in the bottom right on a white background",
            ),
            (
                Edit::Remove { target: star() },
                "remove the star",
                "a small red ring in the bottom right on a white background",
            ),
            (
                Edit::Shade { shaded: true },
                "make the background shaded",
                "a small red star in the top left and a small red ring in the bottom right \
                 on a shaded white background",
            ),
        ] {
            assert_eq!(edit.to_string(), instruction);
            let edited = edit.apply(&before).unwrap();
            assert_eq!(edited.caption().to_string(), after);
            let json = serde_json::to_string(&edit).unwrap();
            assert_eq!(serde_json::from_str::<Edit>(&json).unwrap(), edit, "{json}");
        }
        let add = Edit::Add { kind: STAR, position: Position::Centre };
        let added = add.apply(&before).unwrap();
        assert_eq!(added.objects()[1], before.free_places(STAR, Position::Centre)[0]);
    }

    #[test]
    fn moves_have_one_reading() {
        let [corner, side] = [(1, 1), (1, 7)].map(|at| scene(vec![Object { kind: STAR, at }]));
        for (to, of_corner, of_side) in [
            (Position::Right, false, true),
            (Position::Bottom, false, false),
            (Position::BottomRight, true, true),
            (Position::Centre, true, true),
        ] {
            let edit = Edit::Move { target: star(), to };
            assert_eq!([&corner, &side].map(|scene| edit.has_one_reading(scene)), [of_corner, of_side], "{edit}");
        }
    }

    #[test]
    fn impossible_edits_are_errors() {
        let twins = scene(vec![Object { kind: STAR, at: (0, 0) }, Object { kind: STAR, at: (4, 0) }]);
        let message = Edit::Remove { target: star() }.apply(&twins).unwrap_err().to_string();
        assert!(message.contains("`remove the star`") && message.contains("2 of these"), "{message}");
        let message =
            Edit::Resize { target: Description { position: Some(Position::TopLeft), ..star() }, to: ObjectSize::Large }
                .apply(&twins)
                .unwrap_err()
                .to_string();
        assert!(message.contains("no free place"), "{message}");
        let one = scene(vec![Object { kind: STAR, at: (0, 0) }]);
        assert!(matches!(Edit::Remove { target: star() }.apply(&one), Err(Error::Scene { .. })));
        assert!(Edit::Move { target: star(), to: Position::Centre }.apply(&one).is_ok(), "it is alone");
    }

    #[test]
    fn all_types_are_drawn_and_possible() {
        let scenes = Scenes::new(2, Split::Train, 256).unwrap();
        let mut drawn: HashSet<Discriminant<Edit>> = HashSet::new();
        for (index, scene) in (0..200).map(|index| (index, scenes.scene(index))) {
            let edit = Edit::random(
                &scene,
                Split::Train,
                &mut SeededRng::new(1, Split::Train, crate::random::RngPurpose::Record, index),
            );
            let edited = edit.apply(&scene).unwrap();
            assert_ne!(edited, scene, "{edit}");
            assert!(Split::Train.allows(&edited), "{edit}");
            drawn.insert(discriminant(&edit));
        }
        assert_eq!(drawn.len(), N_TYPES);
        let two = (0..20).map(|index| scenes.scene(index)).find(|scene| scene.objects().len() == 2).unwrap();
        let possible: HashSet<_> = Edit::possible(&two).map(|edit| discriminant(&edit)).collect();
        assert_eq!(possible.len(), N_TYPES);
    }
}
