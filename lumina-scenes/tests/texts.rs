//! The texts of records: their words, and prompts that people write.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeSet, HashSet};

use lumina_scenes::dataset::{DatasetOptions, SceneDataset};
use lumina_scenes::{
    Caption, Description, Edit, ObjectShape, Position, Scenes, Split, Wording, free_prompts, known_words,
};

/// The words of a text, in lower case.
fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    let runs = text.split(|character: char| !(character.is_alphanumeric() || character == '\''));
    runs.filter(|run| !run.is_empty()).map(str::to_lowercase)
}

/// Whether a word is the size of an image: `256x192`.
fn is_size(word: &str) -> bool {
    word.split_once('x').is_some_and(|(width, height)| width.parse::<u32>().is_ok() && height.parse::<u32>().is_ok())
}

fn dataset(seed: u64, split: Split) -> SceneDataset {
    SceneDataset::new(DatasetOptions { seed, split, ..Default::default() }).unwrap()
}

#[test]
fn known_words_are_those_of_the_texts() {
    assert!(known_words().is_sorted());
    let training = dataset(5, Split::Train);
    let texts = (0..20_000).flat_map(|index| training.texts(index));
    let found: BTreeSet<String> = texts.flat_map(|text| words(&text).collect::<Vec<_>>()).collect();
    let found: Vec<String> = found.into_iter().filter(|word| !is_size(word)).collect();
    assert_eq!(found, known_words());
    let known: HashSet<&str> = known_words().iter().copied().collect();
    for split in [Split::Test, Split::HeldOut] {
        let other = dataset(8, split);
        for text in (0..2000).flat_map(|index| other.texts(index)) {
            assert!(words(&text).all(|word| is_size(&word) || known.contains(word.as_str())), "{text}");
        }
    }
}

#[test]
fn free_prompts_have_known_words_and_canonical_captions() {
    let sizes: HashSet<_> = Scenes::new(0, Split::Test, 256).unwrap().sizes().iter().copied().collect();
    let known: HashSet<&str> = known_words().iter().copied().collect();
    assert_eq!(free_prompts().iter().map(|prompt| prompt.text).collect::<HashSet<_>>().len(), 100);
    for prompt in free_prompts() {
        assert_eq!(prompt.expected().unwrap().to_string(), prompt.caption);
        assert!(sizes.contains(&prompt.image_size().unwrap()), "{}", prompt.text);
        let unknown: Vec<String> = words(prompt.text).filter(|word| !known.contains(word.as_str())).collect();
        assert!(unknown.is_empty(), "{unknown:?} in `{}`", prompt.text);
    }
}

#[test]
fn wordings_differ_and_one_in_three_is_canonical() {
    let caption: Caption =
        "a large striped red circle on the left and a small blue star on a white background".parse().unwrap();
    let mut wording = Wording::new(3);
    let texts: Vec<String> = (0..900).map(|_| wording.caption(&caption)).collect();
    let canonical = texts.iter().filter(|text| **text == caption.to_string()).count();
    assert!((270..340).contains(&canonical), "{canonical}");
    assert!(texts.iter().collect::<HashSet<_>>().len() > 500);
    let alike = |text: &str| Wording::new(4).caption(&text.parse().unwrap());
    assert_eq!(alike("a star"), alike("a star"));

    let scene = Scenes::new(1, Split::Train, 256).unwrap().scene(0);
    let edit: Edit = Edit::possible(&scene).next().unwrap();
    assert!((0..300).map(|_| wording.edit(&edit)).collect::<HashSet<_>>().len() > 60);
}

/// In a list a fill behind the last object would be read as that of all, and a position after another one as a place of
/// its own.
#[test]
fn fills_and_places_belong_to_one_object() {
    let mut wording = Wording::new(5);
    let caption: Caption = "a circle and two striped squares".parse().unwrap();
    let texts: Vec<String> = (0..2000).map(|_| wording.caption(&caption).to_lowercase()).collect();
    for text in &texts {
        let fill = text.find("strip").unwrap_or_else(|| panic!("{text}"));
        let square = ["sq", "box", "block"].iter().filter_map(|name| text.find(name)).min();
        assert!(square.is_some_and(|square| fill < square), "{text}");
    }
    let behind: Caption = "a striped circle and a striped square".parse().unwrap();
    assert!((0..200).any(|_| wording.caption(&behind).ends_with("with stripes")));

    let left = Description { shape: Some(ObjectShape::Star), position: Some(Position::Left), ..Default::default() };
    let edit = Edit::Move { target: left, to: Position::TopLeft };
    for text in (0..1000).map(|_| wording.edit(&edit).to_lowercase()) {
        assert!(!["star left", "star to the left", "star the left"].iter().any(|bare| text.contains(bare)), "{text}");
    }
}

/// Nothing that a caption states gets lost, and nothing is added: in each wording of captions with one object there is
/// some word for each attribute.
#[test]
fn wordings_state_all_attributes() {
    let mut wording = Wording::new(9);
    let caption: Caption = "three small dotted purple rings at the bottom on a shaded grey background".parse().unwrap();
    let stated: [&[&str]; 7] = [
        &["three", "3"],
        &["small", "little", "tiny", "samll"],
        &["dot", "spot"],
        &["purp", "violet"],
        &["ring", "donut", "hoop"],
        &["bottom"],
        &["grey", "gray"],
    ];
    for _ in 0..2000 {
        let text = wording.caption(&caption).to_lowercase();
        for words in stated {
            assert!(words.iter().any(|word| text.contains(word)), "{words:?} in `{text}`");
        }
        assert!(text.contains("shad") || text.contains("gradient"), "{text}");
        for other in ["red", "star", "large", "big", "strip", "top", "left", "white", "solid"] {
            assert!(!text.contains(other), "{other} in `{text}`");
        }
    }
}
