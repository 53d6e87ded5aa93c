//! Questions about a scene, with their answers.

use std::fmt;

use crate::random::SeededRng;
use crate::{
    Background, Colour, Description, Fill, Mention, Object, ObjectShape, ObjectSize, Position, Relation, Scene,
};

/// How often a random question is drawn, before another kind is tried.
const TRIES: usize = 20;
/// The words for numbers of objects.
const NUMBERS: [&str; 5] = ["none", "one", "two", "three", "four"];

/// A question about a scene. `Display` writes the canonical text, [`Question::answer`] the answer.
///
/// ```
/// use lumina_scenes::{Question, Scenes, Split};
///
/// let scene = Scenes::new(7, Split::Test, 256)?.scene(0);
/// assert_eq!(Question::BackgroundColour.to_string(), "what colour is the background?");
/// assert_eq!(Question::BackgroundColour.answer(&scene), Some(scene.backdrop().background.to_string()));
/// # Ok::<(), lumina_scenes::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Question {
    /// `how many red circles are there?`, answered by a word from `none` to `four`.
    Count(Description),
    /// `what colour is the circle?`
    ColourOf(Description),
    /// `what shape is the red object?`
    ShapeOf(Description),
    /// `what fill does the red circle have?`: `plain`, `striped` or `dotted`.
    FillOf(Description),
    /// `what size is the red circle?`
    SizeOf(Description),
    /// `what is in the top left?`: `a small red circle`, or `nothing`.
    At(Position),
    /// `where is the red circle?`
    Where(Description),
    /// `is there a red circle?`: `yes` or `no`.
    IsThere(Description),
    /// `is the red circle above the star?`: `yes` or `no`.
    IsRelated(Description, Relation, Description),
    /// `what is above the star?` of two objects: `a small red circle`, or `nothing`.
    Related(Relation, Description),
    /// `is the circle red?`: `yes` or `no`.
    IsColour(Description, Colour),
    /// `what colour is the background?`
    BackgroundColour,
    /// `is the background white?`: `yes` or `no`.
    IsBackground(Background),
    /// `is the background shaded?`: `yes` or `no`.
    IsShaded,
    /// `which is larger, the red circle or the star?`: `the red circle`.
    Larger(Description, Description),
}

/// How many variants [`Question`] has.
const N_TYPES: u32 = 15;

/// A mention of an object without its position: `a small red circle`.
fn mention(object: &Object) -> String {
    Mention::of(object.kind).to_string()
}

fn yes(is_so: bool) -> String {
    if is_so { "yes" } else { "no" }.to_owned()
}

/// The only object of a scene that fits.
fn only<'a>(description: &'a Description, scene: &'a Scene) -> Option<&'a Object> {
    let mut found = description.of(scene);
    let object = found.next()?;
    found.next().is_none().then_some(object)
}

impl Question {
    /// The answer; `None` if the question makes no sense of this scene, such as that for the colour of the circle where
    /// there are two.
    pub fn answer(&self, scene: &Scene) -> Option<String> {
        let object = |description| only(description, scene);
        Some(match self {
            Self::Count(description) => (*NUMBERS.get(description.of(scene).count())?).to_owned(),
            Self::ColourOf(description) => object(description)?.kind.colour.to_string(),
            Self::ShapeOf(description) => object(description)?.kind.shape.to_string(),
            Self::FillOf(description) => object(description)?.kind.fill.to_string(),
            Self::SizeOf(description) => object(description)?.kind.size.to_string(),
            Self::At(position) => {
                let description = Description { position: Some(*position), ..Description::default() };
                match description.of(scene).count() {
                    0 => "nothing".to_owned(),
                    _ => mention(only(&description, scene)?),
                }
            }
            Self::Where(description) => scene.position(object(description)?).to_string(),
            Self::IsThere(description) => yes(description.of(scene).next().is_some()),
            Self::IsRelated(first, relation, second) => {
                yes(relation.clearly_holds(object(first)?.centre_px(), object(second)?.centre_px())?)
            }
            Self::Related(relation, description) => {
                let object = object(description)?;
                let other = match scene.objects() {
                    [first, second] => {
                        if first == object {
                            second
                        } else {
                            first
                        }
                    }
                    _ => return None,
                };
                if relation.clearly_holds(other.centre_px(), object.centre_px())? {
                    mention(other)
                } else {
                    "nothing".to_owned()
                }
            }
            Self::IsColour(description, colour) => yes(object(description)?.kind.colour == *colour),
            Self::BackgroundColour => scene.backdrop().background.to_string(),
            Self::IsBackground(background) => yes(scene.backdrop().background == *background),
            Self::IsShaded => yes(scene.backdrop().shaded),
            Self::Larger(first, second) => match (object(first)?.kind.size, object(second)?.kind.size) {
                (ObjectSize::Large, ObjectSize::Small) => format!("the {first}"),
                (ObjectSize::Small, ObjectSize::Large) => format!("the {second}"),
                _ => return None,
            },
        })
    }

    /// A question with its answer. All kinds are equally likely where they make sense, and so are `yes` and `no`.
    pub(crate) fn random(scene: &Scene, rng: &mut SeededRng) -> (Self, String) {
        let mut kinds: Vec<u32> = (0..N_TYPES).collect();
        rng.shuffle(&mut kinds);
        for kind in kinds {
            // Chosen before the question, so that answers which are mostly right are not mostly given.
            let wanted = rng.below(2) == 0;
            for _ in 0..TRIES {
                let Some(question) = Self::draw(kind, scene, wanted, rng) else { continue };
                match question.answer(scene) {
                    Some(answer) if answer == yes(!wanted) && question != Self::IsShaded => {}
                    Some(answer) => return (question, answer),
                    None => {}
                }
            }
        }
        (Self::BackgroundColour, scene.backdrop().background.to_string())
    }

    /// A question of a kind, which may make no sense of the scene.
    fn draw(kind: u32, scene: &Scene, wanted: bool, rng: &mut SeededRng) -> Option<Self> {
        let object = rng.choose(scene.objects())?;
        // What is asked for must not be in the question.
        let target = |without: &dyn Fn(&Description) -> bool, rng: &mut SeededRng| {
            let mut descriptions = Description::only(scene, &object);
            descriptions.retain(without);
            let usual = rng.below(2) == 0;
            if usual { descriptions.first().copied() } else { rng.choose(&descriptions) }
        };
        let any = |_: &Description| true;
        let choose = |rng: &mut SeededRng, other: &Object| rng.choose(&Description::only(scene, other));
        Some(match kind {
            0 => Self::Count(match rng.below(4) {
                0 => Description::default(),
                _ if wanted || rng.below(2) == 0 => some_of(&object, rng),
                _ => anything(rng),
            }),
            1 => Self::ColourOf(target(&|it| it.colour.is_none(), rng)?),
            2 => Self::ShapeOf(target(&|it| it.shape.is_none(), rng)?),
            3 => Self::FillOf(target(&|it| it.fill.is_none(), rng)?),
            4 => Self::SizeOf(target(&|it| it.size.is_none(), rng)?),
            5 if wanted => Self::At(scene.position(&object)),
            5 => Self::At(rng.choose(&Position::ALL)?),
            6 => Self::Where(target(&|it| it.position.is_none(), rng)?),
            7 if wanted => Self::IsThere(some_of(&object, rng)),
            7 => Self::IsThere(anything(rng)),
            8 | 14 => {
                let other = rng.choose(scene.objects()).filter(|other| *other != object)?;
                let (first, second) = (target(&any, rng)?, choose(rng, &other)?);
                if kind == 8 {
                    Self::IsRelated(first, rng.choose(&Relation::ALL)?, second)
                } else {
                    Self::Larger(first, second)
                }
                .without_sizes()?
            }
            9 => Self::Related(rng.choose(&Relation::ALL)?, target(&any, rng)?),
            10 => Self::IsColour(target(&|it| it.colour.is_none(), rng)?, rng.choose(&Colour::ALL)?),
            11 => Self::BackgroundColour,
            12 => Self::IsBackground(rng.choose(&Background::ALL)?),
            _ => Self::IsShaded,
        })
    }

    /// The question, unless it asks for the larger of two whose sizes it states.
    fn without_sizes(self) -> Option<Self> {
        match self {
            Self::Larger(first, second) if first.size.is_some() || second.size.is_some() => None,
            _ => Some(self),
        }
    }
}

/// One or two of an object's size, fill, colour and shape. Never all: a question names no kind that is held out.
fn some_of(object: &Object, rng: &mut SeededRng) -> Description {
    let kind = object.kind;
    let none = Description::default();
    let (size, fill, colour, shape) = (Some(kind.size), Some(kind.fill), Some(kind.colour), Some(kind.shape));
    match rng.below(7) {
        0 | 1 => Description { colour, shape, ..none },
        2 => Description { size, shape, ..none },
        3 => Description { colour, ..none },
        4 if kind.fill != Fill::Plain => Description { fill, shape, ..none },
        5 if kind.fill != Fill::Plain => Description { fill, ..none },
        _ => Description { shape, ..none },
    }
}

/// The like of what is asked for, whether there is such an object or not.
fn anything(rng: &mut SeededRng) -> Description {
    const PROOF: &str = "the lists are not empty";
    let kind = crate::ObjectKind {
        size: rng.choose(&ObjectSize::ALL).expect(PROOF),
        fill: rng.choose(&Fill::ALL).expect(PROOF),
        colour: rng.choose(&Colour::ALL).expect(PROOF),
        shape: rng.choose(&ObjectShape::ALL).expect(PROOF),
    };
    some_of(&Object { kind, at: (0, 0) }, rng)
}

/// The plural of a description.
fn plural(description: &Description) -> String {
    let one = description.to_string();
    match description.shape {
        Some(shape) => one.replace(shape.name(), shape.plural()),
        None => one.replace("object", "objects"),
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(description) => write!(f, "how many {} are there?", plural(description)),
            Self::ColourOf(description) => write!(f, "what colour is the {description}?"),
            Self::ShapeOf(description) => write!(f, "what shape is the {description}?"),
            Self::FillOf(description) => write!(f, "what fill does the {description} have?"),
            Self::SizeOf(description) => write!(f, "what size is the {description}?"),
            Self::At(position) => write!(f, "what is {position}?"),
            Self::Where(description) => write!(f, "where is the {description}?"),
            Self::IsThere(description) => {
                let description = description.to_string();
                write!(f, "is there {} {description}?", crate::caption::article(&description))
            }
            Self::IsRelated(first, relation, second) => write!(f, "is the {first} {relation} the {second}?"),
            Self::Related(relation, description) => write!(f, "what is {relation} the {description}?"),
            Self::IsColour(description, colour) => write!(f, "is the {description} {colour}?"),
            Self::BackgroundColour => f.write_str("what colour is the background?"),
            Self::IsBackground(background) => write!(f, "is the background {background}?"),
            Self::IsShaded => f.write_str("is the background shaded?"),
            Self::Larger(first, second) => write!(f, "which is larger, the {first} or the {second}?"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::RngPurpose;
    use crate::{Backdrop, ObjectKind, Scenes, Split};
    use std::collections::HashMap;
    use std::mem::discriminant;

    #[test]
    fn answers_are_right() {
        let star = ObjectKind::new(ObjectSize::Small, Fill::Striped, Colour::Red, ObjectShape::Star);
        let ring = ObjectKind::new(ObjectSize::Large, Fill::Plain, Colour::Blue, ObjectShape::Ring);
        let size = lumina_core::ImageSize::new(256, 256).unwrap();
        let objects = vec![Object { kind: star, at: (1, 1) }, Object { kind: ring, at: (9, 2) }];
        let scene = Scene::new(size, Backdrop { background: Background::SkyBlue, shaded: true }, objects).unwrap();
        let none = Description::default();
        let star = Description { shape: Some(ObjectShape::Star), ..none };
        let blue = Description { colour: Some(Colour::Blue), ..none };
        for (question, text, answer) in [
            (Question::Count(none), "how many objects are there?", Some("two")),
            (Question::Count(star), "how many stars are there?", Some("one")),
            (
                Question::Count(Description { fill: Some(Fill::Dotted), ..none }),
                "how many dotted objects are there?",
                Some("none"),
            ),
            (Question::ColourOf(star), "what colour is the star?", Some("red")),
            (Question::ColourOf(none), "what colour is the object?", None),
            (Question::ShapeOf(blue), "what shape is the blue object?", Some("ring")),
            (Question::FillOf(star), "what fill does the star have?", Some("striped")),
            (Question::SizeOf(blue), "what size is the blue object?", Some("large")),
            (Question::At(Position::TopLeft), "what is in the top left?", Some("a small striped red star")),
            (Question::At(Position::Bottom), "what is at the bottom?", Some("nothing")),
            (Question::Where(star), "where is the star?", Some("in the top left")),
            (Question::IsThere(blue), "is there a blue object?", Some("yes")),
            (
                Question::IsRelated(star, Relation::LeftOf, blue),
                "is the star to the left of the blue object?",
                Some("yes"),
            ),
            (Question::IsRelated(star, Relation::Above, blue), "is the star above the blue object?", None),
            (
                Question::Related(Relation::RightOf, star),
                "what is to the right of the star?",
                Some("a large blue ring"),
            ),
            (Question::Related(Relation::LeftOf, star), "what is to the left of the star?", Some("nothing")),
            (Question::IsColour(star, Colour::Blue), "is the star blue?", Some("no")),
            (Question::BackgroundColour, "what colour is the background?", Some("sky blue")),
            (Question::IsBackground(Background::White), "is the background white?", Some("no")),
            (Question::IsShaded, "is the background shaded?", Some("yes")),
            (Question::Larger(star, blue), "which is larger, the star or the blue object?", Some("the blue object")),
        ] {
            assert_eq!(question.to_string(), text);
            let answer = answer.map(str::to_owned);
            assert_eq!(question.answer(&scene), answer, "{text}");
        }
    }

    #[test]
    fn all_kinds_occur_and_answers_are_balanced() {
        let scenes = Scenes::new(6, Split::Train, 256).unwrap();
        let mut counts = HashMap::new();
        let mut answers: HashMap<String, u32> = HashMap::new();
        for index in 0..3000 {
            let scene = scenes.scene(index);
            let mut rng = SeededRng::new(3, Split::Train, RngPurpose::Record, index);
            let (question, answer) = Question::random(&scene, &mut rng);
            assert_eq!(question.answer(&scene).as_ref(), Some(&answer), "{question}");
            *counts.entry(discriminant(&question)).or_insert(0) += 1;
            *answers.entry(answer).or_default() += 1;
        }
        assert_eq!(counts.len(), N_TYPES as usize);
        assert!(counts.values().all(|&count| count > 40), "{counts:?}");
        let (yes, no) = (f64::from(answers["yes"]), f64::from(answers["no"]));
        assert!((0.85..1.18).contains(&(yes / no)), "{yes} and {no}");
        for answer in ["none", "one", "two", "three", "nothing", "plain", "dotted", "in the centre"] {
            assert!(answers[answer] > 5, "{answer}");
        }
    }
}
