//! What `pretokenize` says of records that it skipped.
#![allow(clippy::unwrap_used, reason = "a test's panic is its failure")]

use lumina_examples::read_and_skipped;
use lumina_train::data::{PretokenizeProgress, SkippedRecord};

#[test]
fn lost_records_are_told_and_strict_fails() {
    let done = PretokenizeProgress { done: 20, total: 20, skipped: 12, tokens: 90 };
    let skipped: Vec<_> = (0..12).map(|index| SkippedRecord { index, reason: format!("bad {index}") }).collect();
    let text = read_and_skipped(&done, &skipped, false).unwrap();
    assert!(text.starts_with("20 records: 8 read, 12 skipped; 90 tokens\n  record 0 was skipped: bad 0\n"), "{text}");
    assert!(text.ends_with("record 9 was skipped: bad 9\n  and 2 more, in the list `…-skipped.jsonl`"), "{text}");
    assert_eq!(read_and_skipped(&done, &skipped, true).unwrap_err().to_string(), text);
    let whole = PretokenizeProgress { skipped: 0, ..done };
    assert_eq!(read_and_skipped(&whole, &[], true).unwrap(), "20 records: 20 read, 0 skipped; 90 tokens");
}
