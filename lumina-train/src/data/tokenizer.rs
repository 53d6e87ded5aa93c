//! Training a text tokenizer with the layout of the checkpoints.

use std::collections::HashMap;
use std::path::Path;

use lumina_checkpoint::save_bytes;
use lumina_core::Vocabulary;
use serde_json::{Value, json};
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper, TokenizerImpl};

use crate::{Error, Result};

/// The vocabulary of a new tokenizer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenizerOptions {
    /// Entries of the codebook of the image tokenizer; published: 8,192.
    pub n_codes: u32,
    /// The longest side of an image that has a token, in cells of 32 pixels; published: 120 and more.
    pub max_cells: u32,
    /// The most pieces of text that are longer than a byte.
    pub max_merges: usize,
}

/// The names of image tokens have up to six digits.
const MAX_CODES: u32 = 1_000_000;
/// More than the longest side of [`lumina_core::crop_sizes`].
const MAX_CELLS: u32 = 1000;
/// A pair of pieces that occurs less often is not merged.
const MIN_FREQUENCY: u64 = 2;

/// Trains a byte-level BPE tokenizer on texts and writes `tokenizer.json`, `tokenizer_config.json` and
/// `special_tokens_map.json` to a folder, which `lumina_tokenizer` and `transformers` open.
///
/// The layout is Chameleon's: `<s> <pad> </s> <unk>`, the image tokens, `<eoss>`, `<racm3:break>`, the reserved tokens
/// that Lumina-mGPT uses, then the 256 bytes and the pieces of text. Any text can be encoded, seen or not; the same
/// texts in any order give the same files.
///
/// ```
/// use lumina_tokenizer::{Specials, UniRep};
/// use lumina_train::data::{TokenizerOptions, train_tokenizer};
/// # let folder = tempfile::tempdir()?;
/// # let folder = folder.path();
///
/// let texts = ["a red circle", "circle and square", "a blue circle", "circle"];
/// train_tokenizer(folder, texts, &TokenizerOptions { n_codes: 512, max_cells: 16, max_merges: 100 })?;
///
/// let unirep = UniRep::open(folder)?;
/// assert_eq!(unirep.vocabulary().n_codes(), 512);
/// assert_eq!(unirep.text().encode(" circle", Specials::Plain)?.len(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`Error::OutOfRange`], [`Error::Write`] and [`Error::Checkpoint`] where the folder cannot be
/// written, [`Error::TrainTokenizer`] should training fail.
pub fn train_tokenizer<S: AsRef<str> + Send>(
    folder: impl AsRef<Path>,
    texts: impl IntoIterator<Item = S, IntoIter: Send>,
    options: &TokenizerOptions,
) -> Result<()> {
    let ranges = [("n_codes", options.n_codes, MAX_CODES), ("max_cells", options.max_cells, MAX_CELLS)];
    for (field, found, most) in ranges {
        if !(1..=most).contains(&found) {
            let (value, expected) = (found.to_string(), format!("1 to {most}"));
            return Err(Error::OutOfRange { field, value, expected });
        }
    }
    let folder = folder.as_ref();
    std::fs::create_dir_all(folder).map_err(|source| Error::Write { file: folder.to_owned(), source })?;

    let specials = special_names(options);
    let Trained { pieces, merges } = train(texts, options.max_merges)?;
    let names = specials.iter().chain(&pieces);
    let vocab: HashMap<&String, usize> = names.enumerate().map(|(id, name)| (name, id)).collect();
    let added = |(id, name): (usize, &String)| {
        json!({ "id": id, "content": name, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            "special": true })
    };
    let begin = |sequence: &str, kind: u8| {
        [
            json!({ "SpecialToken": { "id": "<s>", "type_id": kind } }),
            json!({ "Sequence": { "id": sequence, "type_id": kind } }),
        ]
    };
    let pair = [begin("A", 0), begin("B", 1)].concat();
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": specials.iter().enumerate().map(added).collect::<Vec<_>>(),
        "normalizer": null,
        "pre_tokenizer": pre_tokenizer(),
        "post_processor": {
            "type": "TemplateProcessing",
            "single": begin("A", 0),
            "pair": pair,
            "special_tokens": { "<s>": { "id": "<s>", "ids": [0], "tokens": ["<s>"] } },
        },
        "decoder": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true },
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            "ignore_merges": false,
            "vocab": vocab,
            // The spelling that every version of the `tokenizers` library reads.
            "merges": merges.iter().map(|(left, right)| format!("{left} {right}")).collect::<Vec<_>>(),
        },
    });
    let roles = json!({
        "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>",
        "sep_token": turn_end(),
    });
    let mut config = json!({
        "add_bos_token": true, "add_eos_token": false, "clean_up_tokenization_spaces": false, "legacy": false,
        "tokenizer_class": "LlamaTokenizer", "use_default_system_prompt": false,
    });
    if let (Value::Object(config), Value::Object(roles)) = (&mut config, &roles) {
        config.extend(roles.clone());
    }
    for (name, content) in
        [("special_tokens_map.json", roles), ("tokenizer_config.json", config), ("tokenizer.json", tokenizer)]
    {
        save_bytes(folder.join(name), content.to_string().as_bytes())?;
    }
    Ok(())
}

/// The tokens other than text, in the order of their ids.
fn special_names(options: &TokenizerOptions) -> Vec<String> {
    let mut names: Vec<String> = ["<s>", "<pad>", "</s>", "<unk>"].map(str::to_owned).into();
    names.extend((0..options.n_codes).map(image_name));
    names.extend(["<eoss>", "<racm3:break>"].map(str::to_owned));
    names.push(turn_end());
    names.extend((8796..=8799).map(reserved));
    names.extend((1..=options.max_cells).map(|cells| reserved(8800 + cells)));
    names
}

fn turn_end() -> String {
    reserved(8706)
}

fn reserved(number: u32) -> String {
    format!("<reserved{number:05}>")
}

/// The digits of the code as letters, A for 0.
fn image_name(code: u32) -> String {
    let letters = code.to_string().bytes().map(|digit| char::from(digit - b'0' + b'A')).collect::<String>();
    format!("IMGIMG{letters}Z")
}

/// How the tokenizers of the checkpoints split text before BPE.
fn pre_tokenizer() -> Value {
    let split = |regex: &str| {
        let pattern = json!({ "Regex": regex });
        json!({ "type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": false })
    };
    json!({
        "type": "Sequence",
        "pretokenizers": [
            split("<sentinel:[0-9]+>"),
            split("(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z"),
            split("([\\t\\n]|    |  )"),
            { "type": "Digits", "individual_digits": true },
            { "type": "Punctuation", "behavior": "Isolated" },
            { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true },
        ],
    })
}

type Tokenizer = TokenizerImpl<BPE, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;

struct Trained {
    /// The pieces of text, bytes first.
    pieces: Vec<String>,
    /// The pairs that are merged to those longer than a byte, in the order of merging.
    merges: Vec<(String, String)>,
}

fn train<S: AsRef<str> + Send>(
    texts: impl IntoIterator<Item = S, IntoIter: Send>,
    max_merges: usize,
) -> Result<Trained> {
    let failed = |source| Error::TrainTokenizer { source };
    let alphabet = ByteLevel::alphabet();
    let mut trainer = BpeTrainer::builder()
        .show_progress(false)
        .min_frequency(MIN_FREQUENCY)
        .vocab_size(alphabet.len().saturating_add(max_merges))
        .initial_alphabet(alphabet.into_iter().collect())
        .build();
    let mut tokenizer = Tokenizer::new(BPE::default());
    let pre_tokenizer: PreTokenizerWrapper =
        serde_json::from_str(&pre_tokenizer().to_string()).map_err(|error| failed(error.into()))?;
    tokenizer.with_pre_tokenizer(Some(pre_tokenizer));
    tokenizer.train(&mut trainer, texts.into_iter()).map_err(failed)?;

    let model = tokenizer.get_model();
    let mut pieces: Vec<(u32, String)> = model.get_vocab().into_iter().map(|(name, id)| (id, name)).collect();
    pieces.sort_unstable();
    let merges = serde_json::to_value(model).map_err(|error| failed(error.into()))?["merges"].take();
    let merges: Vec<(String, String)> = serde_json::from_value(merges).map_err(|error| failed(error.into()))?;

    // Texts that contain names of image tokens must not make a second token of that name, nor merges that lead to one.
    let special = |name: &str| name.starts_with("IMGIMG") || name == Vocabulary::PLACEHOLDER;
    let pieces = pieces.into_iter().map(|(_, name)| name).filter(|name| !special(name)).collect();
    let text_only =
        |(left, right): &(String, String)| !special(left) && !special(right) && !special(&format!("{left}{right}"));
    Ok(Trained { pieces, merges: merges.into_iter().filter(text_only).collect() })
}

#[cfg(test)]
mod tests {
    use lumina_tokenizer::{Specials, UniRep};
    use proptest::prelude::*;

    use super::*;

    const OPTIONS: TokenizerOptions = TokenizerOptions { n_codes: 130, max_cells: 12, max_merges: 200 };

    fn trained(texts: &[&str]) -> (UniRep, Vec<u8>) {
        let folder = tempfile::tempdir().unwrap();
        train_tokenizer(folder.path(), texts, &OPTIONS).unwrap();
        let bytes = std::fs::read(folder.path().join("tokenizer.json")).unwrap();
        (UniRep::open(folder.path()).unwrap(), bytes)
    }

    const TEXTS: [&str; 4] =
        ["a red circle", "circle, left of a blue circle", "IMGIMGBZ IMGIMGBZ IMGIMGBZ", "circle 12 円 円"];

    #[test]
    fn the_layout_is_that_of_the_checkpoints() {
        let (unirep, bytes) = trained(&TEXTS);
        let vocabulary = unirep.vocabulary();
        let ids = [vocabulary.bos(), vocabulary.pad(), vocabulary.image_end(), vocabulary.image_start()];
        assert_eq!(ids, [0, 1, 134, 135]);
        assert!(vocabulary.image_tokens().iter().copied().eq(4..134));
        assert_eq!((vocabulary.turn_end(), vocabulary.row_end()), (136, 140));
        assert_eq!(
            (vocabulary.size_token(1), vocabulary.size_token(12), vocabulary.size_token(13)),
            (Some(141), Some(152), None)
        );
        let json: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!((&json["model"]["vocab"]["!"], &json["model"]["vocab"]["Ġ"]), (&json!(153), &json!(153 + 220)));
        // Ids are without gaps.
        let mut ids: Vec<u64> =
            json["model"]["vocab"].as_object().unwrap().values().filter_map(Value::as_u64).collect();
        ids.sort_unstable();
        assert!(ids.iter().copied().eq(0..ids.len() as u64));
    }

    #[test]
    fn frequent_words_are_one_token() {
        let (unirep, _) = trained(&TEXTS);
        let encode = |text: &str, specials| unirep.text().encode(text, specials).unwrap();
        for word in ["circle", " circle", " 円"] {
            assert_eq!(encode(word, Specials::Plain).len(), 1, "{word}");
        }
        assert_eq!(encode("IMGIMGBZ<reserved08706>", Specials::Parse), [5, 136]);
        assert!(encode("IMGIMGBZ", Specials::Plain).len() > 1);
    }

    #[test]
    fn the_result_depends_on_the_texts_alone() {
        let mut reversed = TEXTS;
        reversed.reverse();
        assert_eq!(trained(&TEXTS).1, trained(&TEXTS).1);
        assert_eq!(trained(&TEXTS).1, trained(&reversed).1);
        assert_ne!(trained(&TEXTS).1, trained(&TEXTS[..1]).1);
    }

    #[test]
    fn texts_may_be_absent_but_not_codes_and_cells() {
        assert_eq!(trained(&[]).0.text().n_tokens(), 153 + 256 + 1);
        let folder = tempfile::tempdir().unwrap();
        for bad in [
            TokenizerOptions { n_codes: 0, ..OPTIONS },
            TokenizerOptions { n_codes: MAX_CODES + 1, ..OPTIONS },
            TokenizerOptions { max_cells: 0, ..OPTIONS },
            TokenizerOptions { max_cells: MAX_CELLS + 1, ..OPTIONS },
        ] {
            assert!(matches!(train_tokenizer(folder.path(), [""], &bad), Err(Error::OutOfRange { .. })), "{bad:?}");
        }
    }

    #[test]
    fn names_of_image_tokens() {
        assert_eq!([0, 9, 10, 8191].map(image_name), ["IMGIMGAZ", "IMGIMGJZ", "IMGIMGBAZ", "IMGIMGIBJBZ"]);
    }

    proptest! {
        #[test]
        fn any_text_is_decoded_as_it_was(text: String) {
            static TRAINED: std::sync::LazyLock<UniRep> = std::sync::LazyLock::new(|| trained(&TEXTS).0);
            let tokens = TRAINED.text().encode(&text, Specials::Plain).unwrap();
            prop_assert_eq!(TRAINED.text().decode(&tokens), text);
        }
    }
}
