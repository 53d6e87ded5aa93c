//! Captions: what they state, and their canonical text.

use std::fmt;

use crate::{Backdrop, Colour, Error, Fill, ObjectKind, ObjectShape, ObjectSize, Position, Relation, Result};

/// The most objects in a caption, and in a scene.
pub const MAX_OBJECTS: usize = 4;
/// The words for the number of objects, but one.
pub(crate) const COUNTS: [(u32, &str); MAX_OBJECTS - 1] = [(2, "two"), (3, "three"), (4, "four")];

/// One object, or several alike, as a caption mentions them. What is `None` is not stated, and anything fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mention {
    /// How many, 1 to [`MAX_OBJECTS`].
    pub count: u32,
    /// Their size.
    pub size: Option<ObjectSize>,
    /// Their fill. Canonical captions say nothing of a plain one.
    pub fill: Fill,
    /// Their colour.
    pub colour: Option<Colour>,
    /// Their shape.
    pub shape: ObjectShape,
    /// Their position.
    pub position: Option<Position>,
}

impl Mention {
    /// One object of this kind, anywhere.
    pub const fn of(kind: ObjectKind) -> Self {
        let ObjectKind { size, fill, colour, shape } = kind;
        Self { count: 1, size: Some(size), fill, colour: Some(colour), shape, position: None }
    }

    /// The kind of the objects, if both size and colour are stated.
    pub fn kind(&self) -> Option<ObjectKind> {
        Some(ObjectKind { size: self.size?, fill: self.fill, colour: self.colour?, shape: self.shape })
    }
}

/// The content of a caption.
///
/// `Display` writes the canonical text, `FromStr` parses it. There are two forms, and what is not stated is left out:
///
/// - `a large red circle in the top left, two small striped blue squares and an arrow on a shaded white background`;
/// - `a small red circle to the left of a large dotted blue square on a black background`.
///
/// People write the same in many other ways: see `Wording`.
///
/// ```
/// use lumina_scenes::{Backdrop, Background, Caption};
///
/// let text = "a small red circle above a large striped blue star on a sky blue background";
/// let caption: Caption = text.parse()?;
/// assert_eq!(caption.backdrop(), Some(Backdrop::plain(Background::SkyBlue)));
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
    backdrop: Option<Backdrop>,
}

impl Caption {
    /// The caption that lists objects.
    ///
    /// # Errors
    /// [`Error::ObjectCount`] if there are none, or more than [`MAX_OBJECTS`], or a mention is of none.
    pub fn list(mentions: Vec<Mention>, backdrop: Option<Backdrop>) -> Result<Self> {
        let found = mentions.iter().fold(0usize, |sum, mention| sum.saturating_add(mention.count as usize));
        if found == 0 || found > MAX_OBJECTS || mentions.iter().any(|mention| mention.count == 0) {
            return Err(Error::ObjectCount { found, most: MAX_OBJECTS });
        }
        Ok(Self { mentions, relation: None, backdrop })
    }

    /// The caption that states the relation of two objects. Their counts and positions are not stated.
    pub fn relation(first: Mention, relation: Relation, second: Mention, backdrop: Option<Backdrop>) -> Self {
        let mentions = [first, second].map(|mention| Mention { count: 1, position: None, ..mention }).to_vec();
        Self { mentions, relation: Some(relation), backdrop }
    }

    /// The objects, one to four in all, in the order in which they are mentioned.
    pub fn mentions(&self) -> &[Mention] {
        &self.mentions
    }

    /// A mention of each object alone.
    pub(crate) fn objects(&self) -> Vec<Mention> {
        let one = |mention: &Mention| Mention { count: 1, ..*mention };
        self.mentions.iter().flat_map(|mention| std::iter::repeat_n(one(mention), mention.count as usize)).collect()
    }

    /// The relation of the first object to the second, if the caption states it. It then mentions just these two.
    pub fn stated_relation(&self) -> Option<Relation> {
        self.relation
    }

    /// What is behind the objects, if the caption states it.
    pub fn backdrop(&self) -> Option<Backdrop> {
        self.backdrop
    }

    /// Whether both state the same in the same form, regardless of the order in which they list objects: one above the
    /// other is not the same as the other below it.
    pub fn is_equivalent_to(&self, other: &Self) -> bool {
        let sorted = |caption: &Self| {
            let mut objects = caption.objects();
            if caption.relation.is_none() {
                objects.sort_unstable();
            }
            (objects, caption.relation, caption.backdrop)
        };
        sorted(self) == sorted(other)
    }
}

impl ObjectShape {
    /// The name of several: `circles`.
    pub(crate) const fn plural(self) -> &'static str {
        match self {
            Self::Circle => "circles",
            Self::Square => "squares",
            Self::Triangle => "triangles",
            Self::Cross => "crosses",
            Self::Star => "stars",
            Self::Heart => "hearts",
            Self::Ring => "rings",
            Self::Moon => "moons",
            Self::Arrow => "arrows",
        }
    }
}

impl fmt::Display for Mention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let attributes = [
            self.size.map(ObjectSize::name),
            (self.fill != Fill::Plain).then(|| self.fill.name()),
            self.colour.map(Colour::name),
        ];
        let shape = if self.count > 1 { self.shape.plural() } else { self.shape.name() };
        let words: Vec<&str> = attributes.into_iter().flatten().chain([shape]).collect();
        let words = words.join(" ");
        match COUNTS.iter().find(|(count, _)| *count == self.count) {
            Some((_, count)) => write!(f, "{count} {words}")?,
            None => write!(f, "{} {words}", article(&words))?,
        }
        self.position.map_or(Ok(()), |position| write!(f, " {position}"))
    }
}

/// The indefinite article of a word.
pub(crate) fn article(word: &str) -> &'static str {
    if word.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" }
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
        self.backdrop.map_or(Ok(()), |backdrop| write!(f, " on a {backdrop} background"))
    }
}

impl From<Caption> for String {
    fn from(caption: Caption) -> Self {
        caption.to_string()
    }
}
