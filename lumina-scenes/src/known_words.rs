//! The words of all training texts.

/// Sorted. A test draws records and compares.
#[rustfmt::skip]
const KNOWN_WORDS: &[&str] = &[
    "1", "2", "3", "4", "a", "above", "according", "add", "against", "all", "also", "an", "and", "are", "arrow",
    "arrows", "at", "away", "backdrop", "backgroud", "background", "backround", "ball", "balls", "be", "below",
    "beneath", "big", "bigger", "black", "block", "blocks", "blue", "both", "bottom", "box", "boxes", "bring", "by",
    "can", "center", "centered", "centre", "change", "cicle", "circle", "circles", "cirle", "color", "colour",
    "corner", "could", "count", "couple", "create", "crescent", "crescents", "cross", "crosses", "delete", "depth",
    "describe", "detail", "disc", "discs", "disk", "disks", "do", "does", "donut", "donuts", "dot", "dots", "dotted",
    "draw", "drawing", "drop", "else", "enlarge", "erase", "estimation", "fill", "filled", "following", "for", "four",
    "front", "generate", "get", "give", "gradient", "gray", "green", "grey", "grow", "have", "heart", "hearts",
    "hello", "hi", "higher", "hoop", "hoops", "how", "huge", "i", "i'd", "icon", "image", "in", "insert", "instead",
    "into", "is", "it", "its", "just", "lagre", "large", "larger", "left", "let", "light", "like", "little", "love",
    "lower", "make", "many", "me", "middle", "moon", "moons", "move", "need", "next", "no", "none", "nothing", "now",
    "number", "object", "objects", "of", "ok", "on", "one", "ones", "or", "orange", "ornage", "out", "over", "paint",
    "pair", "pattern", "photo", "pic", "picture", "place", "plain", "please", "pls", "plus", "pluses", "plz",
    "pointing", "polka", "position", "prompt", "purpel", "purple", "put", "red", "remove", "replace", "rid", "right",
    "ring", "rings", "samll", "scene", "see", "segmentation", "segmentic", "set", "shade", "shaded", "shading",
    "shape", "shapes", "shift", "should", "show", "showing", "shrink", "side", "sign", "signs", "size", "sky",
    "small", "smaller", "solid", "spots", "spotted", "sqaure", "square", "squares", "squre", "star", "stars",
    "striped", "stripes", "stripped", "stripy", "swap", "take", "than", "thanks", "that", "the", "them", "then",
    "there", "thing", "things", "three", "tiny", "to", "top", "traingle", "transform", "triange", "triangle",
    "triangles", "turn", "two", "under", "underneath", "upper", "use", "violet", "want", "what", "what's", "where",
    "where's", "which", "white", "with", "would", "yellow", "yelow", "yes", "you",
];

/// All words of the texts of a [dataset](crate::dataset), questions and answers, in lower case and sorted. Letters,
/// digits and apostrophes make a word, and sizes as `256x256` are left out.
///
/// A model that has seen nothing else can answer a person who uses another word by naming it.
///
/// ```
/// let is_known = |word: &str| lumina_scenes::known_words().binary_search(&word).is_ok();
/// assert!(is_known("crescent") && is_known("backround") && !is_known("dragon"));
/// ```
pub fn known_words() -> &'static [&'static str] {
    KNOWN_WORDS
}
