//! Writing, parsing and comparing captions.
#![allow(clippy::unwrap_used, reason = "tests")]

use lumina_scenes::evaluation::caption_is_correct;
use lumina_scenes::{
    Background, Caption, Colour, DEFAULT_TARGET_PX, Mention, ObjectKind, ObjectShape, ObjectSize, Position, Relation,
    Scenes, Split,
};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

fn kinds() -> impl Strategy<Value = ObjectKind> {
    (select(ObjectSize::ALL.to_vec()), select(Colour::ALL.to_vec()), select(ObjectShape::ALL.to_vec()))
        .prop_map(|(size, colour, shape)| ObjectKind::new(size, colour, shape))
}

fn captions() -> impl Strategy<Value = Caption> {
    let mention =
        (kinds(), option::of(select(Position::ALL.to_vec()))).prop_map(|(kind, position)| Mention { kind, position });
    let backgrounds = || select(Background::ALL.to_vec());
    let lists = (prop::collection::vec(mention, 1..=3), backgrounds())
        .prop_map(|(mentions, background)| Caption::list(mentions, background).unwrap());
    let relations = (kinds(), select(Relation::ALL.to_vec()), kinds(), backgrounds())
        .prop_map(|(first, relation, second, background)| Caption::relation(first, relation, second, background));
    prop_oneof![lists, relations]
}

/// The words of captions in random order.
fn random_words() -> impl Strategy<Value = String> {
    let words = [
        "a",
        "small",
        "large",
        "red",
        "sky",
        "blue",
        "circle",
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
        // A caption without positions is not the canonical one.
        let bare = scene.objects().iter().map(|object| Mention { kind: object.kind, position: None }).collect();
        let bare = Caption::list(bare, scene.background()).unwrap().to_string();
        assert!(!caption_is_correct(&bare, &scene), "{bare}");
        assert!(!caption_is_correct(&format!("{caption} and more"), &scene));
    }
    assert!(!caption_is_correct("", &scenes.scene(0)));
}
