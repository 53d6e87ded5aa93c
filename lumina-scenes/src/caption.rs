//! Captions: what they state, and their text.

use std::fmt;

use crate::{Background, Error, ObjectKind, Position, Relation, Result};

/// The most objects in a caption, and in a scene.
pub const MAX_OBJECTS: usize = 3;

/// An object as a caption mentions it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mention {
    /// Its size, colour and shape.
    pub kind: ObjectKind,
    /// Its position, if the caption states it.
    pub position: Option<Position>,
}

/// The content of a caption.
///
/// `Display` writes the text, `FromStr` parses it. There are two forms:
///
/// - `a large red circle in the top left, a small blue square in the centre and a small green cross in the bottom
///   right on a white background` (positions are optional);
/// - `a small red circle to the left of a large blue square on a black background`.
///
/// ```
/// use lumina_scenes::{Background, Caption};
///
/// let text = "a small red circle above a large blue square on a sky blue background";
/// let caption: Caption = text.parse()?;
/// assert_eq!(caption.background(), Background::SkyBlue);
/// assert_eq!(caption.to_string(), text);
///
/// let wrong = "a small pink circle on a white background".parse::<Caption>();
/// assert!(wrong.is_err_and(|error| error.to_string().contains("at byte 8, found `pink`")));
/// # Ok::<(), lumina_scenes::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Caption {
    mentions: Vec<Mention>,
    relation: Option<Relation>,
    background: Background,
}

impl Caption {
    /// The caption that lists objects.
    ///
    /// # Errors
    /// [`Error::ObjectCount`] if there are none, or more than [`MAX_OBJECTS`].
    pub fn list(mentions: Vec<Mention>, background: Background) -> Result<Self> {
        if mentions.is_empty() || mentions.len() > MAX_OBJECTS {
            return Err(Error::ObjectCount { found: mentions.len(), most: MAX_OBJECTS });
        }
        Ok(Self { mentions, relation: None, background })
    }

    /// The caption that states the relation of two objects.
    pub fn relation(first: ObjectKind, relation: Relation, second: ObjectKind, background: Background) -> Self {
        let mentions = [first, second].map(|kind| Mention { kind, position: None }).to_vec();
        Self { mentions, relation: Some(relation), background }
    }

    /// The objects, one to three, in the order in which they are mentioned.
    pub fn mentions(&self) -> &[Mention] {
        &self.mentions
    }

    /// The relation of the first object to the second, if the caption states it. It then mentions just these two.
    pub fn stated_relation(&self) -> Option<Relation> {
        self.relation
    }

    /// The background.
    pub fn background(&self) -> Background {
        self.background
    }

    /// Whether both state the same, regardless of the order in which they list objects.
    pub fn is_equivalent_to(&self, other: &Self) -> bool {
        let sorted = |caption: &Self| {
            let mut caption = caption.clone();
            if caption.relation.is_none() {
                caption.mentions.sort_unstable();
            }
            caption
        };
        sorted(self) == sorted(other)
    }
}

impl fmt::Display for Mention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a {}", self.kind)?;
        self.position.map_or(Ok(()), |position| write!(f, " {position}"))
    }
}

impl fmt::Display for Caption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mention) in self.mentions.iter().enumerate() {
            match self.relation {
                _ if index == 0 => {}
                Some(relation) => write!(f, " {relation} ")?,
                None if index + 1 == self.mentions.len() => f.write_str(" and ")?,
                None => f.write_str(", ")?,
            }
            write!(f, "{mention}")?;
        }
        write!(f, " on a {} background", self.background)
    }
}

impl From<Caption> for String {
    fn from(caption: Caption) -> Self {
        caption.to_string()
    }
}
