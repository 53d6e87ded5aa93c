//! Parses captions.

use std::str::FromStr;

use crate::attributes::Attribute;
use crate::{Background, Caption, Error, MAX_OBJECTS, Mention, ObjectKind, Position, Relation, Result};

/// A recursive-descent parser of captions. A comma is a word of its own.
struct CaptionParser<'a> {
    text: &'a str,
    words: Vec<&'a str>,
    /// Index of the next word.
    next: usize,
}

impl<'a> CaptionParser<'a> {
    fn new(text: &'a str) -> Self {
        let words = text.split_whitespace().flat_map(|chunk| {
            // `split_inclusive` leaves the comma attached to its word: "left,".
            chunk.split_inclusive(',').flat_map(|piece| match piece.strip_suffix(',') {
                Some(word) => [word, &piece[word.len()..]],
                None => [piece, ""],
            })
        });
        Self { text, words: words.filter(|word| !word.is_empty()).collect(), next: 0 }
    }

    /// Consumes `phrase` if it comes next.
    fn accept(&mut self, phrase: &str) -> bool {
        let mut end = self.next;
        for word in phrase.split(' ') {
            if self.words.get(end) != Some(&word) {
                return false;
            }
            end += 1;
        }
        self.next = end;
        true
    }

    /// Consumes a value of an attribute if it comes next. No name is a prefix of another, so the order does not matter.
    fn accept_attribute<A: Attribute>(&mut self) -> Option<A> {
        A::all().iter().copied().find(|value| self.accept(value.name()))
    }

    fn expect(&mut self, phrase: &str) -> Result<()> {
        if self.accept(phrase) { Ok(()) } else { Err(self.unexpected(format!("`{phrase}`"))) }
    }

    fn expect_attribute<A: Attribute>(&mut self) -> Result<A> {
        self.accept_attribute().ok_or_else(|| {
            let names: Vec<&str> = A::all().iter().map(|value| value.name()).collect();
            self.unexpected(format!("{} ({})", A::DESCRIPTION, names.join(", ")))
        })
    }

    /// The error for the next word.
    fn unexpected(&self, expected: String) -> Error {
        let (at, found) = match self.words.get(self.next) {
            Some(word) => (word.as_ptr().addr() - self.text.as_ptr().addr(), format!("`{word}`")),
            None => (self.text.len(), "the end".to_owned()),
        };
        Error::Caption { text: self.text.to_owned(), at, found, expected }
    }

    fn mention(&mut self) -> Result<Mention> {
        self.expect("a")?;
        let kind = ObjectKind {
            size: self.expect_attribute()?,
            colour: self.expect_attribute()?,
            shape: self.expect_attribute()?,
        };
        Ok(Mention { kind, position: self.accept_attribute::<Position>() })
    }

    fn background(&mut self) -> Result<Background> {
        self.expect("on a")?;
        let background = self.expect_attribute()?;
        self.expect("background")?;
        if self.next < self.words.len() { Err(self.unexpected("the end".to_owned())) } else { Ok(background) }
    }

    fn caption(&mut self) -> Result<Caption> {
        let first = self.mention()?;
        if first.position.is_none()
            && let Some(relation) = self.accept_attribute::<Relation>()
        {
            let second = self.mention()?;
            if second.position.is_some() {
                return Err(self.unexpected("no position after a relation".to_owned()));
            }
            return Ok(Caption::relation(first.kind, relation, second.kind, self.background()?));
        }
        let mut mentions = vec![first];
        loop {
            // Checked early, so that a long text is not parsed to its end.
            if mentions.len() > MAX_OBJECTS {
                return Err(Error::ObjectCount { found: mentions.len(), most: MAX_OBJECTS });
            }
            if self.accept(",") {
                mentions.push(self.mention()?);
            } else if self.accept("and") {
                mentions.push(self.mention()?);
                break;
            } else if mentions.len() == 1 {
                break;
            } else {
                return Err(self.unexpected("`,` or `and`".to_owned()));
            }
        }
        let background = self.background()?;
        Caption::list(mentions, background)
    }
}

impl FromStr for Caption {
    type Err = Error;

    /// Parses a caption. Any whitespace separates words.
    ///
    /// # Errors
    /// [`Error::Caption`] with the first word that is wrong, and [`Error::ObjectCount`].
    fn from_str(caption: &str) -> Result<Self> {
        CaptionParser::new(caption).caption()
    }
}

impl TryFrom<String> for Caption {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_position_and_expectation() {
        for (caption, message) in [
            ("", "expected `a` at byte 0, found the end"),
            ("a huge red circle", "expected a size (small, large) at byte 2, found `huge`"),
            ("a small  red moon", "expected a shape (circle, square, triangle, cross) at byte 13, found `moon`"),
            ("a small red circle", "expected `on a` at byte 18, found the end"),
            ("a small red circle in the corner on a white background", "expected `on a` at byte 19, found `in`"),
            (
                "a small red circle, a small red cross on a white background",
                "expected `,` or `and` at byte 38, found `on`",
            ),
            ("a small red circle on a white background.", "expected `background` at byte 30, found `background.`"),
            ("a small red circle on a white background and", "expected the end at byte 41, found `and`"),
            ("a small red circle above a large red cross at the top on a white background", "expected no position"),
            ("é", "expected `a` at byte 0, found `é`"),
        ] {
            let error = caption.parse::<Caption>().unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
        let four = format!("{0}, {0}, {0} and {0} on a white background", "a small red circle");
        assert!(matches!(four.parse::<Caption>(), Err(Error::ObjectCount { found: 4, most: 3 })));
    }

    #[test]
    fn captions_are_equivalent_in_any_order() {
        let parse = |caption: &str| caption.parse::<Caption>().unwrap();
        let a = parse("a small red circle on the left and a large blue cross at the top on a grey background");
        let b = parse("a large blue cross at the top and a small red circle on the left on a grey background");
        assert!(a != b && a.is_equivalent_to(&b));
        let c = parse("a large blue cross at the top and a small red circle on the right on a grey background");
        assert!(!a.is_equivalent_to(&c));
        let d = parse("a small red circle above a large blue cross on a grey background");
        let e = parse("a large blue cross above a small red circle on a grey background");
        assert!(!d.is_equivalent_to(&e) && d.is_equivalent_to(&d));
    }
}
