//! Text from elsewhere in messages: bounded, and with nothing in it that a terminal or a log would act on.

use std::error::Error;
use std::fmt::{self, Display, Write};
use std::path::Path;

/// Characters of a quoted text that are shown.
const MAX_QUOTED: usize = 80;
/// Characters of an error of another library that are shown.
const MAX_CAUSE: usize = 400;
/// Characters of a path that are shown.
const MAX_PATH: usize = 400;

/// A text from a file or a request as part of a message: in backticks, with control characters escaped, and cut after
/// 80 characters.
///
/// ```
/// use lumina_core::quoted;
/// assert_eq!(quoted("dog").to_string(), "`dog`");
/// assert_eq!(quoted("a\n\u{1b}[2J").to_string(), r"`a\n\u{1b}[2J`");
/// assert_eq!(quoted(&"x".repeat(1000)).to_string(), format!("`{}…` (1000 bytes)", "x".repeat(80)));
/// ```
pub fn quoted(text: &str) -> impl Display + '_ {
    fmt::from_fn(move |f| {
        f.write_char('`')?;
        let whole = escape(f, text, MAX_QUOTED)?;
        f.write_char('`')?;
        if whole { Ok(()) } else { write!(f, " ({} bytes)", text.len()) }
    })
}

/// A path as part of a message: with control characters escaped, and cut after 400 characters.
pub fn shown(path: &Path) -> impl Display + '_ {
    fmt::from_fn(move |f| escape(f, &path.to_string_lossy(), MAX_PATH).map(drop))
}

/// Writes the first `max` characters of a text. Returns whether that is all of it.
fn escape(f: &mut fmt::Formatter<'_>, text: &str, max: usize) -> Result<bool, fmt::Error> {
    for (index, character) in text.chars().enumerate() {
        if index == max {
            f.write_char('…')?;
            return Ok(false);
        }
        if is_unseen(character) { write!(f, "{}", escaped(character))? } else { f.write_char(character)? }
    }
    Ok(true)
}

/// Control characters, line separators, and characters that change the direction or are not seen at all.
fn is_unseen(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

fn escaped(character: char) -> impl Display {
    fmt::from_fn(move |f| match character {
        '\n' => f.write_str("\\n"),
        '\r' => f.write_str("\\r"),
        '\t' => f.write_str("\\t"),
        other => write!(f, "{}", other.escape_unicode()),
    })
}

/// An error of another library by its message, which may repeat text of a file: with control characters escaped, and
/// cut after 400 characters.
///
/// ```
/// let json = format!("\"{}\"", "x".repeat(100_000));
/// let error = serde_json::from_str::<Vec<u32>>(&json).unwrap_err();
/// assert!(lumina_core::Cause::new(&error).to_string().len() < 500);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause(String);

impl Cause {
    /// The message of an error.
    pub fn new(error: &dyn Display) -> Self {
        let message = Bounded::of(error);
        Self(fmt::from_fn(|f| escape(f, &message, MAX_CAUSE).map(drop)).to_string())
    }
}

impl Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Cause {}

/// Takes the first characters that are written to it, and then refuses.
struct Bounded {
    text: String,
    left: usize,
}

impl Bounded {
    /// The beginning of what `value` writes: one character more than is shown.
    fn of(value: &dyn Display) -> String {
        let mut bounded = Self { text: String::new(), left: MAX_CAUSE + 1 };
        // An error is only that it was cut.
        let _ = write!(bounded, "{value}");
        bounded.text
    }
}

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            self.left = self.left.checked_sub(1).ok_or(fmt::Error)?;
            self.text.push(character);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_message_acts_on_a_terminal() {
        let hostile: String = ('\0'..='\u{9f}').chain("\u{202e}\u{200b}\u{feff}\u{2028}".chars()).collect();
        for message in [
            hostile.chars().map(|character| quoted(&character.to_string()).to_string()).collect::<String>(),
            shown(Path::new(&hostile)).to_string(),
            Cause::new(&hostile).to_string(),
        ] {
            assert!(!message.chars().any(is_unseen), "{message}");
            assert!(message.contains("\\u{1b}") && message.contains("\\n"), "{message}");
        }
        // Letters of all scripts stay what they are.
        assert_eq!(quoted("häß 世界 🐕 `x`").to_string(), "`häß 世界 🐕 `x``");
    }

    #[test]
    fn messages_are_bounded() {
        let long = "世".repeat(1 << 20);
        assert_eq!(quoted(&long).to_string(), format!("`{}…` (3145728 bytes)", "世".repeat(80)));
        assert_eq!(quoted(&long[..240]).to_string(), format!("`{}`", "世".repeat(80)));
        assert_eq!(shown(Path::new(&long)).to_string(), format!("{}…", "世".repeat(400)));
        assert_eq!(Cause::new(&long).to_string(), format!("{}…", "世".repeat(400)));
        assert_eq!(Cause::new(&"short").to_string(), "short");
    }
}
