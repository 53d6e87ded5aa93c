//! What holds for every input.

use std::collections::HashSet;
use std::sync::LazyLock;

use lumina_core::{CodeGrid, ImageSize};
use lumina_testing::part;
use lumina_tokenizer::{Conversation, IGNORED, Malformed, Part, Specials, StreamEvent, TextTokenizer, UniRep};
use proptest::prelude::*;
use serde_json::Value;

static UNIREP: LazyLock<UniRep> = LazyLock::new(|| UniRep::open(part("tokenizer")).expect("the reference's tokenizer"));

/// The reference's tokenizer, and others that would make it easier to smuggle a special token into text.
static TOKENIZERS: LazyLock<Vec<TextTokenizer>> = LazyLock::new(|| {
    let json: Value = lumina_testing::json("tokenizer/tokenizer.json");
    let mut whole_words = json.clone();
    whole_words["model"]["ignore_merges"] = true.into();
    whole_words["model"]["unk_token"] = "<reserved08706>".into();
    whole_words["pre_tokenizer"] =
        serde_json::json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false });
    let mut images_added = json;
    let images: Vec<Value> = image_tokens()
        .map(|(name, id)| {
            serde_json::json!({ "id": id, "content": name, "special": true, "normalized": false,
                "single_word": false, "lstrip": false, "rstrip": false })
        })
        .collect();
    images_added["added_tokens"].as_array_mut().expect("a list of tokens").extend(images);
    let tokenizer = |json: Value| TextTokenizer::from_json(json.to_string().as_bytes(), "test").expect("a tokenizer");
    vec![UNIREP.text().clone(), tokenizer(whole_words), tokenizer(images_added)]
});

fn image_tokens() -> impl Iterator<Item = (String, u32)> {
    UNIREP.vocabulary().image_tokens().iter().map(|&id| (UNIREP.text().name_of(id).expect("a name"), id))
}

/// Names of all tokens that are not text, and their ids.
static SPECIALS: LazyLock<Vec<(String, u32)>> = LazyLock::new(|| {
    let json = lumina_testing::json("tokenizer/tokenizer.json");
    let added = json["added_tokens"].as_array().expect("a list of tokens").iter();
    let added = added.map(|token| token["content"].as_str().expect("a name").to_owned());
    let added = added.map(|name| (name.clone(), UNIREP.text().id_of(&name).expect("an id")));
    added.chain(image_tokens()).collect()
});

fn special() -> impl Strategy<Value = String> {
    (0..SPECIALS.len()).prop_map(|index| SPECIALS[index].0.clone())
}

/// Text in which special tokens, whole and in pieces, stand between other characters.
fn hostile_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        special(),
        special(),
        (special(), 0usize..20).prop_map(|(name, cut)| name.chars().take(cut).collect()),
        (special(), 0usize..20).prop_map(|(name, cut)| name.chars().skip(cut).collect()),
        "IMG|IMGIMG|BZ|Z|<|>|\\||reserved|0870|6| |\n|[a-zA-Z]{1,4}",
        any::<String>(),
    ];
    prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

/// Tokens of every role, in any order, and ids that nothing has.
fn token() -> impl Strategy<Value = u32> {
    let vocabulary = UNIREP.vocabulary();
    let roles = [
        vocabulary.bos(),
        vocabulary.image_start(),
        vocabulary.image_end(),
        vocabulary.row_end(),
        vocabulary.turn_end(),
        vocabulary.placeholder(),
    ];
    let sizes: Vec<u32> = (1..4).filter_map(|cells| vocabulary.size_token(cells)).collect();
    prop_oneof![
        2 => prop::sample::select(roles.to_vec()),
        2 => prop::sample::select(sizes),
        2 => prop::sample::select(vocabulary.image_tokens()),
        4 => 0..UNIREP.text().n_tokens() as u32,
        1 => any::<u32>(),
    ]
}

fn image(max_cells: u32) -> impl Strategy<Value = CodeGrid> {
    let n_codes = UNIREP.vocabulary().n_codes() as u32;
    (1..=max_cells, 1..=max_cells).prop_flat_map(move |(height, width)| {
        prop::collection::vec(0..n_codes, (height * width * 4) as usize)
            .prop_map(move |codes| CodeGrid::new(height * 2, width * 2, codes).expect("a code for each latent"))
    })
}

/// Well-formed and broken streams: images whole, cut, and with a token changed, between any tokens.
fn stream() -> impl Strategy<Value = Vec<u32>> {
    let encode = |grid: CodeGrid| UNIREP.encode_image(&grid).expect("an allowed size");
    let piece = prop_oneof![
        prop::collection::vec(token(), 0..12),
        image(3).prop_map(encode),
        (image(3), any::<prop::sample::Index>()).prop_map(move |(grid, cut)| {
            let mut tokens = encode(grid);
            tokens.truncate(cut.index(tokens.len()));
            tokens
        }),
        (image(3), any::<prop::sample::Index>(), token()).prop_map(move |(grid, at, token)| {
            let mut tokens = encode(grid);
            let at = at.index(tokens.len());
            tokens[at] = token;
            tokens
        }),
    ];
    prop::collection::vec(piece, 0..5).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn plain_text_has_no_special_tokens(text in hostile_text()) {
        let specials: HashSet<u32> = SPECIALS.iter().map(|&(_, id)| id).collect();
        for tokenizer in TOKENIZERS.iter() {
            let ids = tokenizer.encode(&text, Specials::Plain).expect("any text");
            prop_assert!(ids.iter().all(|id| !specials.contains(id)), "{ids:?}");
            prop_assert_eq!(&tokenizer.decode(&ids), &text);
        }
    }

    #[test]
    fn text_without_specials_is_the_same_in_both_modes(text in any::<String>()) {
        prop_assume!(!SPECIALS.iter().any(|(name, _)| text.contains(name)));
        let tokenizer = UNIREP.text();
        let ids = tokenizer.encode(&text, Specials::Plain).expect("any text");
        prop_assert_eq!(&ids, &tokenizer.encode(&text, Specials::Parse).expect("any text"));
    }

    #[test]
    fn what_is_typed_comes_back(text in hostile_text()) {
        let tokenizer = UNIREP.text();
        let ids = tokenizer.encode(&text, Specials::Parse).expect("any text");
        prop_assert_eq!(tokenizer.decode(&ids), text);
    }

    #[test]
    fn streamed_text_is_whole_text(ids in prop::collection::vec(token(), 0..60)) {
        let tokenizer = UNIREP.text();
        let mut stream = tokenizer.stream();
        let mut pieces: Vec<String> = ids.iter().filter_map(|&id| stream.push(id)).collect();
        pieces.extend(stream.finish());
        prop_assert_eq!(pieces.concat(), tokenizer.decode(&ids));
        prop_assert!(pieces.iter().all(|piece| !piece.is_empty()));
    }

    #[test]
    fn streamed_characters_are_never_broken(text in any::<String>()) {
        let tokenizer = UNIREP.text();
        let mut stream = tokenizer.stream();
        let mut streamed = String::new();
        for id in tokenizer.encode(&text, Specials::Plain).expect("any text") {
            streamed.extend(stream.push(id));
            prop_assert!(text.starts_with(&streamed));
        }
        prop_assert_eq!((streamed, stream.finish()), (text, None));
    }

    #[test]
    fn any_prefix_of_any_stream_decodes(tokens in stream()) {
        for end in 0..=tokens.len() {
            let prefix = &tokens[..end];
            let decoded = UNIREP.decode(prefix, Malformed::Partial).expect("never fails");
            for image in decoded.malformed() {
                prop_assert!(image.start < prefix.len() && image.position <= prefix.len());
                prop_assert_eq!(image.found, prefix.get(image.position).copied());
            }
            prop_assert_eq!(UNIREP.decode(prefix, Malformed::Error).is_ok(), decoded.malformed().next().is_none());
        }
    }

    #[test]
    fn rows_are_those_of_the_image(tokens in stream()) {
        let mut stream = UNIREP.stream();
        let mut rows = Vec::new();
        let mut events: Vec<StreamEvent> = tokens.iter().filter_map(|&token| stream.push(token)).collect();
        events.extend(stream.finish());
        for event in events {
            let grid = match event {
                StreamEvent::Row { row, codes } => {
                    prop_assert_eq!(row as usize, rows.len());
                    rows.push(codes);
                    continue;
                }
                StreamEvent::Image(grid) => Some(grid),
                StreamEvent::Malformed(image) => image.rows,
                StreamEvent::Text(_) | StreamEvent::Special(_) | StreamEvent::ImageStarted { .. } => continue,
            };
            let codes = grid.map_or_else(Vec::new, |grid| grid.codes().to_vec());
            prop_assert_eq!(codes, std::mem::take(&mut rows).concat());
        }
    }

    #[test]
    fn a_conversation_decodes_to_what_was_said(
        texts in prop::collection::vec(hostile_text(), 1..4),
        grids in prop::collection::vec(image(2), 4),
    ) {
        // An image before each text; the turn's end tells the texts apart.
        let mut conversation = Conversation::new();
        let mut said = "<s>".to_owned();
        for (index, (text, grid)) in texts.iter().zip(&grids).enumerate() {
            let parts = [Part::Image(grid.clone()), text.as_str().into()];
            conversation = if index % 2 == 0 { conversation.human(parts) } else { conversation.assistant(parts) };
            said += &format!("<|image|>{text}<reserved08706>");
        }
        let encoded = UNIREP.encode(&conversation).expect("images in their places");
        let decoded = UNIREP.decode(&encoded.tokens, Malformed::Error).expect("well-formed");
        prop_assert_eq!(decoded.text(), said);
        prop_assert!(decoded.images().eq(grids.iter().take(texts.len())));
        for (&label, &token) in encoded.labels.iter().zip(&encoded.tokens) {
            prop_assert!(label == IGNORED || label == i64::from(token));
        }
    }
}

/// Every size that a target of 256 to 1024 pixels allows, and all between: encoding and decoding is the identity.
#[test]
fn images_of_every_size_come_back() {
    let n_codes = UNIREP.vocabulary().n_codes() as u32;
    let mut ran = 0;
    for (width, height) in (1..=64).flat_map(|width| (1..=64).map(move |height| (width, height))) {
        if width * height > 32 * 32 || width.max(height) > 4 * width.min(height) {
            continue;
        }
        let size = ImageSize::from_cells(width, height).expect("cells");
        let codes = lumina_testing::lcg(width * 100 + height).take(size.n_codes()).map(|state| (state >> 8) % n_codes);
        let grid = CodeGrid::new(size.latent_rows(), size.latent_columns(), codes.collect()).expect("a code for each");
        let tokens = UNIREP.encode_image(&grid).expect("an allowed size");
        assert_eq!(tokens.len(), size.n_tokens());
        let decoded = UNIREP.decode(&tokens, Malformed::Error).expect("well-formed");
        assert!(decoded.images().eq([&grid]), "{size}");
        ran += 1;
    }
    assert!(ran > 1000, "{ran} sizes");
}
