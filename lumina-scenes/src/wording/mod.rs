//! Writes captions, instructions and questions in many ways, as people do.

mod captions;
mod edits;
mod questions;
mod synonyms;

use crate::caption::article;
use crate::random::{RngPurpose, SeededRng};
use crate::{Description, Fill, ObjectShape, Position, Relation, Split};
use synonyms::{MISSPELT, Names};

/// How a text is written, but for its words.
#[derive(Debug, Clone, Copy)]
struct Style {
    /// In percent, how often another word than the canonical one is chosen.
    synonyms: u32,
    articles: bool,
    misspelt: bool,
    case: Case,
}

#[derive(Debug, Clone, Copy)]
enum Case {
    Lower,
    FirstUpper,
    Upper,
}

/// Writes what a [`Caption`](crate::Caption), an [`Edit`](crate::Edit) or a [`Question`](crate::Question) says, each
/// time in other words: synonyms, other orders, missing articles, capitals, misspellings. One text in three is the
/// canonical one.
///
/// ```
/// use lumina_scenes::{Caption, Wording};
///
/// let caption: Caption = "a large red circle on a white background".parse()?;
/// let mut wording = Wording::new(0);
/// let texts: std::collections::BTreeSet<String> = (0..100).map(|_| wording.caption(&caption)).collect();
/// assert!(texts.len() > 30 && texts.contains("a large red circle on a white background"));
/// # Ok::<(), lumina_scenes::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Wording {
    rng: SeededRng,
    style: Style,
}

impl Wording {
    /// The texts of a seed.
    pub fn new(seed: u64) -> Self {
        Self::of_record(seed, Split::Train, 0)
    }

    /// The texts of a record.
    pub(crate) fn of_record(seed: u64, split: Split, index: u64) -> Self {
        let style = Style { synonyms: 0, articles: true, misspelt: false, case: Case::Lower };
        Self { rng: SeededRng::new(seed, split, RngPurpose::Wording, index), style }
    }

    /// The second question of a conversation about its image, which asks for a caption.
    pub(crate) fn describe(&mut self, canonical: &str) -> String {
        if self.is_canonical() {
            return canonical.to_owned();
        }
        let text = self.pick(&["describe the image", "describe it", "describe the picture", "what do you see?"]);
        self.finish(text.to_owned(), &["", "."])
    }

    /// Whether the next text is the canonical one. If not, its style is drawn.
    fn is_canonical(&mut self) -> bool {
        let case = match self.rng.below(40) {
            0..28 => Case::Lower,
            28..38 => Case::FirstUpper,
            _ => Case::Upper,
        };
        self.style = Style {
            synonyms: self.rng.choose(&[10, 35, 60]).unwrap_or_default(),
            articles: !self.one_in(5),
            misspelt: self.one_in(10),
            case,
        };
        self.one_in(3)
    }

    fn one_in(&mut self, n: u32) -> bool {
        self.rng.below(n) == 0
    }

    /// One of several, all equally likely.
    fn pick(&mut self, names: &[&'static str]) -> &'static str {
        self.rng.choose(names).unwrap_or_default()
    }

    /// The canonical name, or another.
    fn name(&mut self, names: Names) -> &'static str {
        match names {
            [canonical] => canonical,
            [_, others @ ..] if self.rng.below(100) < self.style.synonyms => self.pick(others),
            _ => names.first().copied().unwrap_or_default(),
        }
    }

    fn shape(&mut self, shape: ObjectShape, several: bool) -> &'static str {
        let names = synonyms::shape(shape)[usize::from(several)];
        // Several are rare, so that each of their names must be often used.
        if several && self.one_in(2) { self.pick(names) } else { self.name(names) }
    }

    fn relation(&mut self, relation: Relation) -> &'static str {
        let names = synonyms::relation(relation);
        if self.one_in(2) { self.pick(names) } else { self.name(names) }
    }

    fn background(&mut self) -> &'static str {
        self.name(&["background", "backdrop"])
    }

    /// A description, without an article.
    fn description(&mut self, description: &Description, several: bool) -> String {
        let mut words: Vec<&str> = Vec::new();
        words.extend(description.size.map(|size| self.name(synonyms::size(size))));
        // Behind the shape one time in four: `the star with stripes`.
        let behind = description.fill.is_some_and(|fill| fill != Fill::Plain) && self.one_in(4);
        words.extend(description.fill.filter(|_| !behind).map(|fill| self.name(synonyms::fill(fill))));
        words.extend(description.colour.map(|colour| self.name(synonyms::colour(colour))));
        let thing = match (description.shape, words.is_empty()) {
            (Some(shape), _) => self.shape(shape, several),
            (None, false) if !several && description.position.is_none() => {
                self.name(&["object", "one", "thing", "shape"])
            }
            _ if several => self.name(&["objects", "things", "shapes"]),
            _ => self.name(&["object", "thing", "shape"]),
        };
        words.push(thing);
        words.extend(description.fill.filter(|_| behind).map(|fill| self.name(synonyms::with_fill(fill))));
        words.extend(description.position.map(|position| self.position(position)));
        words.join(" ")
    }

    /// A position that stays with the object before it, whatever follows: `the star on the left`, not `the star left`.
    fn position(&mut self, position: Position) -> &'static str {
        let name = self.name(synonyms::position(position));
        if ["in ", "on ", "at "].iter().any(|start| name.starts_with(start)) { name } else { position.name() }
    }

    /// A description with its article.
    fn the(&mut self, description: &Description) -> String {
        format!("the {}", self.description(description, false))
    }

    /// The text with its articles, spelling, end and case.
    fn finish(&mut self, text: String, ends: &[&'static str]) -> String {
        let mut words: Vec<String> = text.split(' ').map(str::to_owned).collect();
        if !self.style.articles {
            words.retain(|word| !matches!(word.as_str(), "a" | "an" | "the"));
        }
        if self.style.misspelt {
            for word in &mut words {
                let correct = word.trim_end_matches([',', ':']);
                let found = MISSPELT.iter().find(|(name, _)| *name == correct);
                if let Some((name, wrong)) = found
                    && !self.one_in(3)
                {
                    *word = word.replacen(name, self.pick(wrong), 1);
                }
            }
        }
        let mut text = words.join(" ");
        if !text.ends_with(['?', '.', '!']) {
            text.push_str(self.pick(ends));
        }
        match self.style.case {
            Case::Lower => text,
            Case::Upper => text.to_uppercase(),
            Case::FirstUpper => {
                let mut letters = text.chars();
                letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
            }
        }
    }
}

/// A noun with its indefinite article.
fn a(noun: &str) -> String {
    format!("{} {noun}", article(noun))
}
