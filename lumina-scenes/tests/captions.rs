//! Writing, parsing and comparing captions.
#![allow(clippy::unwrap_used, reason = "tests")]

use lumina_scenes::evaluation::caption_is_correct;
use lumina_scenes::{
    Backdrop, Caption, Colour, DEFAULT_TARGET_PX, Fill, MAX_OBJECTS, Mention, ObjectShape, ObjectSize, Position,
    Relation, Scenes, Split,
};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

fn mentions() -> impl Strategy<Value = Mention> {
    let attributes = (
        option::of(select(ObjectSize::ALL.to_vec())),
        select(Fill::ALL.to_vec()),
        option::of(select(Colour::ALL.to_vec())),
        select(ObjectShape::ALL.to_vec()),
    );
    (1..=2u32, attributes, option::of(select(Position::ALL.to_vec()))).prop_map(
        |(count, (size, fill, colour, shape), position)| Mention { count, size, fill, colour, shape, position },
    )
}

fn captions() -> impl Strategy<Value = Caption> {
    let backdrops = || option::of(select(Backdrop::all().collect::<Vec<_>>()));
    let lists = (prop::collection::vec(mentions(), 1..=MAX_OBJECTS / 2), backdrops())
        .prop_map(|(mentions, backdrop)| Caption::list(mentions, backdrop).unwrap());
    let relations = (mentions(), select(Relation::ALL.to_vec()), mentions(), backdrops())
        .prop_map(|(first, relation, second, backdrop)| Caption::relation(first, relation, second, backdrop));
    prop_oneof![lists, relations]
}

/// The words of captions in random order.
fn random_words() -> impl Strategy<Value = String> {
    let words = [
        "a",
        "two",
        "small",
        "large",
        "striped",
        "shaded",
        "red",
        "sky",
        "blue",
        "circle",
        "circles",
        "cross",
        "in",
        "on",
        "at",
        "the",
        "top",
        "left",
        "centre",
        "to",
        "of",
        "above",
        "and",
        ",",
        "background",
        "white",
        ",,",
        "é,",
        "\u{a0}",
    ];
    prop::collection::vec(select(words.to_vec()), 0..30).prop_map(|words| words.join(" "))
}

proptest! {
    #[test]
    fn written_captions_are_parsed(expected in captions()) {
        let caption = expected.to_string();
        prop_assert_eq!(&caption.parse::<Caption>().unwrap(), &expected);
        let json = serde_json::to_string(&expected).unwrap();
        prop_assert_eq!(&json, &format!("\"{caption}\""));
        prop_assert_eq!(serde_json::from_str::<Caption>(&json).unwrap(), expected);
    }

    #[test]
    fn whitespace_does_not_matter(expected in captions()) {
        let caption = format!("\n {}  ", expected.to_string().replace(' ', "\t  ").replace(',', " ,"));
        prop_assert_eq!(caption.parse::<Caption>().unwrap(), expected);
    }

    /// A parsed caption has the words of its text. An error points at the word that it names.
    #[test]
    fn parsing_keeps_every_word(text in prop_oneof![random_words(), ".*"]) {
        match text.parse::<Caption>() {
            Ok(expected) => {
                let words = |text: &str| text.replace(',', " , ").split_whitespace().collect::<Vec<_>>().join(" ");
                prop_assert_eq!(words(&expected.to_string()), words(&text));
            }
            Err(lumina_scenes::Error::Caption { at, found, .. }) if at < text.len() => {
                let word = found.strip_prefix('`').unwrap().strip_suffix('`').unwrap();
                prop_assert!(text[at..].starts_with(word), "{}: {} {}", text, at, found);
            }
            Err(_) => {}
        }
    }
}

#[test]
fn only_canonical_captions_are_correct() {
    let scenes = Scenes::new(11, Split::Test, DEFAULT_TARGET_PX).unwrap();
    for scene in (0..200).map(|index| scenes.scene(index)) {
        let caption = scene.caption().to_string();
        assert!(caption_is_correct(&caption, &scene), "{caption}");
        let other = scenes.scene(1000).caption();
        assert_eq!(caption_is_correct(&other.to_string(), &scene), other.is_equivalent_to(&scene.caption()));
        // A caption without positions is not the canonical one, nor one without the backdrop.
        let bare = scene.objects().iter().map(|object| Mention::of(object.kind)).collect();
        let bare = Caption::list(bare, Some(scene.backdrop())).unwrap().to_string();
        assert!(!caption_is_correct(&bare, &scene), "{bare}");
        let nowhere = Caption::list(scene.caption().mentions().to_vec(), None).unwrap().to_string();
        assert!(!caption_is_correct(&nowhere, &scene), "{nowhere}");
        assert!(!caption_is_correct(&format!("{caption} and more"), &scene));
    }
    assert!(!caption_is_correct("", &scenes.scene(0)));
}
