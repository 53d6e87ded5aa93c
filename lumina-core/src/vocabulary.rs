//! Which token id has which role, found by name.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::{Error, Result, TokenRole};

/// The ids of the tokens that have a [role](TokenRole) in the stream, found by name in a tokenizer's vocabulary.
///
/// Ids need not be consecutive, nor image tokens in the order of their codes. Mirrors `VocabInfo` and
/// `VocabTranslation` of the original.
#[derive(Clone, PartialEq, Eq)]
pub struct Vocabulary {
    bos: u32,
    pad: u32,
    image_start: u32,
    image_end: u32,
    row_end: u32,
    turn_end: u32,
    placeholder: u32,
    code_to_token: Vec<u32>,
    size_tokens: Vec<u32>,
    roles: Roles,
}

/// The role of each id. One look-up per token of a stream, so small ids are a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Roles {
    by_id: Vec<TokenRole>,
    /// Roles of the ids from [`Roles::MAX_TABLE`] on, which no published vocabulary has.
    others: HashMap<u32, TokenRole>,
}

impl Roles {
    /// Larger ids get no place in the table, so that a file cannot ask for gigabytes.
    const MAX_TABLE: u32 = 1 << 18;

    fn insert(&mut self, id: u32, role: TokenRole) {
        if id >= Self::MAX_TABLE {
            self.others.insert(id, role);
            return;
        }
        let index = id as usize;
        if index >= self.by_id.len() {
            self.by_id.resize(index + 1, TokenRole::Text);
        }
        self.by_id[index] = role;
    }

    fn get(&self, id: u32) -> TokenRole {
        match self.by_id.get(id as usize) {
            Some(&role) => role,
            None => self.others.get(&id).copied().unwrap_or(TokenRole::Text),
        }
    }
}

impl Vocabulary {
    /// The name of the placeholder for an image in text.
    pub const PLACEHOLDER: &str = "<|image|>";

    /// Finds the roles among `(name, id)` pairs, which may come in any order.
    ///
    /// A vocabulary without `<|image|>` gets one with the next free id, as the original adds it.
    ///
    /// # Errors
    /// [`Error::MissingToken`], [`Error::CodeGap`], [`Error::DuplicateToken`].
    pub fn from_tokens<'a>(tokens: impl IntoIterator<Item = (&'a str, u32)>) -> Result<Self> {
        let mut ids: HashMap<TokenRole, u32> = HashMap::new();
        let mut names: HashMap<u32, &str> = HashMap::new();
        for (name, id) in tokens {
            if let Some(other) = names.insert(id, name)
                && other != name
            {
                return Err(Error::DuplicateToken { id, first: other.to_owned(), second: name.to_owned() });
            }
            let role = TokenRole::of_name(name);
            if role != TokenRole::Text {
                ids.insert(role, id);
            }
        }
        let find = |role: TokenRole, needed_as: &'static str| {
            let missing = || Error::MissingToken { name: role.name().unwrap_or_default().into(), role: needed_as };
            ids.get(&role).copied().ok_or_else(missing)
        };

        let n_codes = ids.keys().filter(|role| matches!(role, TokenRole::Code(_))).count();
        if n_codes == 0 {
            find(TokenRole::Code(0), "image token of code 0")?;
        }
        let code_to_token = (0..n_codes as u32)
            .map(|code| {
                ids.get(&TokenRole::Code(code)).copied().ok_or(Error::CodeGap { found: n_codes, missing: code })
            })
            .collect::<Result<Vec<_>>>()?;
        let size_tokens: Vec<u32> = (1..).map_while(|cells| ids.get(&TokenRole::Size { cells }).copied()).collect();
        if size_tokens.is_empty() {
            find(TokenRole::Size { cells: 1 }, "image size of one cell")?;
        }

        let mut vocabulary = Self {
            bos: find(TokenRole::Bos, "beginning of a conversation")?,
            pad: find(TokenRole::Pad, "padding")?,
            image_start: find(TokenRole::ImageStart, "image start")?,
            image_end: find(TokenRole::ImageEnd, "image end")?,
            row_end: find(TokenRole::RowEnd, "end of an image row")?,
            turn_end: find(TokenRole::TurnEnd, "end of a turn")?,
            placeholder: match ids.get(&TokenRole::Placeholder) {
                Some(&id) => id,
                None => names.keys().max().map_or(0, |id| id.saturating_add(1)),
            },
            code_to_token,
            size_tokens,
            roles: Roles::default(),
        };
        vocabulary.roles = vocabulary.table();
        Ok(vocabulary)
    }

    /// The role of each id, as the other fields have it.
    fn table(&self) -> Roles {
        let fixed = [
            (self.placeholder, TokenRole::Placeholder),
            (self.bos, TokenRole::Bos),
            (self.pad, TokenRole::Pad),
            (self.image_start, TokenRole::ImageStart),
            (self.image_end, TokenRole::ImageEnd),
            (self.row_end, TokenRole::RowEnd),
            (self.turn_end, TokenRole::TurnEnd),
        ];
        let codes = (0..).zip(&self.code_to_token).map(|(code, &id)| (id, TokenRole::Code(code)));
        let sizes = (1..).zip(&self.size_tokens).map(|(cells, &id)| (id, TokenRole::Size { cells }));
        let mut roles = Roles::default();
        fixed.into_iter().chain(codes).chain(sizes).for_each(|(id, role)| roles.insert(id, role));
        roles
    }

    /// The role of a token; [`TokenRole::Text`] for ids that have none. One look-up in a table.
    pub fn role(&self, token: u32) -> TokenRole {
        self.roles.get(token)
    }
    /// The name of a token that has a role.
    pub fn token_name(&self, token: u32) -> Option<Cow<'static, str>> {
        self.role(token).name()
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
    /// `<|image|>`, the placeholder for an image in text. The model never sees it.
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
        match self.role(token) {
            TokenRole::Code(code) => Some(code),
            _ => None,
        }
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
        match self.role(token) {
            TokenRole::Size { cells } => Some(cells),
            _ => None,
        }
    }
    /// All size tokens, from that of one cell on.
    pub fn size_tokens(&self) -> &[u32] {
        &self.size_tokens
    }
    /// Whether text cannot contain the token: see [`TokenRole::is_control`].
    pub fn is_control(&self, token: u32) -> bool {
        self.role(token).is_control()
    }
    /// The largest id with a role, for which a model's embedding needs a row. The placeholder does not count.
    pub fn max_id(&self) -> u32 {
        let fixed = [self.bos, self.pad, self.image_start, self.image_end, self.row_end, self.turn_end];
        fixed.iter().chain(&self.code_to_token).chain(&self.size_tokens).copied().max().unwrap_or(0)
    }
}

impl std::fmt::Debug for Vocabulary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vocabulary").field("n_codes", &self.n_codes()).finish_non_exhaustive()
    }
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
    fn roles_go_by_id() {
        let far = u32::MAX - 1;
        let tokens = FIXED.into_iter().chain([("IMGIMGAZ", far), ("dog", 9), ("<reserved08804>", 10)]);
        let vocabulary = Vocabulary::from_tokens(tokens).expect("complete");
        for (name, id) in FIXED.into_iter().chain([("IMGIMGAZ", far), ("<|image|>", far + 1)]) {
            assert_eq!(vocabulary.role(id), TokenRole::of_name(name), "{name}");
            assert_eq!(vocabulary.token_name(id).as_deref(), Some(name));
            assert_eq!(vocabulary.is_control(id), name != "<pad>", "{name}");
        }
        // Size tokens go up to the first gap.
        for id in [8, 9, 10, 11, 1 << 30] {
            assert_eq!((vocabulary.role(id), vocabulary.token_name(id)), (TokenRole::Text, None), "{id}");
        }
        assert_eq!(vocabulary.size_tokens(), [6, 7]);
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
