//! What a caption says, and how it says it.

use std::fmt;

use crate::{Background, Error, Kind, MAX_OBJECTS, Place, Relation, Result};

/// An object as a caption mentions it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mention {
    /// What it looks like.
    pub kind: Kind,
    /// Where it is, where the caption says so.
    pub place: Option<Place>,
}

/// What a caption says.
///
/// `Display` writes the caption; `FromStr` reads it. There are two forms:
///
/// - `a large red circle in the top left, a small blue square in the centre and a small green cross in the bottom
///   right on a white background` (the places can be left out);
/// - `a small red circle to the left of a large blue square on a black background`.
///
/// ```
/// use lumina_scenes::{Background, Description};
///
/// let caption = "a small red circle above a large blue square on a sky blue background";
/// let description: Description = caption.parse()?;
/// assert_eq!(description.background(), Background::SkyBlue);
/// assert_eq!(description.to_string(), caption);
///
/// let wrong = "a small pink circle on a white background".parse::<Description>();
/// assert!(wrong.is_err_and(|error| error.to_string().contains("at byte 8, found `pink`")));
/// # Ok::<(), lumina_scenes::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Description {
    mentions: Vec<Mention>,
    relation: Option<Relation>,
    background: Background,
}

impl Description {
    /// The description that lists objects.
    ///
    /// # Errors
    /// [`Error::ObjectCount`] where there are none, or more than [`MAX_OBJECTS`].
    pub fn list(mentions: Vec<Mention>, background: Background) -> Result<Self> {
        if mentions.is_empty() || mentions.len() > MAX_OBJECTS {
            return Err(Error::ObjectCount { found: mentions.len(), most: MAX_OBJECTS });
        }
        Ok(Self { mentions, relation: None, background })
    }

    /// The description that says how one object lies to another.
    pub fn relation(first: Kind, relation: Relation, second: Kind, background: Background) -> Self {
        let mentions = [first, second].map(|kind| Mention { kind, place: None }).to_vec();
        Self { mentions, relation: Some(relation), background }
    }

    /// The objects, one to three, in the order in which they are mentioned.
    pub fn mentions(&self) -> &[Mention] {
        &self.mentions
    }

    /// How the first object lies to the second, where that is what the caption says; it then has just these two.
    pub fn stated_relation(&self) -> Option<Relation> {
        self.relation
    }

    /// What is behind the objects.
    pub fn background(&self) -> Background {
        self.background
    }

    /// Whether both say the same, whatever the order in which they list the objects.
    pub fn agrees_with(&self, other: &Self) -> bool {
        let in_order = |description: &Self| {
            let mut description = description.clone();
            if description.relation.is_none() {
                description.mentions.sort_unstable();
            }
            description
        };
        in_order(self) == in_order(other)
    }
}

impl fmt::Display for Mention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a {}", self.kind)?;
        self.place.map_or(Ok(()), |place| write!(f, " {place}"))
    }
}

impl fmt::Display for Description {
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

impl TryFrom<String> for Description {
    type Error = Error;
    fn try_from(caption: String) -> Result<Self> {
        caption.parse()
    }
}

impl From<Description> for String {
    fn from(description: Description) -> Self {
        description.to_string()
    }
}
