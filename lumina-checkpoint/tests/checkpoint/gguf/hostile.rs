//! Files that lie: an error that says what and where, and never a panic or an allocation for what is not there.

use proptest::prelude::*;

use super::build::{F32, Gguf, U8, text};
use crate::build::open;
use crate::corruption::survives;
use crate::shared::{damage, many, read_all};

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
fn a_file_cut_anywhere_is_cut_short() {
    let whole = whole();
    assert_eq!(read_all(&open("m.gguf", &whole).unwrap()), 4);
    for length in 0..whole.len() {
        let error = open("m.gguf", &whole[..length]).expect_err("it is cut").to_string();
        // Below the magic number it is no GGUF, and an empty file is just that.
        let expected = if length == 0 {
            "empty"
        } else if length < 4 {
            "neither"
        } else {
            "cut short"
        };
        assert!(error.contains(expected) && error.contains("m.gguf"), "{length}: {error}");
    }
}

#[test]
fn a_gguf_file_is_one_whatever_its_name() {
    for name in ["m.gguf", "model.safetensors", "model"] {
        assert_eq!(read_all(&open(name, &whole()).unwrap()), 4, "{name}");
    }
}

#[test]
fn every_byte_may_be_any() {
    let whole = whole();
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
    let mut counts = Gguf::new().end();
    let with_counts = |tensors: u64, entries: u64| {
        let mut bytes = Gguf::new().end();
        bytes[8..16].copy_from_slice(&tensors.to_le_bytes());
        bytes[16..24].copy_from_slice(&entries.to_le_bytes());
        bytes
    };
    counts.truncate(23);
    let deep = [9u32.to_le_bytes().to_vec(), 1u64.to_le_bytes().to_vec()].concat().repeat(100_000);
    let mut long_text = Gguf::new().string("k", "v").end();
    let at = 24 + 8 + 1 + 4;
    long_text[at..at + 8].copy_from_slice(&u64::MAX.to_le_bytes());
    let mut axes = Gguf::new().describe("w", &[], F32, 0).end();
    axes[24 + 8 + 1..][..4].copy_from_slice(&[255; 4]);
    let cases: Vec<(&str, Vec<u8>, &[&str])> = vec![
        ("an old version", Gguf::new().version(1).end(), &["version 1", "2 and 3"]),
        ("big-endian", Gguf::new().version(3 << 24).end(), &["big-endian"]),
        ("a short header", counts, &["cut short", "24 bytes are needed, 23 are there"]),
        ("2^64 tensors", with_counts(u64::MAX, 0), &["18446744073709551615 tensors"]),
        ("65536 tensors", with_counts(1 << 16, 0), &["cut short"]),
        ("2^64 entries", with_counts(0, u64::MAX), &["cut short", "18446744073709551615 bytes are needed"]),
        ("a text of 2^64 bytes", long_text, &["cut short"]),
        ("an array of 2^64", Gguf::new().array("a", 10, u64::MAX, &[0; 64]).end(), &["cut short"]),
        ("2^61 numbers of 8 bytes", Gguf::new().array("a", 10, 1 << 61, &[0; 64]).end(), &["cut short"]),
        ("2^40 texts", Gguf::new().array("a", 8, 1 << 40, &[0; 64]).end(), &["cut short"]),
        ("2^40 arrays", Gguf::new().array("a", 9, 1 << 40, &[0; 64]).end(), &["cut short"]),
        ("arrays without end", Gguf::new().array("a", 9, 1, &deep).end(), &["arrays more than 4 deep"]),
        ("an unknown type", Gguf::new().entry("a", 13, &[0; 64]).end(), &["unknown type 13"]),
        ("an array of an unknown type", Gguf::new().array("a", 99, 1, &[0; 64]).end(), &["unknown type 99"]),
        ("a truth value of 2", Gguf::new().entry("a", 7, &[2]).end(), &["truth value of 2"]),
        (
            "a key that is not UTF-8",
            Gguf::new().entry("a", 8, &[&[1, 0, 0, 0, 0, 0, 0, 0][..], &[0xff]].concat()).end(),
            &["not UTF-8"],
        ),
        ("a key twice", Gguf::new().u32("a", 1).u32("a", 1).end(), &["a second value for `a`"]),
        (
            "an alignment of 0",
            Gguf::new().u32("general.alignment", 0).end(),
            &["`general.alignment`", "0 is no power of two"],
        ),
        ("an alignment of 24", Gguf::new().u32("general.alignment", 24).end(), &["24 is no power of two"]),
        ("a huge alignment", Gguf::new().u32("general.alignment", 1 << 31).end(), &["2147483648"]),
        ("an alignment that is text", Gguf::new().string("general.alignment", "32").end(), &["no whole number"]),
        ("a part of several", Gguf::new().entry("split.count", 2, &[3, 0]).end(), &["one of 3 parts", "--merge"]),
        (
            "a tensor twice",
            Gguf::new().floats("w", &[1], [0.0]).floats("w", &[1], [0.0]).end(),
            &["a second tensor `w`"],
        ),
        ("five axes", Gguf::new().floats("w", &[1; 5], [0.0]).end(), &["`w`", "5 axes"]),
        ("2^32 axes", axes, &["`w`", "4294967295 axes"]),
        ("a shape that overflows", Gguf::new().floats("w", &[1 << 40, 1 << 40], [0.0]).end(), &["`w`", "overflows"]),
        ("empty, but overflowing", Gguf::new().floats("w", &[u64::MAX, 0], []).end(), &["`w`", "overflows"]),
        (
            "rows of part of a block",
            Gguf::new().tensor("w", &[33, 2], 8, &[0; 102]).end(),
            &["`w`", "whole blocks of q8_0"],
        ),
        (
            "a type of llama.cpp's that is not read",
            Gguf::new().describe("w", &[256], 23, 0).end(),
            &["m.gguf", "`w`", "type IQ4_XS", "`llama-quantize --allow-requantize` to Q8_0", "q6_k"],
        ),
        ("a type that is not known", Gguf::new().describe("w", &[256], 999, 0).end(), &["`w`", "number 999"]),
        (
            "an offset between",
            Gguf::new().describe("w", &[1], U8, 1).end(),
            &["`w`", "offset 1 is no multiple of the alignment, 32"],
        ),
        ("an offset beyond", Gguf::new().describe("w", &[1], U8, 1 << 63).end(), &["cut short"]),
        ("data beyond", Gguf::new().describe("w", &[1 << 40], U8, 0).end(), &["cut short"]),
        (
            "two in one place",
            Gguf::new().floats("a", &[9], [0.0; 9]).describe("b", &[1], F32, 32).end(),
            &["`b`", "also those of another"],
        ),
    ];
    for (about, bytes, says) in cases {
        let error = open("m.gguf", &bytes).expect_err(about).to_string();
        for part in [&["m.gguf"], says].concat() {
            assert!(error.contains(part), "{about}: no `{part}` in `{error}`");
        }
    }
}

proptest! {
    #![proptest_config(many())]

    #[test]
    fn damaged_files(damage in damage()) {
        survives("m.gguf", &whole(), damage);
    }

    #[test]
    fn headers_of_any_bytes(
        tail in prop::collection::vec(any::<u8>(), 0..300),
        tensors in 0u64..4,
        entries in 0u64..4,
    ) {
        let header = [&b"GGUF\x03\0\0\0"[..], &tensors.to_le_bytes(), &entries.to_le_bytes(), &tail].concat();
        survives("m.gguf", &header, (vec![], None));
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
