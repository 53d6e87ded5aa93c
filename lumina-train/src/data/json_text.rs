//! JSON as Python reads and writes it: with a byte order mark, and with words for numbers that are not finite.

use std::borrow::Cow;
use std::ops::Range;

use lumina_core::file::without_mark;
use serde::de::IgnoredAny;

/// The encoding of JSON text that is not in UTF-8: by its byte order mark, or as the first character of JSON is ASCII
/// (RFC 4627, section 3).
pub(super) fn other_encoding(text: &[u8]) -> Option<&'static str> {
    let is_first = |byte: u8| byte == b'{' || byte == b'[' || byte.is_ascii_whitespace();
    match *text {
        [0xff, 0xfe, 0, 0, ..] => Some("UTF-32 (little-endian)"),
        [0, 0, 0xfe, 0xff, ..] => Some("UTF-32 (big-endian)"),
        [0xff, 0xfe, ..] => Some("UTF-16 (little-endian)"),
        [0xfe, 0xff, ..] => Some("UTF-16 (big-endian)"),
        [first, 0, 0, 0, ..] if is_first(first) => Some("UTF-32 (little-endian)"),
        [0, 0, 0, first, ..] if is_first(first) => Some("UTF-32 (big-endian)"),
        [first, 0, ..] if is_first(first) => Some("UTF-16 (little-endian)"),
        [0, first, ..] if is_first(first) => Some("UTF-16 (big-endian)"),
        _ => None,
    }
}

/// What Python's `json` reads and writes for numbers that are not finite. The longest first.
const WORDS: [&[u8]; 3] = [b"-Infinity", b"Infinity", b"NaN"];

/// The text with `NaN`, `Infinity` and `-Infinity` outside of strings as the number 0, padded to the same length. So a
/// reader passes over them, and refuses them where it expects a text.
pub(super) fn with_finite_numbers(text: &[u8]) -> Cow<'_, [u8]> {
    let mut finite = Cow::Borrowed(text);
    let (mut position, mut in_string) = (0, false);
    while let Some(&byte) = text.get(position) {
        let word = if in_string { None } else { WORDS.into_iter().find(|word| text[position..].starts_with(word)) };
        if let Some(word) = word {
            let number = &mut finite.to_mut()[position..position + word.len()];
            number.fill(b' ');
            number[0] = b'0';
        }
        in_string ^= byte == b'"';
        // A character after a backslash does not end a string.
        position += word.map_or(1 + usize::from(in_string && byte == b'\\'), <[u8]>::len);
    }
    finite
}

/// The most records that a file of so many bytes has. A record has more than 16 bytes, which its place in memory takes.
fn most_records(bytes: usize) -> usize {
    (bytes / 16).max(1 << 22)
}

fn too_many(most: usize) -> String {
    format!("more than {most} records, which are then too short to be records")
}

/// The places of the lines that are not empty. Each may have a byte order mark: files can be joined.
pub(super) fn lines(bytes: &[u8]) -> Result<Vec<Range<usize>>, String> {
    let most = most_records(bytes.len());
    let mut end = 0;
    let places = bytes.split_inclusive(|&byte| byte == b'\n').map(|line| {
        end += line.len();
        end - without_mark(line).len()..end
    });
    let places = places.filter(|place| !bytes[place.clone()].trim_ascii().is_empty());
    let places: Vec<_> = places.take(most + 1).collect();
    if places.len() > most { Err(too_many(most)) } else { Ok(places) }
}

/// The places of the elements of a JSON list, from its bracket on.
pub(super) fn elements(bytes: &[u8], list: usize) -> Result<Vec<Range<usize>>, String> {
    let skip_space = |position: usize| bytes.len() - bytes[position..].trim_ascii_start().len();
    let cut = || "the list of records does not end; is the file whole?".to_owned();
    let most = most_records(bytes.len());
    let mut places = Vec::new();
    let mut position = skip_space(list + 1);
    if bytes.get(position) == Some(&b']') {
        position += 1;
    } else {
        loop {
            let end = element_end(bytes, position);
            let (index, element) = (places.len(), &bytes[position..end]);
            check(element).map_err(|error| match bytes.get(end) {
                Some(_) => format!("record {index}, from byte {position}: {error}"),
                None => cut(),
            })?;
            if places.len() == most {
                return Err(too_many(most));
            }
            places.push(position..end);
            match bytes.get(end) {
                Some(b',') => position = skip_space(end + 1),
                Some(b']') => {
                    position = end + 1;
                    break;
                }
                Some(_) => return Err(format!("record {index}: no comma after it, at byte {end}")),
                None => return Err(cut()),
            }
        }
    }
    match skip_space(position) {
        end if end == bytes.len() => Ok(places),
        end => Err(format!("something follows the list of records, at byte {end}")),
    }
}

/// Where an element of a list ends: at a comma or a bracket that is not in it, or at the end of the text.
fn element_end(bytes: &[u8], begin: usize) -> usize {
    let (mut position, mut depth, mut in_string) = (begin, 0usize, false);
    while let Some(&byte) = bytes.get(position) {
        match byte {
            b'"' => in_string = !in_string,
            b'\\' if in_string => position += 1,
            _ if in_string => {}
            b'{' | b'[' => depth += 1,
            b',' | b'}' | b']' if depth == 0 => return position,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        position += 1;
    }
    bytes.len()
}

/// Whether this is a JSON value as Python reads it.
fn check(element: &[u8]) -> serde_json::Result<IgnoredAny> {
    serde_json::from_slice(element).or_else(|_| serde_json::from_slice(&with_finite_numbers(element)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_outside_of_strings_become_a_number() {
        let cases = [
            (r#"{"a": NaN, "b": [Infinity,-Infinity]}"#, r#"{"a": 0  , "b": [0       ,0        ]}"#),
            (r#"{"NaN": "NaN \\\" Infinity", "c": NaN}"#, r#"{"NaN": "NaN \\\" Infinity", "c": 0  }"#),
            (r#"{"a": "NaN"#, r#"{"a": "NaN"#),
            ("NaN", "0  "),
            ("", ""),
        ];
        for (text, expected) in cases {
            assert_eq!(String::from_utf8_lossy(&with_finite_numbers(text.as_bytes())), expected);
        }
    }

    #[test]
    fn encodings_are_told_by_their_first_bytes() {
        for text in ["{}", "[1]", "\n{}"] {
            let [utf16, utf32]: [fn(u32) -> Vec<u8>; 2] =
                [|c| (c as u16).to_le_bytes().to_vec(), |c| c.to_le_bytes().to_vec()];
            for (name, encode) in [("UTF-16", utf16), ("UTF-32", utf32)] {
                for mark in ["", "\u{feff}"] {
                    let little: Vec<Vec<u8>> = (mark.to_owned() + text).chars().map(|c| encode(c.into())).collect();
                    let big = little.iter().flat_map(|bytes| bytes.iter().rev().copied()).collect::<Vec<_>>();
                    assert_eq!(other_encoding(&little.concat()), Some(&*format!("{name} (little-endian)")));
                    assert_eq!(other_encoding(&big), Some(&*format!("{name} (big-endian)")));
                }
            }
            assert_eq!(other_encoding(text.as_bytes()), None);
            assert_eq!(other_encoding(format!("\u{feff}{text}").as_bytes()), None);
        }
    }
}
