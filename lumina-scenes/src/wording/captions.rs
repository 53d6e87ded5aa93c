//! Captions in a person's words.

use super::{Wording, a, synonyms};
use crate::{Backdrop, Caption, Fill, Mention, ObjectShape, Relation};

/// What precedes what is to be drawn.
const REQUESTS: &[&str] = &[
    "draw",
    "draw",
    "draw me",
    "please draw",
    "can you draw",
    "could you draw",
    "paint",
    "make",
    "make me",
    "please make",
    "create",
    "generate",
    "show",
    "show me",
    "please show me",
    "give me",
    "i want",
    "i want to see",
    "i need",
    "i would like",
    "i'd like",
    "can i have",
    "let me see",
    "picture of",
    "a picture of",
    "draw a picture of",
    "image of",
    "an image of",
    "make an image of",
    "i want a picture of",
    "a drawing of",
    "a picture with",
    "an image with",
    "a scene with",
    "a picture showing",
    "a photo of",
    "an icon of",
    "just",
    "hi, draw",
    "hello, can you draw",
    "i would love",
    "i would love to see",
    "draw for me",
];

impl Wording {
    /// A caption in some words.
    pub fn caption(&mut self, caption: &Caption) -> String {
        if self.is_canonical() {
            return caption.to_string();
        }
        let mentions = caption.mentions();
        // A sentence has its own verb.
        let (objects, is_sentence) = match (caption.stated_relation(), mentions) {
            (Some(relation), [first, second]) => self.related(first, relation, second),
            (_, [mention]) if self.one_in(14) => (self.list_of_attributes(mention), true),
            _ => (self.list(mentions), false),
        };
        let several = mentions.first().is_some_and(|mention| mention.count > 1);
        let request = match self.rng.below(10) {
            _ if is_sentence => "",
            0..3 => self.pick(REQUESTS),
            3 if several => "there are",
            3 => "there is",
            _ => "",
        };
        let objects = if request.is_empty() { objects } else { format!("{request} {objects}") };
        let mut text = match caption.backdrop() {
            None => objects,
            Some(backdrop) if request.is_empty() && self.one_in(4) => {
                let place = self.before(backdrop);
                format!("{place} {objects}")
            }
            Some(backdrop) => format!("{objects}{}", self.behind(backdrop)),
        };
        // `both red,` before a backdrop that has a comma of its own, or at the end.
        text = text.replace(",,", ",").trim_end_matches(',').to_owned();
        match self.rng.below(60) {
            0..3 if !text.contains("please") => text += " please",
            3 => text += ", thanks",
            4 => text += ", nothing else",
            _ => {}
        }
        let ends: &[&str] =
            if request.contains("can ") || request.contains("could ") { &["?", ""] } else { &["", "", "", ".", "!"] };
        self.finish(text, ends)
    }

    /// Two objects and their relation, and whether they are a sentence.
    fn related(&mut self, first: &Mention, relation: Relation, second: &Mention) -> (String, bool) {
        let [first, second] = [first, second].map(|mention| self.mention(mention));
        match self.rng.below(12) {
            0 => (format!("{second} with {first} {}", self.pick(synonyms::of_it(relation))), false),
            1 => (format!("{second} and {} {first}", self.pick(synonyms::of_it(relation))), false),
            2 => (format!("{} {second} there is {first}", self.relation(relation)), true),
            3 => (format!("{first} is {} {second}", self.relation(relation)), true),
            4 => (format!("{first}, {} {second}", self.relation(relation)), false),
            _ => (format!("{first} {} {second}", self.relation(relation)), false),
        }
    }

    fn list(&mut self, mentions: &[Mention]) -> String {
        if let Some(text) = self.one_of_each(mentions) {
            return text;
        }
        let mut mentions = mentions.to_vec();
        let shared = self.shared(&mut mentions);
        let placed = mentions.iter().all(|mention| mention.position.is_some());
        let positions_first = placed && self.one_in(7);
        let colon = positions_first && self.one_in(4);
        let alike = mentions.windows(2).all(|pair| pair[0].fill == pair[1].fill);
        let mut texts: Vec<String> = Vec::with_capacity(mentions.len());
        for (index, mention) in mentions.iter().enumerate() {
            let position = mention.position.filter(|_| positions_first);
            let mention = Mention { position: mention.position.filter(|_| !positions_first), ..*mention };
            // `a red star and a blue one`
            let is_again = index.checked_sub(1).and_then(|before| mentions.get(before)).is_some_and(|before| {
                before.shape == mention.shape && before.fill == Fill::Plain && mention.fill == Fill::Plain
            });
            let stated = mention.size.is_some() || mention.colour.is_some();
            let object = if is_again && stated && !self.one_in(3) {
                self.another(&mention)
            } else if index == 0 || alike || mention.fill == Fill::Plain {
                self.mention(&mention)
            } else {
                // A fill at the end would be read as that of all: `a circle and a square with stripes`.
                self.mention_with_fill_first(&mention)
            };
            texts.push(match position {
                None => object,
                Some(position) => {
                    let position = self.name(synonyms::position(position));
                    format!("{position}{} {object}", if colon { ":" } else { "" })
                }
            });
        }
        self.join(&texts) + &shared
    }

    /// What all of several objects are, which their mentions then no longer state: `, both red,`.
    fn shared(&mut self, mentions: &mut [Mention]) -> String {
        let count: u32 = mentions.iter().map(|mention| mention.count).sum();
        let Some(first) = mentions.first().copied().filter(|_| count > 1 && self.one_in(4)) else {
            return String::new();
        };
        let all = match count {
            2 => self.pick(&["both", "both", "all"]),
            _ => self.pick(&["all", "all", "all of them"]),
        };
        if let Some(colour) = first.colour
            && mentions.iter().all(|mention| mention.colour == first.colour)
        {
            mentions.iter_mut().for_each(|mention| mention.colour = None);
            return format!(", {all} {},", self.name(synonyms::colour(colour)));
        }
        if let Some(size) = first.size
            && mentions.iter().all(|mention| mention.size == first.size)
        {
            mentions.iter_mut().for_each(|mention| mention.size = None);
            return format!(", {all} {},", self.name(synonyms::size(size)));
        }
        String::new()
    }

    /// `three small stars: red, green, blue` and `two stars, one red and one green`, if the mentions are of that kind.
    fn one_of_each(&mut self, mentions: &[Mention]) -> Option<String> {
        let (first, others) = mentions.split_first()?;
        let like =
            |mention: &Mention| Mention { colour: first.colour, ..*mention } == *first && mention.colour.is_some();
        let plain = first.count == 1 && first.position.is_none();
        if others.is_empty() || !plain || !mentions.iter().all(like) || self.one_in(3) {
            return None;
        }
        let several = Mention { count: mentions.len() as u32, colour: None, ..*first };
        let colours: Vec<String> = mentions
            .iter()
            .filter_map(|mention| mention.colour)
            .map(|colour| self.name(synonyms::colour(colour)).to_owned())
            .collect();
        let all = self.mention(&several);
        Some(if self.one_in(2) {
            format!("{all}: {}", self.join(&colours))
        } else {
            let each: Vec<String> = colours.iter().map(|colour| format!("one {colour}")).collect();
            format!("{all}, {}", self.join(&each))
        })
    }

    /// `a blue one`, after another object of the same shape.
    fn another(&mut self, mention: &Mention) -> String {
        let adjectives = self.stated(mention).join(" ");
        let one = if mention.count > 1 { "ones" } else { "one" };
        let object = self.count(mention.count, &format!("{adjectives} {one}"));
        match mention.position {
            None => object,
            Some(position) => format!("{object} {}", self.name(synonyms::position(position))),
        }
    }

    fn join(&mut self, texts: &[String]) -> String {
        let Some((last, first)) = texts.split_last().filter(|(_, first)| !first.is_empty()) else {
            return texts.concat();
        };
        match self.rng.below(10) {
            0 => format!("{}, and {last}", first.join(", ")),
            1 => texts.join(", "),
            2 => texts.join(" and "),
            3 if first.len() == 1 => texts.join(" with "),
            3 => texts.join(" plus "),
            4 => texts.join(" & "),
            5 => texts.join("; "),
            _ => format!("{} and {last}", first.join(", ")),
        }
    }

    /// `circle, large, red`.
    fn list_of_attributes(&mut self, mention: &Mention) -> String {
        let mut words = self.adjectives(mention);
        self.rng.shuffle(&mut words);
        words.insert(0, self.counted(mention, self.style.articles && mention.count == 1));
        words.extend(mention.position.map(|position| self.name(synonyms::position(position)).to_owned()));
        words.join(", ")
    }

    /// The number, or article, and the shape.
    fn counted(&mut self, mention: &Mention, bare: bool) -> String {
        let shape = self.shape(mention.shape, mention.count > 1);
        if bare { shape.to_owned() } else { self.count(mention.count, shape) }
    }

    /// A noun with its number or article.
    fn count(&mut self, count: u32, noun: &str) -> String {
        let number = match count {
            2 => self.name(&["two", "2", "2", "2", "a pair of", "a couple of"]),
            3 => self.name(&["three", "3"]),
            4 => self.name(&["four", "4"]),
            _ => {
                return match self.rng.below(80) {
                    0 | 1 => format!("one {noun}"),
                    2 => format!("1 {noun}"),
                    _ => a(noun),
                };
            }
        };
        format!("{number} {noun}")
    }

    /// Size, fill and colour, in the usual order. Some say of a plain fill that it is one.
    fn adjectives(&mut self, mention: &Mention) -> Vec<String> {
        let mut words = self.stated(mention);
        if mention.fill == Fill::Plain && self.one_in(25) {
            let index = usize::from(mention.size.is_some());
            words.insert(index, self.pick(synonyms::fill(Fill::Plain)).to_owned());
        }
        words
    }

    /// Size, colour, and a fill that is not plain, in the usual order.
    fn stated(&mut self, mention: &Mention) -> Vec<String> {
        let size = mention.size.map(|size| self.name(synonyms::size(size)));
        let fill = Some(mention.fill).filter(|fill| *fill != Fill::Plain);
        let fill = fill.map(|fill| self.name(synonyms::fill(fill)));
        let colour = mention.colour.map(|colour| self.name(synonyms::colour(colour)));
        [size, fill, colour].into_iter().flatten().map(str::to_owned).collect()
    }

    /// Objects with their number or article and, if it is stated, their position.
    pub(super) fn mention(&mut self, mention: &Mention) -> String {
        let object = match self.rng.below(20) {
            0 | 1 => self.with_clause(mention),
            2..5 if mention.fill != Fill::Plain => {
                let bare = self.stated(&Mention { fill: Fill::Plain, ..*mention }).join(" ");
                let shape = self.shape(mention.shape, mention.count > 1);
                let object = self.count(mention.count, format!("{bare} {shape}").trim_start());
                format!("{object} {}", self.pick(synonyms::with_fill(mention.fill)))
            }
            _ => return self.mention_with_fill_first(mention),
        };
        self.placed(object, mention)
    }

    /// The same, with all adjectives before the shape.
    fn mention_with_fill_first(&mut self, mention: &Mention) -> String {
        let mut words = self.adjectives(mention);
        if self.one_in(7) {
            self.rng.shuffle(&mut words);
        }
        let comma = words.len() > 1 && self.one_in(14);
        let adjectives = words.join(if comma { ", " } else { " " });
        let shape = self.shape(mention.shape, mention.count > 1);
        let object = self.count(mention.count, format!("{adjectives} {shape}").trim_start());
        self.placed(object, mention)
    }

    /// The object with its position, if it is stated.
    fn placed(&mut self, object: String, mention: &Mention) -> String {
        let points = mention.shape == ObjectShape::Arrow && mention.position.is_none() && self.one_in(20);
        let object = if points { format!("{object} pointing right") } else { object };
        match mention.position {
            None => object,
            Some(position) => {
                let position = self.name(synonyms::position(position));
                if self.one_in(25) { format!("{object} ({position})") } else { format!("{object} {position}") }
            }
        }
    }

    /// `a circle that is large and red`.
    fn with_clause(&mut self, mention: &Mention) -> String {
        let mut words = self.adjectives(mention);
        // Polka dot is no adjective.
        for word in &mut words {
            if word == "polka dot" {
                "dotted".clone_into(word);
            }
        }
        self.rng.shuffle(&mut words);
        let object = self.counted(mention, false);
        let Some((last, first)) = words.split_last() else { return object };
        let words = if first.is_empty() { last.clone() } else { format!("{} and {last}", first.join(", ")) };
        let verb = if mention.count > 1 { "are" } else { "is" };
        format!("{object} {} {verb} {words}", self.name(&["that", "which"]))
    }

    /// The name of a backdrop's colour.
    fn backdrop_colour(&mut self, backdrop: Backdrop) -> &'static str {
        self.name(synonyms::background(backdrop.background))
    }

    /// `shaded white background`, `white gradient`.
    fn backdrop(&mut self, backdrop: Backdrop) -> String {
        let (colour, background) = (self.backdrop_colour(backdrop), self.background());
        if !backdrop.shaded {
            let plain = if self.one_in(12) { "plain " } else { "" };
            return format!("{plain}{colour} {background}");
        }
        match self.rng.below(8) {
            0 => format!("{colour} gradient"),
            1 => format!("{colour} gradient {background}"),
            2 => format!("{colour} {background} with a gradient"),
            3 => format!("{colour} {background} with shading"),
            4 => format!("{colour} shaded {background}"),
            _ => format!("shaded {colour} {background}"),
        }
    }

    /// A backdrop after the objects.
    fn behind(&mut self, backdrop: Backdrop) -> String {
        let shaded = if backdrop.shaded { "shaded " } else { "" };
        let colour = self.backdrop_colour(backdrop);
        match self.rng.below(24) {
            0..3 => format!(" on {shaded}{colour}"),
            3 => format!(" against {shaded}{colour}"),
            4 => format!(" against {}", a(&self.backdrop(backdrop))),
            5 => format!(", {}", self.backdrop(backdrop)),
            6 => format!(" {}", self.backdrop(backdrop)),
            7 => format!(", background: {shaded}{colour}"),
            8 => format!(", background {shaded}{colour}"),
            9 => format!(", the background is {shaded}{colour}"),
            10 => format!(", on {}", a(&self.backdrop(backdrop))),
            11 => format!(" in front of {}", a(&self.backdrop(backdrop))),
            12..15 => format!(" with {}", a(&self.backdrop(backdrop))),
            _ => format!(" on {}", a(&self.backdrop(backdrop))),
        }
    }

    /// A backdrop before the objects.
    fn before(&mut self, backdrop: Backdrop) -> String {
        let shaded = if backdrop.shaded { "shaded " } else { "" };
        let colour = self.backdrop_colour(backdrop);
        match self.rng.below(8) {
            0 => format!("{},", self.backdrop(backdrop)),
            1 => format!("{} with", a(&self.backdrop(backdrop))),
            2 => format!("background {shaded}{colour},"),
            3 => format!("on {shaded}{colour},"),
            4 => format!("background: {shaded}{colour}."),
            _ => format!("on {},", a(&self.backdrop(backdrop))),
        }
    }
}
