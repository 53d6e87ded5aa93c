//! Captions and what they say, both ways.
#![allow(clippy::unwrap_used, reason = "tests")]

use lumina_scenes::evaluation::caption_is_right;
use lumina_scenes::{
    Background, Colour, DEFAULT_TARGET_PX, Description, Kind, Mention, Place, Relation, Scenes, Shape, Size, Split,
};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

fn kinds() -> impl Strategy<Value = Kind> {
    (select(Size::ALL.to_vec()), select(Colour::ALL.to_vec()), select(Shape::ALL.to_vec()))
        .prop_map(|(size, colour, shape)| Kind::new(size, colour, shape))
}

fn descriptions() -> impl Strategy<Value = Description> {
    let mention = (kinds(), option::of(select(Place::ALL.to_vec()))).prop_map(|(kind, place)| Mention { kind, place });
    let backgrounds = || select(Background::ALL.to_vec());
    let lists = (prop::collection::vec(mention, 1..=3), backgrounds())
        .prop_map(|(mentions, background)| Description::list(mentions, background).unwrap());
    let relations = (kinds(), select(Relation::ALL.to_vec()), kinds(), backgrounds())
        .prop_map(|(first, relation, second, background)| Description::relation(first, relation, second, background));
    prop_oneof![lists, relations]
}

/// Texts of the words of captions, in any order.
fn salads() -> impl Strategy<Value = String> {
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
    fn what_is_written_is_read(description in descriptions()) {
        let caption = description.to_string();
        prop_assert_eq!(&caption.parse::<Description>().unwrap(), &description);
        let json = serde_json::to_string(&description).unwrap();
        prop_assert_eq!(&json, &format!("\"{caption}\""));
        prop_assert_eq!(serde_json::from_str::<Description>(&json).unwrap(), description);
    }

    #[test]
    fn space_does_not_matter(description in descriptions()) {
        let caption = format!("\n {}  ", description.to_string().replace(' ', "\t  ").replace(',', " ,"));
        prop_assert_eq!(caption.parse::<Description>().unwrap(), description);
    }

    /// What can be read says what is there, word by word; an error points at the word that it names.
    #[test]
    fn what_is_read_is_what_is_there(text in prop_oneof![salads(), ".*"]) {
        match text.parse::<Description>() {
            Ok(description) => {
                let words = |text: &str| text.replace(',', " , ").split_whitespace().collect::<Vec<_>>().join(" ");
                prop_assert_eq!(words(&description.to_string()), words(&text));
            }
            Err(lumina_scenes::Error::Caption { at, found, .. }) if at < text.len() => {
                prop_assert!(text[at..].starts_with(found.strip_prefix('`').unwrap().strip_suffix('`').unwrap()), "{}: {} {}", text, at, found);
            }
            Err(_) => {}
        }
    }
}

#[test]
fn canonical_captions_are_right_and_others_are_not() {
    let scenes = Scenes::new(11, Split::Test, DEFAULT_TARGET_PX).unwrap();
    for scene in (0..200).map(|index| scenes.scene(index)) {
        let caption = scene.description().to_string();
        assert!(caption_is_right(&caption, &scene), "{caption}");
        let other = scenes.scene(1000).description();
        assert_eq!(caption_is_right(&other.to_string(), &scene), other.agrees_with(&scene.description()));
        // Less than the whole truth is not the caption.
        let bare = scene.objects().iter().map(|object| Mention { kind: object.kind, place: None }).collect();
        let bare = Description::list(bare, scene.background()).unwrap().to_string();
        assert!(!caption_is_right(&bare, &scene), "{bare}");
        assert!(!caption_is_right(&format!("{caption} and more"), &scene));
    }
    assert!(!caption_is_right("", &scenes.scene(0)));
}
