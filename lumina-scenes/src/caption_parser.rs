//! Reading captions.

use std::str::FromStr;

use crate::attributes::Word;
use crate::{Background, Description, Error, Kind, MAX_OBJECTS, Mention, Place, Relation, Result};

/// The words of a caption, a comma being one, and how far they are read.
struct Words<'a> {
    text: &'a str,
    words: Vec<&'a str>,
    next: usize,
}

impl<'a> Words<'a> {
    fn new(text: &'a str) -> Self {
        let words = text.split_whitespace().flat_map(|chunk| {
            // "left," is a word and a comma; split_inclusive leaves them together.
            chunk.split_inclusive(',').flat_map(|piece| match piece.strip_suffix(',') {
                Some(word) => [word, &piece[word.len()..]],
                None => [piece, ""],
            })
        });
        Self { text, words: words.filter(|word| !word.is_empty()).collect(), next: 0 }
    }

    /// Reads `phrase` if it comes next.
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

    /// Reads one of a list if it comes next. No name in a list begins another, so the order does not matter.
    fn accept_one<W: Word>(&mut self) -> Option<W> {
        W::all().iter().copied().find(|word| self.accept(word.name()))
    }

    fn expect(&mut self, phrase: &str) -> Result<()> {
        if self.accept(phrase) { Ok(()) } else { Err(self.wrong(format!("`{phrase}`"))) }
    }

    fn expect_one<W: Word>(&mut self) -> Result<W> {
        self.accept_one().ok_or_else(|| {
            let names: Vec<&str> = W::all().iter().map(|word| word.name()).collect();
            self.wrong(format!("{} ({})", W::WHAT, names.join(", ")))
        })
    }

    /// The error at the next word.
    fn wrong(&self, expected: String) -> Error {
        let (at, found) = match self.words.get(self.next) {
            Some(word) => (word.as_ptr().addr() - self.text.as_ptr().addr(), format!("`{word}`")),
            None => (self.text.len(), "the end".to_owned()),
        };
        Error::Caption { text: self.text.to_owned(), at, found, expected }
    }

    fn mention(&mut self) -> Result<Mention> {
        self.expect("a")?;
        let kind = Kind { size: self.expect_one()?, colour: self.expect_one()?, shape: self.expect_one()? };
        Ok(Mention { kind, place: self.accept_one::<Place>() })
    }

    fn background(&mut self) -> Result<Background> {
        self.expect("on a")?;
        let background = self.expect_one()?;
        self.expect("background")?;
        if self.next < self.words.len() { Err(self.wrong("the end".to_owned())) } else { Ok(background) }
    }

    fn description(&mut self) -> Result<Description> {
        let first = self.mention()?;
        if first.place.is_none()
            && let Some(relation) = self.accept_one::<Relation>()
        {
            let second = self.mention()?;
            if second.place.is_some() {
                return Err(self.wrong("no place after a relation".to_owned()));
            }
            return Ok(Description::relation(first.kind, relation, second.kind, self.background()?));
        }
        let mut mentions = vec![first];
        loop {
            // Checked here, so that a long text is not read to its end to say that it is too long.
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
                return Err(self.wrong("`,` or `and`".to_owned()));
            }
        }
        let background = self.background()?;
        Description::list(mentions, background)
    }
}

impl FromStr for Description {
    type Err = Error;

    /// Reads a caption; how much space is between words does not matter.
    ///
    /// # Errors
    /// [`Error::Caption`] with the first word that does not fit, and [`Error::ObjectCount`].
    fn from_str(caption: &str) -> Result<Self> {
        Words::new(caption).description()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_where_and_what() {
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
            ("a small red circle above a large red cross at the top on a white background", "expected no place"),
            ("é", "expected `a` at byte 0, found `é`"),
        ] {
            let error = caption.parse::<Description>().unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
        let four = format!("{0}, {0}, {0} and {0} on a white background", "a small red circle");
        assert!(matches!(four.parse::<Description>(), Err(Error::ObjectCount { found: 4, most: 3 })));
    }

    #[test]
    fn any_order_agrees() {
        let read = |caption: &str| caption.parse::<Description>().unwrap();
        let a = read("a small red circle on the left and a large blue cross at the top on a grey background");
        let b = read("a large blue cross at the top and a small red circle on the left on a grey background");
        assert!(a != b && a.agrees_with(&b));
        let c = read("a large blue cross at the top and a small red circle on the right on a grey background");
        assert!(!a.agrees_with(&c));
        let d = read("a small red circle above a large blue cross on a grey background");
        let e = read("a large blue cross above a small red circle on a grey background");
        assert!(!d.agrees_with(&e) && d.agrees_with(&d));
    }
}
