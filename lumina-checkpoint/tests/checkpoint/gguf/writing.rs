//! What is written can be read, and nothing is left half written.

use std::path::Path;

use lumina_checkpoint::Result;
use lumina_checkpoint::gguf::{Array, GgufWriter, Value};
use lumina_checkpoint::{Checkpoint, Dtype};
use proptest::prelude::*;

use crate::shared::read_all;

type Tensor = (String, Dtype, Vec<usize>, Vec<u8>);

/// Writes tensors in pieces of `piece` bytes.
fn save(path: &Path, metadata: &[(String, Value)], tensors: &[Tensor], piece: usize) -> Result<()> {
    let described = tensors.iter().map(|(name, dtype, shape, _)| (name.as_str(), *dtype, shape));
    let mut writer = GgufWriter::create(path, metadata.iter().cloned(), described)?;
    for (.., bytes) in tensors {
        bytes.chunks(piece).try_for_each(|piece| writer.append(piece))?;
    }
    writer.finish()
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_failure_leaves_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    let tensor = |name: &str, dtype, shape: &[usize], bytes| (name.to_owned(), dtype, shape.to_vec(), vec![0; bytes]);
    let small = || tensor("w", Dtype::I8, &[2], 2);
    save(&path, &[], &[small()], 1).unwrap();
    let before = std::fs::read(&path).unwrap();

    let long = "n".repeat(64);
    for (tensors, says) in [
        (vec![tensor("w", Dtype::F32, &[3], 8)], "tensor `w`: it has 12 bytes, only 8 were given"),
        (vec![tensor("w", Dtype::F32, &[1], 8)], "tensor ``: bytes are given after the last tensor"),
        (vec![tensor("v", Dtype::F32, &[1], 3), small()], "tensor `v`: it has 4 bytes, at least 5 were given"),
        (vec![small(), small()], "tensor `w`: two tensors have this name"),
        (vec![tensor("w", Dtype::Bool, &[1], 1)], "tensor `w`: GGUF has no type bool"),
        (vec![tensor("w", Dtype::F32, &[usize::MAX, 2], 0)], "overflows"),
        (vec![tensor("w", Dtype::Q8_0, &[2, 33], 0)], "no whole blocks of q8_0"),
        (vec![tensor("w", Dtype::I8, &[1; 5], 1)], "more than the 4 axes"),
        (vec![tensor(&long, Dtype::I8, &[1], 1)], "longer than the 63 bytes"),
    ] {
        let error = save(&path, &[], &tensors, 4).unwrap_err().to_string();
        assert!(error.contains(says) && error.contains("m.gguf: not written"), "{says}: {error}");
    }
    let twice = [("k".to_owned(), Value::U8(1)), ("k".to_owned(), Value::U8(1))];
    let error = save(&path, &twice, &[], 1).unwrap_err().to_string();
    assert!(error.contains("m.gguf: `k`: two values"), "{error}");
    drop(GgufWriter::create(&path, [("k", Value::U8(1))], [("w", Dtype::I8, [4])]).unwrap());

    assert_eq!(names_in(folder.path()), ["m.gguf"]);
    assert_eq!(std::fs::read(&path).unwrap(), before);
    let nowhere = folder.path().join("absent").join("m.gguf");
    assert!(save(&nowhere, &[], &[], 1).unwrap_err().to_string().contains("cannot be written"));
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u8>().prop_map(Value::U8),
        any::<i8>().prop_map(Value::I8),
        any::<u16>().prop_map(Value::U16),
        any::<i16>().prop_map(Value::I16),
        any::<u32>().prop_map(Value::U32),
        any::<i32>().prop_map(Value::I32),
        any::<u64>().prop_map(Value::U64),
        any::<i64>().prop_map(Value::I64),
        (-1e30f32..1e30).prop_map(Value::F32),
        (-1e300f64..1e300).prop_map(Value::F64),
        any::<bool>().prop_map(Value::Bool),
        ".{0,9}".prop_map(Value::String),
        array(3).prop_map(Value::Array),
    ]
}

fn array(depth: u32) -> BoxedStrategy<Array> {
    let flat = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..5).prop_map(Array::U8),
        prop::collection::vec(any::<i8>(), 0..5).prop_map(Array::I8),
        prop::collection::vec(any::<u16>(), 0..5).prop_map(Array::U16),
        prop::collection::vec(any::<i16>(), 0..5).prop_map(Array::I16),
        prop::collection::vec(any::<u32>(), 0..5).prop_map(Array::U32),
        prop::collection::vec(any::<i32>(), 0..5).prop_map(Array::I32),
        prop::collection::vec(any::<u64>(), 0..5).prop_map(Array::U64),
        prop::collection::vec(any::<i64>(), 0..5).prop_map(Array::I64),
        prop::collection::vec(-1e30f32..1e30, 0..5).prop_map(Array::F32),
        prop::collection::vec(-1e300f64..1e300, 0..5).prop_map(Array::F64),
        prop::collection::vec(any::<bool>(), 0..5).prop_map(Array::Bool),
        prop::collection::vec(".{0,5}", 0..5).prop_map(Array::String),
    ];
    if depth == 0 {
        return flat.boxed();
    }
    prop_oneof![4 => flat, 1 => prop::collection::vec(array(depth - 1), 0..3).prop_map(Array::Array)].boxed()
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        metadata in prop::collection::btree_map("[a-z]{1,8}", value(), 0..6),
        tensors in prop::collection::vec((0usize..18, prop::collection::vec(0usize..4, 0..4)), 0..6),
        piece in 1usize..100,
    ) {
        let types = [
            Dtype::F64, Dtype::F32, Dtype::F16, Dtype::BF16, Dtype::I64, Dtype::I32, Dtype::I16, Dtype::I8,
            Dtype::Q8_0, Dtype::Q4_0, Dtype::Q4_1, Dtype::Q5_0, Dtype::Q5_1,
            Dtype::Q2_K, Dtype::Q3_K, Dtype::Q4_K, Dtype::Q5_K, Dtype::Q6_K,
        ];
        let metadata: Vec<(String, Value)> = metadata.into_iter().collect();
        let tensors: Vec<Tensor> = tensors.into_iter().enumerate().map(|(i, (dtype, mut shape))| {
            let dtype = types[dtype];
            match shape.last_mut() {
                Some(row) => *row *= dtype.block_elements(),
                None if dtype.is_quantised() => shape.push(dtype.block_elements()),
                None => {}
            }
            let length = dtype.bytes_of(&shape).unwrap();
            (format!("t\"{i}\u{fc}"), dtype, shape, (0..length).map(|at| (at * 7 + i) as u8).collect())
        }).collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.gguf");
        save(&path, &metadata, &tensors, piece).unwrap();
        let checkpoint = Checkpoint::open(&path).unwrap();
        prop_assert_eq!(read_all(&checkpoint), tensors.len());
        for (name, dtype, shape, bytes) in &tensors {
            let view = checkpoint.get(name).unwrap();
            prop_assert_eq!((view.dtype(), view.shape(), &view.bytes()[..]), (*dtype, &shape[..], &bytes[..]));
        }
        let read: Vec<(String, Value)> =
            checkpoint.metadata().unwrap().iter().map(|(key, value)| (key.to_owned(), value.clone())).collect();
        prop_assert_eq!(read, metadata);
    }
}
