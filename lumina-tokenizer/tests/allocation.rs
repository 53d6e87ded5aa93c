//! What is asked of each token that is drawn allocates nothing. A test binary of its own, as it counts the allocations
//! of a whole process.
#![allow(clippy::unwrap_used, reason = "helpers of tests: a panic is the failure")]

use lumina_testing::Counting;
use lumina_tokenizer::{Specials, TextTokenizer};

#[global_allocator]
static ALLOCATOR: Counting = Counting::new();

#[test]
fn whether_a_token_is_special_allocates_nothing() {
    let tokenizer = TextTokenizer::open(lumina_testing::own("tokenizer")).unwrap();
    let before = ALLOCATOR.own_count();
    let n_specials = (0..1 << 17).filter(|&id| tokenizer.is_special(id)).count();
    assert_eq!(ALLOCATOR.own_count(), before);
    // Those that text cannot become, and no others.
    let stands_for_no_text = |id: &u32| {
        let name = tokenizer.name_of(*id).unwrap();
        tokenizer.encode(&name, Specials::Plain).unwrap() != [*id]
    };
    let specials: Vec<u32> = (0..tokenizer.n_tokens() as u32).filter(|&id| tokenizer.is_special(id)).collect();
    assert!(n_specials == specials.len() && n_specials > 1000, "{n_specials}");
    assert!(specials.iter().all(stands_for_no_text));
}
