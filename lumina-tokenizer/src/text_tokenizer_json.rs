//! Chameleon's own vocabulary file, `text_tokenizer.json`, in the folder of the image tokenizer.

use std::collections::HashMap;
use std::path::Path;

use lumina_core::{Cause, Vocabulary};

use crate::{Error, Result, UniRep};

#[derive(serde::Deserialize)]
struct TextTokenizerJson {
    model: BpeModel,
}

#[derive(serde::Deserialize)]
struct BpeModel {
    vocab: HashMap<String, u32>,
}

/// Reads the vocabulary of a `text_tokenizer.json`, of which only `model.vocab` is used.
///
/// Mirrors `VocabInfo` of Chameleon's `inference/vocab.py`.
///
/// # Errors
/// [`Error::Core`] where the file cannot be read, [`Error::Json`], [`Error::Vocabulary`].
pub fn read_text_tokenizer(file: impl AsRef<Path>) -> Result<Vocabulary> {
    let file = file.as_ref();
    let json = lumina_core::file::read_document_text(file)?;
    lumina_core::file::check_json(file, json.as_bytes())?;
    let parsed: TextTokenizerJson = serde_json::from_str(&json)
        .map_err(|error| Error::Json { file: file.to_owned(), source: Cause::new(&error) })?;
    Vocabulary::from_tokens(parsed.model.vocab.iter().map(|(name, &id)| (name.as_str(), id)))
        .map_err(|reason| Error::Vocabulary { file: file.to_owned(), reason: Box::new(reason) })
}

impl UniRep {
    /// Checks that a `text_tokenizer.json` gives every VQ code the same token as this tokenizer.
    ///
    /// # Errors
    /// Those of [`read_text_tokenizer`], and [`Error::ImageTokens`] with the first disagreement.
    pub fn check_image_tokens(&self, text_tokenizer_json: impl AsRef<Path>) -> Result<()> {
        let file = text_tokenizer_json.as_ref();
        let other = read_text_tokenizer(file)?;
        let n_codes = self.vocabulary().n_codes().max(other.n_codes()) as u32;
        for code in 0..n_codes {
            let (first, second) = (self.vocabulary().token_of_code(code), other.token_of_code(code));
            if first != second {
                let (first_file, second_file) = (self.text().file().to_owned(), file.to_owned());
                return Err(Error::ImageTokens { code, first_file, first, second_file, second });
            }
        }
        Ok(())
    }
}
