//! Messages of a chat: text, with `@file` in the place of an image.

use std::path::Path;

use anyhow::Result;
use lumina_mgpt::{InputImage, Lumina, Part};

/// Punctuation that may follow a file's name without being part of it.
const AFTER_A_NAME: [char; 15] = ['.', ',', ';', ':', '!', '?', ')', ']', '}', '"', '\'', '。', '，', '？', '！'];
/// What may come before the `@` of an image, besides whitespace.
const BEFORE_A_NAME: [char; 5] = ['(', '[', '{', '"', '\''];

/// Converts a message to the parts of a conversation: `@file` becomes the image in that file.
///
/// The `@` begins the message or a word; another one, as in an address, is text. A name that contains spaces is written
/// in quotes (`@"my dog.png"`), or with a backslash before each (`@my\ dog.png`). Punctuation after a name is text,
/// unless a file is called so.
///
/// # Errors
/// Those of [`InputImage::open`] and [`Lumina::encode_image`].
pub fn message_parts(model: &Lumina, message: &str) -> Result<Vec<Part>> {
    let part = |piece| match piece {
        Piece::Text(text) => Ok(Part::from(text)),
        Piece::Image(file) => Ok(model.encode_image(&InputImage::open(file)?)?.into()),
    };
    pieces(message, |file| Path::new(file).is_file()).into_iter().map(part).collect()
}

/// A text, or the name of an image's file.
#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Image(String),
}

/// Splits a message at the names of files.
fn pieces(message: &str, is_file: impl Fn(&str) -> bool) -> Vec<Piece> {
    let (mut pieces, mut text) = (Vec::new(), String::new());
    let mut rest = message;
    while let Some(character) = rest.chars().next() {
        let after = &rest[character.len_utf8()..];
        let begins_word = text.chars().next_back().is_none_or(|c| c.is_whitespace() || BEFORE_A_NAME.contains(&c));
        if character == '@' && begins_word && after.starts_with(|c: char| !c.is_whitespace()) {
            let (file, end) = name(after, &is_file);
            if !text.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut text)));
            }
            pieces.push(Piece::Image(file));
            rest = &after[end..];
            // The models have learnt images with a space behind them.
            if rest.chars().next().is_none_or(char::is_whitespace) {
                text.push(' ');
                rest = rest.strip_prefix(char::is_whitespace).unwrap_or_default();
            }
        } else {
            text.push(character);
            rest = after;
        }
    }
    if !text.is_empty() {
        pieces.push(Piece::Text(text));
    }
    pieces
}

/// The name of a file at the beginning of a text, and where it ends.
fn name(text: &str, is_file: impl Fn(&str) -> bool) -> (String, usize) {
    if let Some(quote) = text.chars().next().filter(|c| ['"', '\''].contains(c))
        && let Some(length) = text[1..].find(quote)
    {
        return (text[1..][..length].to_owned(), length + 2);
    }
    // The characters of the word, without the backslashes, and where each ends.
    let mut word: Vec<(char, usize)> = Vec::new();
    let mut characters = text.char_indices().peekable();
    while let Some((at, mut character)) = characters.next() {
        let mut end = at + character.len_utf8();
        if character == '\\'
            && let Some((at, next)) = characters.next_if(|&(_, next)| next.is_whitespace())
        {
            (character, end) = (next, at + next.len_utf8());
        } else if character.is_whitespace() {
            break;
        }
        word.push((character, end));
    }
    let of_length = |length: usize| word[..length].iter().map(|&(character, _)| character).collect::<String>();
    let punctuation = word.iter().rev().take_while(|(character, _)| AFTER_A_NAME.contains(character)).count();
    let shortest = (word.len() - punctuation).max(1);
    let length = (shortest..=word.len()).rev().find(|&length| is_file(&of_length(length))).unwrap_or(shortest);
    (of_length(length), word.get(length - 1).map_or(0, |&(_, end)| end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(file: &str) -> Piece {
        Piece::Image(file.to_owned())
    }

    fn text(text: &str) -> Piece {
        Piece::Text(text.to_owned())
    }

    #[test]
    fn names_end_where_they_are_meant_to() {
        let files = ["a.png", "what?", "my dog.png"];
        for (message, expected) in [
            ("@a.png What is it?", vec![image("a.png"), text(" What is it?")]),
            ("@a.png\tWhat?", vec![image("a.png"), text(" What?")]),
            (
                "compare @a.png and @b.png",
                vec![text("compare "), image("a.png"), text(" and "), image("b.png"), text(" ")],
            ),
            ("the scene (@a.png), please", vec![text("the scene ("), image("a.png"), text("), please")]),
            ("@a.png, @a.png.", vec![image("a.png"), text(", "), image("a.png"), text(".")]),
            ("is it @a.png?!", vec![text("is it "), image("a.png"), text("?!")]),
            // A file that has such a name.
            ("@what?", vec![image("what?"), text(" ")]),
            ("@what?.", vec![image("what?"), text(".")]),
            ("@\"my dog.png\" here", vec![image("my dog.png"), text(" here")]),
            ("@'my dog.png', there", vec![image("my dog.png"), text(", there")]),
            ("@my\\ dog.png.", vec![image("my dog.png"), text(".")]),
            ("@tab\\\tname.png x", vec![image("tab\tname.png"), text(" x")]),
            (r"@C:\dogs\a.png x", vec![image(r"C:\dogs\a.png"), text(" x")]),
            ("(\"@a.png\")", vec![text("(\""), image("a.png"), text("\")")]),
            ("@世界.png。", vec![image("世界.png"), text("。")]),
            ("@a.png\u{3000}x", vec![image("a.png"), text(" x")]),
            // No name.
            ("me@example.com", vec![text("me@example.com")]),
            ("five @ ten", vec![text("five @ ten")]),
            ("@", vec![text("@")]),
            ("", vec![]),
            // As much as there is.
            ("@\"my dog", vec![image("\"my"), text(" dog")]),
            ("@...", vec![image("."), text("..")]),
            ("@\\", vec![image("\\"), text(" ")]),
        ] {
            assert_eq!(pieces(message, |file| files.contains(&file)), expected, "{message}");
        }
    }
}
