//! The words that a model of few words knows.

use std::collections::BTreeSet;

use lumina_core::quoted;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

/// The words that a model has learnt, in lower case and sorted: for models whose training data has so few that they can
/// be listed. A [`Preset`](crate::Preset) states them.
///
/// A word is letters, digits and apostrophes, in upper or lower case; what else a text has, a hyphen included,
/// separates words. Numbers are words. In JSON it is a list of strings, one word each.
///
/// ```
/// use lumina_mgpt::Words;
///
/// let words = Words::of(["a small red circle", "a blue square"]);
/// assert_eq!(words.iter().collect::<Vec<_>>(), ["a", "blue", "circle", "red", "small", "square"]);
/// assert_eq!(words.unknown("A red dragon, a RED castle"), ["dragon", "castle"]);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Words(Vec<String>);

impl Words {
    /// The most words that a warning lists.
    const MAX_LISTED: usize = 400;
    /// The most unknown words that a warning names.
    const MAX_NAMED: usize = 10;

    /// The words of texts, such as all that users say in the training data.
    pub fn of<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Self {
        let mut words = BTreeSet::new();
        for text in texts {
            words.extend(split(text.as_ref()));
        }
        Self(words.into_iter().collect())
    }

    /// The words, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The words of a text that are not among these, in lower case, each once, in the order of the text.
    pub fn unknown(&self, text: &str) -> Vec<String> {
        let mut seen = BTreeSet::new();
        split(text).filter(|word| self.0.binary_search(word).is_err() && seen.insert(word.clone())).collect()
    }

    /// One line that names the unknown words of a text and those that are known; `None` where all are known.
    pub(crate) fn warning(&self, text: &str) -> Option<String> {
        let unknown = self.unknown(text);
        let mut named: Vec<String> = unknown.iter().take(Self::MAX_NAMED).map(|word| format!("\"{word}\"")).collect();
        if unknown.len() > Self::MAX_NAMED {
            named.push(format!("{} more", unknown.len() - Self::MAX_NAMED));
        }
        let last = named.pop()?;
        let named = if named.is_empty() { last } else { format!("{} and {last}", named.join(", ")) };
        let mut known: Vec<&str> = self.iter().take(Self::MAX_LISTED).collect();
        if self.0.len() > Self::MAX_LISTED {
            known.push("…");
        }
        Some(format!("this model has not learnt {named}; it knows: {}", known.join(", ")))
    }
}

/// Refuses an empty list, and what is not one word.
impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let listed = Vec::<String>::deserialize(deserializer)?;
        if listed.is_empty() {
            return Err(D::Error::custom("at least one word"));
        }
        match listed.iter().find(|text| !text.chars().all(is_of_word) || split(text).next().is_none()) {
            Some(text) => Err(D::Error::custom(format_args!(
                "a word has letters, digits and apostrophes alone, unlike {}",
                quoted(text)
            ))),
            None => Ok(Self::of(listed)),
        }
    }
}

fn is_apostrophe(character: char) -> bool {
    matches!(character, '\'' | '’')
}

fn is_of_word(character: char) -> bool {
    character.is_alphanumeric() || is_apostrophe(character)
}

/// The words of a text, in lower case. Apostrophes around a word are quotes.
fn split(text: &str) -> impl Iterator<Item = String> {
    let runs = text.split(|character| !is_of_word(character)).map(|run| run.trim_matches(is_apostrophe));
    runs.filter(|run| !run.is_empty()).map(|run| {
        let mut word = run.to_lowercase().replace('’', "'");
        // The lower case of İ has a mark that is no letter.
        word.retain(is_of_word);
        word
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words() -> Words {
        Words::of(["a small red circle above 2 stars", "what's at the top-left?"])
    }

    #[test]
    fn words_are_in_lower_case_sorted_and_each_there_once() {
        let words = Words::of(["Red red-RED circle", "'blue' it’s 10"]);
        assert_eq!(words.iter().collect::<Vec<_>>(), ["10", "blue", "circle", "it's", "red"]);
        assert!(Words::of::<&str>([]).is_empty() && Words::of([" -!' "]).is_empty());
    }

    #[test]
    fn unknown_words_are_named_once_in_their_order() {
        let words = words();
        assert!(words.unknown("A SMALL, red: circle! What’s 'above'?").is_empty());
        assert!(words.unknown("top left, LEFT-TOP").is_empty());
        assert!(words.unknown("").is_empty() && words.unknown(" .,-'’\n").is_empty());
        assert_eq!(
            words.unknown("Dragon at the castle, dragon's 3 dragons 2"),
            ["dragon", "castle", "dragon's", "3", "dragons"]
        );
        assert_eq!(words.unknown("sky-blue"), ["sky", "blue"]);
        assert_eq!(words.unknown("ein roter Kreis über 红色的圆"), ["ein", "roter", "kreis", "über", "红色的圆"]);
    }

    #[test]
    fn a_warning_is_one_line() {
        let words = Words::of(["a red circle"]);
        assert_eq!(words.warning("a circle"), None);
        let knows = "; it knows: a, circle, red";
        assert_eq!(words.warning("a dragon"), Some(format!("this model has not learnt \"dragon\"{knows}")));
        assert_eq!(
            words.warning("a dragon\nand CASTLE"),
            Some(format!("this model has not learnt \"dragon\", \"and\" and \"castle\"{knows}"))
        );
    }

    #[test]
    fn long_lists_are_cut() {
        let many = |n: usize| (0..n).map(|index| format!("w{index:03}")).collect::<Vec<_>>();
        let warning = Words::of(many(400)).warning("no").unwrap();
        assert!(warning.ends_with(", w398, w399"), "{warning}");
        let warning = Words::of(many(401)).warning("no").unwrap();
        assert!(warning.ends_with(", w398, w399, …"), "{warning}");
        let warning = Words::of(["a"]).warning(&many(12).join(" ")).unwrap();
        assert!(warning.contains("\"w009\" and 2 more; it knows: a"), "{warning}");
    }

    #[test]
    fn json_is_a_list_of_words() {
        let words = Words::of(["a red circle, it's İ ΛΌΓΟΣ"]);
        let json = serde_json::to_string(&words).unwrap();
        assert_eq!(serde_json::from_str::<Words>(&json).unwrap(), words, "{json}");
        let read: Words = serde_json::from_str(r#"["Red", "circle", "red", "it’s"]"#).unwrap();
        assert_eq!(read.iter().collect::<Vec<_>>(), ["circle", "it's", "red"]);
        for (json, says) in [
            ("[]", "at least one word"),
            (r#"["red", "sky blue"]"#, "unlike `sky blue`"),
            (r#"["sky-blue"]"#, "letters, digits and apostrophes"),
            (r#"[""]"#, "unlike ``"),
            (r#"["'"]"#, "unlike `'`"),
            (r#""red""#, "expected a sequence"),
            ("[1]", "expected a string"),
        ] {
            let error = serde_json::from_str::<Words>(json).unwrap_err().to_string();
            assert!(error.contains(says), "{json}: {error}");
        }
    }
}
