//! Which token id plays which role, found by name.

use std::collections::HashMap;

use crate::{Error, Result};

/// The ids of the tokens that carry meaning in the stream, found by name in a tokenizer's vocabulary.
///
/// Image tokens are named `IMGIMG` + the digits of the code as letters (A = 0 … J = 9) + `Z`; their ids are
/// looked up by that name and need not be consecutive. Mirrors `VocabInfo` and `VocabTranslation` of the original.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vocabulary {
    bos: u32,
    pad: u32,
    image_start: u32,
    image_end: u32,
    row_end: u32,
    turn_end: u32,
    placeholder: u32,
    code_to_token: Vec<u32>,
    token_to_code: HashMap<u32, u32>,
    size_tokens: Vec<u32>,
}

impl Vocabulary {
    /// The name of the placeholder for an image in text.
    pub const PLACEHOLDER: &str = "<|image|>";

    /// Finds the roles among `(name, id)` pairs, which may come in any order.
    ///
    /// A vocabulary with no `<|image|>` gets one with the next free id, as the original adds it.
    ///
    /// # Errors
    /// [`Error::MissingToken`], [`Error::CodeGap`], [`Error::DuplicateToken`].
    pub fn from_tokens<'a>(tokens: impl IntoIterator<Item = (&'a str, u32)>) -> Result<Self> {
        let mut ids: HashMap<&str, u32> = HashMap::new();
        let mut names: HashMap<u32, &str> = HashMap::new();
        for (name, id) in tokens {
            if let Some(other) = names.insert(id, name)
                && other != name
            {
                return Err(Error::DuplicateToken { id, first: other.to_owned(), second: name.to_owned() });
            }
            ids.insert(name, id);
        }
        let find = |name: &str, role: &'static str| {
            ids.get(name).copied().ok_or_else(|| Error::MissingToken { name: name.to_owned(), role })
        };

        let codes: HashMap<u32, u32> =
            ids.iter().filter_map(|(name, &id)| image_code(name).map(|code| (code, id))).collect();
        let mut code_to_token = Vec::with_capacity(codes.len());
        for code in 0..codes.len() as u32 {
            code_to_token.push(*codes.get(&code).ok_or(Error::CodeGap { found: codes.len(), missing: code })?);
        }
        if code_to_token.is_empty() {
            return Err(Error::MissingToken { name: "IMGIMGAZ".to_owned(), role: "image token of code 0" });
        }
        let token_to_code = code_to_token.iter().enumerate().map(|(code, &id)| (id, code as u32)).collect();

        let size_tokens: Vec<u32> =
            (1..).map_while(|cells: u32| ids.get(reserved(8800 + cells).as_str()).copied()).collect();
        if size_tokens.is_empty() {
            return Err(Error::MissingToken { name: reserved(8801), role: "image size of one cell" });
        }

        Ok(Self {
            bos: find("<s>", "beginning of a conversation")?,
            pad: find("<pad>", "padding")?,
            image_start: find("<racm3:break>", "image start")?,
            image_end: find("<eoss>", "image end")?,
            row_end: find(&reserved(8799), "end of an image row")?,
            turn_end: find(&reserved(8706), "end of a turn")?,
            placeholder: match ids.get(Self::PLACEHOLDER) {
                Some(&id) => id,
                None => names.keys().max().map_or(0, |id| id.saturating_add(1)),
            },
            code_to_token,
            token_to_code,
            size_tokens,
        })
    }

    /// `<s>`, which begins every stream.
    pub fn bos(&self) -> u32 {
        self.bos
    }
    /// `<pad>`.
    pub fn pad(&self) -> u32 {
        self.pad
    }
    /// `<racm3:break>`, which begins an image.
    pub fn image_start(&self) -> u32 {
        self.image_start
    }
    /// `<eoss>`, which ends an image.
    pub fn image_end(&self) -> u32 {
        self.image_end
    }
    /// `<reserved08799>`, which ends a row of image tokens.
    pub fn row_end(&self) -> u32 {
        self.row_end
    }
    /// `<reserved08706>`, which ends a turn and stops generation.
    pub fn turn_end(&self) -> u32 {
        self.turn_end
    }
    /// `<|image|>`, which stands for an image in text and never reaches the model.
    pub fn placeholder(&self) -> u32 {
        self.placeholder
    }
    /// Number of VQ codes that have a token.
    pub fn n_codes(&self) -> usize {
        self.code_to_token.len()
    }
    /// The image token of a VQ code.
    pub fn token_of_code(&self, code: u32) -> Option<u32> {
        self.code_to_token.get(code as usize).copied()
    }
    /// The VQ code of an image token.
    pub fn code_of_token(&self, token: u32) -> Option<u32> {
        self.token_to_code.get(&token).copied()
    }
    /// All image tokens, in the order of their codes.
    pub fn image_tokens(&self) -> &[u32] {
        &self.code_to_token
    }
    /// The size token of `cells` cells (32 pixels each).
    pub fn size_token(&self, cells: u32) -> Option<u32> {
        self.size_tokens.get(cells.checked_sub(1)? as usize).copied()
    }
    /// The number of cells that a size token states.
    pub fn cells_of_token(&self, token: u32) -> Option<u32> {
        self.size_tokens.iter().position(|&id| id == token).map(|index| index as u32 + 1)
    }
    /// Whether the token is part of an image's layout or content, or ends a turn: what text cannot contain.
    pub fn is_control(&self, token: u32) -> bool {
        [self.bos, self.image_start, self.image_end, self.row_end, self.turn_end, self.placeholder].contains(&token)
            || self.token_to_code.contains_key(&token)
            || self.cells_of_token(token).is_some()
    }
    /// The largest id in use, which a model's embedding must hold; the placeholder does not count.
    pub fn max_id(&self) -> u32 {
        let fixed = [self.bos, self.pad, self.image_start, self.image_end, self.row_end, self.turn_end];
        fixed.iter().chain(&self.code_to_token).chain(&self.size_tokens).copied().max().unwrap_or(0)
    }
}

fn reserved(number: u32) -> String {
    format!("<reserved{number:05}>")
}

/// The VQ code in an image token's name.
fn image_code(name: &str) -> Option<u32> {
    let letters = name.strip_prefix("IMGIMG")?.strip_suffix('Z')?;
    // A leading zero would make a second name for the same code.
    if letters.is_empty() || letters.len() > 6 || (letters.len() > 1 && letters.starts_with('A')) {
        return None;
    }
    letters
        .bytes()
        .try_fold(0u32, |code, letter| (b'A'..=b'J').contains(&letter).then(|| code * 10 + u32::from(letter - b'A')))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIXED: [(&str, u32); 8] = [
        ("<s>", 0),
        ("<pad>", 1),
        ("<racm3:break>", 2),
        ("<eoss>", 3),
        ("<reserved08799>", 4),
        ("<reserved08706>", 5),
        ("<reserved08801>", 6),
        ("<reserved08802>", 7),
    ];

    #[test]
    fn image_tokens_go_by_name() {
        let tokens = FIXED.into_iter().chain([("IMGIMGBZ", 10), ("IMGIMGAZ", 12), ("IMGIMGCZ", 11)]);
        let vocabulary = Vocabulary::from_tokens(tokens).expect("complete");
        assert_eq!(vocabulary.image_tokens(), [12, 10, 11]);
        assert_eq!(vocabulary.code_of_token(11), Some(2));
        assert_eq!(vocabulary.size_token(2), Some(7));
        assert_eq!(vocabulary.size_token(0), None);
        assert_eq!(vocabulary.cells_of_token(6), Some(1));
        assert_eq!(vocabulary.placeholder(), 13);
    }

    #[test]
    fn what_is_missing_is_named() {
        let message =
            |tokens: Vec<(&'static str, u32)>| Vocabulary::from_tokens(tokens).expect_err("incomplete").to_string();
        assert!(message(FIXED.to_vec()).contains("IMGIMGAZ"));
        let gap = FIXED.into_iter().chain([("IMGIMGAZ", 10), ("IMGIMGCZ", 11)]).collect();
        assert!(message(gap).contains("code 1"));
        let no_row_end = FIXED.into_iter().filter(|(name, _)| *name != "<reserved08799>").chain([("IMGIMGAZ", 9)]);
        assert!(message(no_row_end.collect()).contains("<reserved08799>"));
        let twice = FIXED.into_iter().chain([("IMGIMGAZ", 5)]).collect();
        assert!(message(twice).contains("id 5"));
    }
}
