//! Questions in a person's words.

use super::{Wording, a, synonyms};
use crate::Question;

impl Wording {
    /// A question in some words.
    pub fn question(&mut self, question: &Question) -> String {
        if self.is_canonical() {
            return question.to_string();
        }
        let text = match question {
            Question::Count(description) => {
                let things = self.description(description, true);
                let form = self.pick(&[
                    "how many {x} are there",
                    "how many {x} do you see",
                    "how many {x} can you see",
                    "how many {x}",
                    "count the {x}",
                    "what is the number of {x}",
                ]);
                form.replace("{x}", &things)
            }
            Question::ColourOf(description) => {
                let object = self.the(description);
                let form = self.pick(&[
                    "what colour is {x}",
                    "what color is {x}",
                    "what is the colour of {x}",
                    "what is the color of {x}",
                    "which color does {x} have",
                    "which colour does {x} have",
                ]);
                form.replace("{x}", &object)
            }
            Question::ShapeOf(description) => {
                let object = self.the(description);
                let form = self.pick(&["what shape is {x}", "what is the shape of {x}", "which shape does {x} have"]);
                form.replace("{x}", &object)
            }
            Question::FillOf(description) => {
                let object = self.the(description);
                let form = self.pick(&[
                    "what fill does {x} have",
                    "what pattern does {x} have",
                    "what is the pattern of {x}",
                    "how is {x} filled",
                    "is {x} plain, striped or dotted",
                ]);
                form.replace("{x}", &object)
            }
            Question::SizeOf(description) => {
                let object = self.the(description);
                let form = self.pick(&[
                    "what size is {x}",
                    "how big is {x}",
                    "how large is {x}",
                    "is {x} small or large",
                    "what is the size of {x}",
                ]);
                form.replace("{x}", &object)
            }
            Question::At(position) => {
                let position = self.name(synonyms::position(*position));
                self.pick(&["what is {x}", "what do you see {x}", "what's {x}", "which object is {x}"])
                    .replace("{x}", position)
            }
            Question::Where(description) => {
                let object = self.the(description);
                self.pick(&["where is {x}", "where's {x}", "where do you see {x}", "what is the position of {x}"])
                    .replace("{x}", &object)
            }
            Question::IsThere(description) => {
                let object = a(&self.description(description, false));
                self.pick(&["is there {x}", "do you see {x}", "can you see {x}", "is there {x} in the image"])
                    .replace("{x}", &object)
            }
            Question::IsRelated(first, relation, second) => {
                let (first, second) = (self.the(first), self.the(second));
                format!("is {first} {} {second}", self.relation(*relation))
            }
            Question::Related(relation, description) => {
                let object = self.the(description);
                let relation = self.relation(*relation);
                format!(
                    "{} {relation} {object}",
                    self.pick(&["what is", "what's", "which object is", "what do you see"])
                )
            }
            Question::IsColour(description, colour) => {
                let object = self.the(description);
                format!("is {object} {}", self.name(synonyms::colour(*colour)))
            }
            Question::BackgroundColour => {
                let background = self.background();
                let form = self.pick(&[
                    "what colour is the {x}",
                    "what color is the {x}",
                    "what is the colour of the {x}",
                    "what is the color of the {x}",
                    "which color does the {x} have",
                    "{x} color",
                ]);
                form.replace("{x}", background)
            }
            Question::IsBackground(background) => {
                let (what, colour) = (self.background(), self.name(synonyms::background(*background)));
                self.pick(&["is the {x} {to}", "is it on a {to} {x}"]).replace("{x}", what).replace("{to}", colour)
            }
            Question::IsShaded => {
                let background = self.background();
                self.pick(&["is the {x} shaded", "does the {x} have a gradient", "is there a gradient in the {x}"])
                    .replace("{x}", background)
            }
            Question::Larger(first, second) => {
                let (first, second) = (self.the(first), self.the(second));
                let form = self.pick(&[
                    "which is larger, {x} or {to}",
                    "which is bigger, {x} or {to}",
                    "what is larger, {x} or {to}",
                    "which one is bigger, {x} or {to}",
                ]);
                form.replace("{x}", &first).replace("{to}", &second)
            }
        };
        self.finish(text, &["?", "?", "?", ""])
    }
}
