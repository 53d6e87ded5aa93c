//! Instructions in a person's words.

use super::{Wording, a, synonyms};
use crate::edit::place;
use crate::{Background, Edit, Fill, Mention, ObjectKind, ObjectSize};

/// What precedes a request.
const STARTS: &[&str] = &["please", "now", "can you", "could you", "now please", "then", "ok, now", "and now"];

/// How a text begins that is no request, like that which begins with a background's colour: `the star should be red`,
/// `sky blue background`.
const NO_REQUESTS: [&str; 6] = ["the ", "i ", "there ", "on ", "background:", "backdrop:"];

/// A form with its slots filled: `{x}` the target, `{to}` what it becomes.
fn fill_in(form: &str, target: &str, to: &str) -> String {
    form.replace("{x}", target).replace("{to}", to)
}

impl Wording {
    /// An instruction in some words.
    pub fn edit(&mut self, edit: &Edit) -> String {
        if self.is_canonical() {
            return edit.to_string();
        }
        let text = self.instruction(edit);
        let backgrounds = Background::ALL.into_iter().flat_map(synonyms::background);
        let is_request = !NO_REQUESTS.iter().chain(backgrounds).any(|start| text.starts_with(start));
        let start = if is_request && self.one_in(5) { self.pick(STARTS) } else { "" };
        let mut text = format!("{start} {text}").trim_start().to_owned();
        if self.one_in(12) && !text.contains("please") {
            text += " please";
        }
        let asks = start.ends_with("you");
        self.finish(text, if asks { &["?", ""] } else { &["", "", "", ".", "!"] })
    }

    fn instruction(&mut self, edit: &Edit) -> String {
        match *edit {
            Edit::Recolour { target, to } => {
                let (target, to) = (self.the(&target), self.name(synonyms::colour(to)));
                let form = self.pick(&[
                    "make {x} {to}",
                    "change {x} to {to}",
                    "colour {x} {to}",
                    "color {x} {to}",
                    "paint {x} {to}",
                    "turn {x} {to}",
                    "{x} should be {to}",
                    "change the colour of {x} to {to}",
                    "change the color of {x} to {to}",
                    "i want {x} to be {to}",
                ]);
                fill_in(form, &target, to)
            }
            Edit::Refill { target, to } => {
                let target = self.the(&target);
                let forms: &[&str] = match to {
                    Fill::Plain => &["make {x} {to}", "{x} should be {to}", "change {x} to {to}", "fill {x} {to}"],
                    Fill::Striped => &[
                        "make {x} {to}",
                        "{x} should be {to}",
                        "change {x} to {to}",
                        "give {x} stripes",
                        "add stripes to {x}",
                        "put stripes on {x}",
                        "fill {x} with stripes",
                    ],
                    Fill::Dotted => &[
                        "make {x} {to}",
                        "{x} should be {to}",
                        "change {x} to {to}",
                        "give {x} dots",
                        "add dots to {x}",
                        "put spots on {x}",
                        "fill {x} with dots",
                        "give {x} polka dots",
                    ],
                };
                let form = self.pick(forms);
                let to = self.name(synonyms::fill(to)).replace("polka dot", "dotted");
                fill_in(form, &target, &to)
            }
            Edit::Resize { target, to } => {
                let target = self.the(&target);
                let forms: &[&str] = match to {
                    ObjectSize::Small => &[
                        "make {x} {to}",
                        "make {x} smaller",
                        "shrink {x}",
                        "{x} should be {to}",
                        "{x} should be smaller",
                    ],
                    ObjectSize::Large => &[
                        "make {x} {to}",
                        "make {x} bigger",
                        "make {x} larger",
                        "enlarge {x}",
                        "grow {x}",
                        "{x} should be {to}",
                        "{x} should be bigger",
                    ],
                };
                let form = self.pick(forms);
                fill_in(form, &target, self.name(synonyms::size(to)))
            }
            Edit::Reshape { target, to } => {
                let (target, to) = (self.the(&target), a(self.shape(to, false)));
                let form = self.pick(&[
                    "turn {x} into {to}",
                    "change {x} into {to}",
                    "change {x} to {to}",
                    "make {x} {to}",
                    "make {to} out of {x}",
                    "transform {x} into {to}",
                    "{x} should be {to}",
                ]);
                fill_in(form, &target, &to)
            }
            Edit::Replace { target, with } => {
                let (target, to) = (self.the(&target), self.kind(with));
                let form = self.pick(&[
                    "replace {x} with {to}",
                    "replace {x} by {to}",
                    "swap {x} for {to}",
                    "turn {x} into {to}",
                    "change {x} into {to}",
                    "put {to} instead of {x}",
                    "put {to} in place of {x}",
                    "i want {to} instead of {x}",
                ]);
                fill_in(form, &target, &to)
            }
            Edit::Remove { target } => {
                let target = self.the(&target);
                let form = self.pick(&[
                    "remove {x}",
                    "delete {x}",
                    "erase {x}",
                    "take {x} away",
                    "take away {x}",
                    "get rid of {x}",
                    "drop {x}",
                ]);
                fill_in(form, &target, "")
            }
            Edit::Add { kind, position } => {
                let (kind, place) = (self.kind(kind), self.name(synonyms::position(position)));
                let form = self.pick(&[
                    "add {x} {to}",
                    "put {x} {to}",
                    "draw {x} {to}",
                    "place {x} {to}",
                    "insert {x} {to}",
                    "{to} add {x}",
                    "add {to} {x}",
                    "also draw {x} {to}",
                    "there should be {x} {to}",
                    "i also want {x} {to}",
                ]);
                fill_in(form, &kind, place)
            }
            Edit::Move { target, to } => {
                let target = self.the(&target);
                let form = self.pick(&[
                    "move {x} to {to}",
                    "shift {x} to {to}",
                    "bring {x} to {to}",
                    "put {x} {at}",
                    "place {x} {at}",
                    "move {x} {at}",
                    "{x} should be {at}",
                ]);
                let destination = self.name(synonyms::destination(to));
                let destination = if self.one_in(3) { place(to) } else { destination };
                fill_in(&form.replace("{at}", self.name(synonyms::position(to))), &target, destination)
            }
            Edit::Background { to } => {
                let (colour, background) = (self.name(synonyms::background(to)), self.background());
                let form = self.pick(&[
                    "make the {x} {to}",
                    "change the {x} to {to}",
                    "set the {x} to {to}",
                    "turn the {x} {to}",
                    "paint the {x} {to}",
                    "color the {x} {to}",
                    "the {x} should be {to}",
                    "use a {to} {x}",
                    "i want a {to} {x}",
                    "{x}: {to}",
                    "put it on a {to} {x}",
                    "{to} {x}",
                ]);
                fill_in(form, background, colour)
            }
            Edit::Shade { shaded: true } => {
                let background = self.background();
                let form = self.pick(&[
                    "make the {x} shaded",
                    "shade the {x}",
                    "add shading to the {x}",
                    "add a gradient to the {x}",
                    "give the {x} a gradient",
                    "make the {x} a gradient",
                    "the {x} should be shaded",
                ]);
                fill_in(form, background, "")
            }
            Edit::Shade { shaded: false } => {
                let background = self.background();
                let form = self.pick(&[
                    "make the {x} plain",
                    "make the {x} solid",
                    "remove the shading of the {x}",
                    "remove the gradient",
                    "the {x} should be plain",
                    "take the gradient away",
                ]);
                fill_in(form, background, "")
            }
        }
    }

    /// `a small red star`.
    fn kind(&mut self, kind: ObjectKind) -> String {
        self.mention(&Mention::of(kind))
    }
}
