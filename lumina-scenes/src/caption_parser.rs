//! Parses captions.

use std::str::FromStr;

use crate::attributes::Attribute;
use crate::caption::{COUNTS, article};
use crate::{Backdrop, Caption, Colour, Error, Fill, MAX_OBJECTS, Mention, ObjectShape, ObjectSize, Relation, Result};

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
        let count = match COUNTS.into_iter().find(|(_, word)| self.accept(word)) {
            Some((count, _)) => count,
            None if self
                .words
                .get(self.next + 1)
                .map(|noun| article(noun))
                .is_some_and(|article| self.accept(article)) =>
            {
                1
            }
            None => return Err(self.unexpected("`a`, `an`, `two`, `three` or `four`".to_owned())),
        };
        let size = self.accept_attribute();
        let fill = [Fill::Striped, Fill::Dotted].into_iter().find(|fill| self.accept(fill.name()));
        let colour = self.accept_attribute();
        let named = |shape: ObjectShape| if count > 1 { shape.plural() } else { shape.name() };
        let Some(shape) = ObjectShape::ALL.into_iter().find(|&shape| self.accept(named(shape))) else {
            return Err(self.unexpected(self.expected_of_object(size, fill, colour, &named)));
        };
        let position = self.accept_attribute();
        Ok(Mention { count, size, fill: fill.unwrap_or(Fill::Plain), colour, shape, position })
    }

    /// What may follow in a mention.
    fn expected_of_object(
        &self,
        size: Option<ObjectSize>,
        fill: Option<Fill>,
        colour: Option<Colour>,
        named: &dyn Fn(ObjectShape) -> &'static str,
    ) -> String {
        let list = |what: &str, names: Vec<&str>| format!("{what} ({})", names.join(", "));
        let mut expected = Vec::new();
        if size.is_none() && fill.is_none() && colour.is_none() {
            expected.push(list("a size", ObjectSize::ALL.map(ObjectSize::name).to_vec()));
        }
        if fill.is_none() && colour.is_none() {
            expected.push(list("a fill", vec![Fill::Striped.name(), Fill::Dotted.name()]));
        }
        if colour.is_none() {
            expected.push(list("a colour", Colour::ALL.map(Colour::name).to_vec()));
        }
        expected.push(list("a shape", ObjectShape::ALL.map(named).to_vec()));
        expected.join(" or ")
    }

    fn backdrop(&mut self) -> Result<Option<Backdrop>> {
        let mut backdrop = None;
        if self.accept("on a") {
            let shaded = self.accept("shaded");
            backdrop = Some(Backdrop { background: self.expect_attribute()?, shaded });
            self.expect("background")?;
        }
        if self.next < self.words.len() {
            let expected = if backdrop.is_none() { "`on a` or the end" } else { "the end" };
            return Err(self.unexpected(expected.to_owned()));
        }
        Ok(backdrop)
    }

    fn caption(&mut self) -> Result<Caption> {
        let first = self.mention()?;
        if first.position.is_none()
            && first.count == 1
            && let Some(relation) = self.accept_attribute::<Relation>()
        {
            let second = self.mention()?;
            if second.position.is_some() || second.count > 1 {
                return Err(self.unexpected("one object without a position after a relation".to_owned()));
            }
            return Ok(Caption::relation(first, relation, second, self.backdrop()?));
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
        let backdrop = self.backdrop()?;
        Caption::list(mentions, backdrop)
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
            ("", "expected `a`, `an`, `two`, `three` or `four` at byte 0, found the end"),
            ("a huge red circle", "expected a size (small, large) or a fill (striped, dotted) or a colour (red, "),
            (
                "a huge red circle",
                " or a shape (circle, square, triangle, cross, star, heart, ring, moon, arrow) at byte 2",
            ),
            (
                "a small  red sun",
                "expected a shape (circle, square, triangle, cross, star, heart, ring, moon, arrow) at",
            ),
            ("a small  red sun", "at byte 13, found `sun`"),
            ("an red circle", "expected `a`, `an`, `two`, `three` or `four` at byte 0, found `an`"),
            ("a orange circle", "at byte 0, found `a`"),
            ("two red circle", "(circles, squares, triangles, crosses, stars, hearts, rings, moons, arrows) at byte 8"),
            ("a red dotted star", "expected a shape (circle,"),
            (
                "a small red circle in the corner on a white background",
                "expected `on a` or the end at byte 19, found `in`",
            ),
            (
                "a small red circle, a small red cross on a white background",
                "expected `,` or `and` at byte 38, found `on`",
            ),
            ("a small red circle on a white background.", "expected `background` at byte 30, found `background.`"),
            ("a small red circle on a white background and", "expected the end at byte 41, found `and`"),
            (
                "a red circle above a red cross at the top on a white background",
                "expected one object without a position",
            ),
            ("a red circle above two red crosses", "expected one object without a position"),
            ("two red circles above a red cross", "expected `on a` or the end at byte 16, found `above`"),
            ("é", "found `é`"),
        ] {
            let error = caption.parse::<Caption>().unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
        let many = format!("{0}, {0}, {0}, {0} and {0} on a white background", "a small red circle");
        assert!(matches!(many.parse::<Caption>(), Err(Error::ObjectCount { found: 5, most: 4 })));
        let many = "three circles and two stars".parse::<Caption>();
        assert!(matches!(many, Err(Error::ObjectCount { found: 5, most: 4 })));
    }

    #[test]
    fn captions_are_equivalent_in_any_order() {
        let parse = |caption: &str| caption.parse::<Caption>().unwrap();
        let a = parse("a small red circle on the left and a large blue cross at the top on a grey background");
        let b = parse("a large blue cross at the top and a small red circle on the left on a grey background");
        assert!(a != b && a.is_equivalent_to(&b));
        let c = parse("a large blue cross at the top and a small red circle on the right on a grey background");
        assert!(!a.is_equivalent_to(&c));
        let twins = parse("two small red circles and a star");
        assert!(twins.is_equivalent_to(&parse("a small red circle, a star and a small red circle")));
        assert!(!twins.is_equivalent_to(&parse("two small red circles and an arrow")));
        let d = parse("a small red circle above a large blue cross on a grey background");
        let e = parse("a large blue cross above a small red circle on a grey background");
        assert!(!d.is_equivalent_to(&e) && d.is_equivalent_to(&d));
    }
}
