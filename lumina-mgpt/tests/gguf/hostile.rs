//! Files that lie about a model: an error that says what and where, and never a panic.

use proptest::prelude::*;

use crate::build::{Gguf, text};
use crate::shared::{damage, many, read_all};
use crate::support::{open, survives};

/// A small file with something of everything.
fn whole() -> Vec<u8> {
    Gguf::new()
        .string("general.architecture", "chameleon")
        .u32("general.alignment", 16)
        .u32("chameleon.attention.head_count", 2)
        .array("tokenizer.ggml.tokens", 8, 2, &[text("a"), text("b")].concat())
        .array("tokenizer.ggml.scores", 6, 1, &[0; 4])
        .array("nested", 9, 1, &[&0u32.to_le_bytes()[..], &1u64.to_le_bytes(), &[7]].concat())
        .entry("flag", 7, &[1])
        .aligned(16)
        .floats("blk.0.attn_q.weight", &[2, 4], (0..8).map(|i| i as f32))
        .floats("blk.0.attn_q_norm.weight", &[2, 2], (0..4).map(|i| i as f32))
        .tensor("blk.0.ffn_up.weight", &[32, 2], 8, &[3; 68])
        .tensor("output_norm.weight", &[2], 1, &[0, 60, 0, 60])
        .end()
}

#[test]
fn every_byte_may_be_any() {
    let whole = whole();
    assert_eq!(read_all(&open("m.gguf", &whole).unwrap()), 4);
    for at in 0..whole.len() {
        for change in [1, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] ^= change;
            survives("m.gguf", &bytes, (vec![], None));
        }
    }
}

#[test]
fn lies_are_told_by_name() {
    let chameleon = || Gguf::new().string("general.architecture", "chameleon");
    let heads = |heads| chameleon().u32("chameleon.attention.head_count", heads);
    let cases: Vec<(&str, Vec<u8>, &[&str])> = vec![
        (
            "no number of heads",
            chameleon().floats("blk.0.attn_q.weight", &[1, 4], [0.0; 4]).end(),
            &["q_proj", "head_count", "missing"],
        ),
        ("no heads", heads(0).floats("blk.0.attn_q.weight", &[1, 4], [0.0; 4]).end(), &["head_count", "0 heads"]),
        (
            "heads that do not divide",
            heads(3).floats("blk.0.attn_q.weight", &[1, 4], [0.0; 4]).end(),
            &["q_proj.weight", "[4, 1]", "3 heads"],
        ),
        (
            "heads of odd width",
            heads(4).floats("blk.0.attn_q.weight", &[1, 4], [0.0; 4]).end(),
            &["heads of 1 channels"],
        ),
        (
            "a norm of odd width",
            heads(1).floats("blk.0.attn_k_norm.bias", &[3, 1], [0.0; 3]).end(),
            &["heads of 3 channels"],
        ),
        (
            "a norm in blocks",
            heads(1).tensor("blk.0.attn_k_norm.bias", &[32, 1], 8, &[0; 34]).end(),
            &["k_norm.bias", "q8_0"],
        ),
    ];
    for (about, bytes, says) in cases {
        let error = open("m.gguf", &bytes).expect_err(about).to_string();
        for part in [&["m.gguf"], says].concat() {
            assert!(error.contains(part), "{about}: no `{part}` in `{error}`");
        }
    }
}

#[test]
fn both_names_of_one_tensor() {
    let file = Gguf::new().string("general.architecture", "chameleon").floats("output.weight", &[1], [0.0]);
    let error = open("m.gguf", &file.floats("lm_head.weight", &[1], [0.0]).end()).unwrap_err().to_string();
    assert!(error.contains("`lm_head.weight`"), "{error}");
}

proptest! {
    #![proptest_config(many())]

    #[test]
    fn damaged_files(damage in damage()) {
        survives("m.gguf", &whole(), damage);
    }

    /// Mostly well-formed descriptions, which reach further than random bytes do.
    #[test]
    fn descriptions_of_any_shape(
        tensors in prop::collection::vec(
            (prop::sample::select(vec!["blk.0.attn_q.weight", "blk.0.attn_k_norm.bias", "output.weight", "w"]),
             prop::collection::vec(prop_oneof![0u64..70, any::<u64>(), Just(256)], 0..5),
             prop_oneof![Just(0u32), Just(8), Just(12), 0u32..40],
             prop_oneof![(0u64..8).prop_map(|i| i * 32), any::<u64>()]),
            0..4,
        ),
        heads in prop_oneof![0u32..9, any::<u32>()],
    ) {
        let file = Gguf::new().string("general.architecture", "chameleon").u32("chameleon.attention.head_count", heads);
        let describe = |file: Gguf, (name, axes, kind, offset): &(&str, Vec<u64>, u32, u64)| {
            file.describe(name, axes, *kind, *offset)
        };
        let file = tensors.iter().fold(file, describe);
        let mut bytes = file.end();
        bytes.extend([1; 3000]);
        survives("m.gguf", &bytes, (vec![], None));
    }
}
