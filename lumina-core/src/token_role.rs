//! What a token does in the stream, and its name in a tokenizer's vocabulary.

use std::borrow::Cow;

use crate::Vocabulary;

/// What a token does in the stream.
///
/// Every role but [`TokenRole::Text`] has a name in the tokenizer's vocabulary, by which its id is found. Published
/// tokenizers name image tokens `IMGIMG` + the decimal digits of the code as letters (A = 0 … J = 9) + `Z`, and
/// reserved tokens `<reserved` + a number of at least five digits + `>`.
///
/// ```
/// use lumina_core::TokenRole;
/// assert_eq!(TokenRole::of_name("IMGIMGIBJBZ"), TokenRole::Code(8191));
/// assert_eq!(TokenRole::Size { cells: 24 }.name().as_deref(), Some("<reserved08824>"));
/// assert_eq!(TokenRole::of_name("dog"), TokenRole::Text);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenRole {
    /// No role in the layout: a token of text.
    Text,
    /// `<s>`, which begins every stream.
    Bos,
    /// `<pad>`.
    Pad,
    /// `<racm3:break>`, which begins an image.
    ImageStart,
    /// `<eoss>`, which ends an image.
    ImageEnd,
    /// `<reserved08799>`, which ends a row of image tokens.
    RowEnd,
    /// `<reserved08706>`, which ends a turn and stops generation.
    TurnEnd,
    /// `<|image|>`, the placeholder for an image in text. The model never sees it.
    Placeholder,
    /// `<reserved08801>` and the following ones, which state the height or the width of an image.
    Size {
        /// The height or width in cells of 32 pixels, from 1.
        cells: u32,
    },
    /// `IMGIMGAZ` and so on, an image token: a VQ code.
    Code(u32),
}

/// The number of the reserved token that states a size of `n` cells is this plus `n`.
const RESERVED_SIZE: u32 = 8800;

impl TokenRole {
    /// The roles whose name is fixed, with that name.
    const NAMED: [(Self, &str); 7] = [
        (Self::Bos, "<s>"),
        (Self::Pad, "<pad>"),
        (Self::ImageStart, "<racm3:break>"),
        (Self::ImageEnd, "<eoss>"),
        (Self::RowEnd, "<reserved08799>"),
        (Self::TurnEnd, "<reserved08706>"),
        (Self::Placeholder, Vocabulary::PLACEHOLDER),
    ];

    /// The role of the token with this name.
    pub fn of_name(name: &str) -> Self {
        if let Some(&(role, _)) = Self::NAMED.iter().find(|(_, fixed)| *fixed == name) {
            return role;
        }
        match (reserved_number(name), image_code(name)) {
            (Some(number), _) if number > RESERVED_SIZE => Self::Size { cells: number - RESERVED_SIZE },
            (_, Some(code)) => Self::Code(code),
            _ => Self::Text,
        }
    }

    /// The name of the token with this role; `None` for text.
    pub fn name(self) -> Option<Cow<'static, str>> {
        match self {
            Self::Size { cells } => Some(reserved_token_name(RESERVED_SIZE.saturating_add(cells)).into()),
            Self::Code(code) => {
                let letters = code.to_string().bytes().map(|digit| char::from(digit - b'0' + b'A')).collect::<String>();
                Some(format!("IMGIMG{letters}Z").into())
            }
            _ => Self::NAMED.iter().find(|(role, _)| *role == self).map(|&(_, name)| name.into()),
        }
    }

    /// Whether the token belongs to the layout, is part of an image, or ends a turn: what text cannot contain.
    pub fn is_control(self) -> bool {
        !matches!(self, Self::Text | Self::Pad)
    }
}

/// The name of the reserved token with this number. The checkpoints keep many of them, most without a role.
///
/// ```
/// assert_eq!(lumina_core::reserved_token_name(42), "<reserved00042>");
/// ```
pub fn reserved_token_name(number: u32) -> String {
    format!("<reserved{number:05}>")
}

/// Whether a name is that of a special token, which text from users must not become: `<s>`, `<reserved00042>`,
/// `IMGIMGAZ`, ….
///
/// Names of the same form that no tokenizer has, such as `<reserved1>`, are special too.
pub fn is_special_name(name: &str) -> bool {
    let is_number = |digits: &str, first: u8, last: u8| {
        !digits.is_empty() && digits.bytes().all(|digit| (first..=last).contains(&digit))
    };
    TokenRole::of_name(name) != TokenRole::Text
        || ["</s>", "<unk>"].contains(&name)
        || between(name, "<reserved", ">").is_some_and(|digits| is_number(digits, b'0', b'9'))
        || between(name, "IMGIMG", "Z").is_some_and(|letters| is_number(letters, b'A', b'J'))
}

fn between<'a>(name: &'a str, prefix: &str, suffix: &str) -> Option<&'a str> {
    name.strip_prefix(prefix)?.strip_suffix(suffix)
}

/// The number in a reserved token's name.
fn reserved_number(name: &str) -> Option<u32> {
    let digits = between(name, "<reserved", ">")?;
    // Padded with zeros to five digits, and no further: other spellings would be second names for the same number.
    let padded = digits.len() == 5 || (digits.len() > 5 && !digits.starts_with('0'));
    let is_number = padded && digits.bytes().all(|digit| digit.is_ascii_digit());
    is_number.then(|| digits.parse().ok()).flatten()
}

/// The VQ code in an image token's name.
fn image_code(name: &str) -> Option<u32> {
    let letters = between(name, "IMGIMG", "Z")?;
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

    #[test]
    fn names_and_roles_agree() {
        let sizes = [1, 24, 91_200].map(|cells| TokenRole::Size { cells });
        let codes = [0, 9, 10, 8191, 999_999].map(TokenRole::Code);
        for role in TokenRole::NAMED.map(|(role, _)| role).into_iter().chain(sizes).chain(codes) {
            let name = role.name().expect("a role has a name");
            assert_eq!(TokenRole::of_name(&name), role, "{name}");
            assert!(is_special_name(&name), "{name}");
        }
        assert_eq!(TokenRole::Text.name(), None);
    }

    #[test]
    fn a_role_has_one_name() {
        for name in
            ["<reserved8801>", "<reserved008801>", "<reserved08800>", "<reserved+8801>", "IMGIMGABZ", "IMGIMGKZ"]
        {
            assert_eq!(TokenRole::of_name(name), TokenRole::Text, "{name}");
        }
        assert_eq!(TokenRole::of_name("<reserved99999999999>"), TokenRole::Text);
    }

    #[test]
    fn special_names() {
        for name in
            ["<s>", "<|image|>", "<reserved08706>", "IMGIMGAZ", "IMGIMGIBJBZ", "<reserved1>", "</s>", "IMGIMGAAZ"]
        {
            assert!(is_special_name(name), "{name}");
        }
        for name in
            ["s", "<", "<reserved", "<reservedx>", "<reserved>", "IMG", "IMGIMG", "IMGIMGZ", "IMGIMGKZ", "BZ", "IMGBZ"]
        {
            assert!(!is_special_name(name), "{name}");
        }
    }
}
