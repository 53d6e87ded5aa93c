//! What is written can be read, and nothing is left half written.

use std::path::Path;

use bytes::Bytes;
use half::{bf16, f16};
use lumina_checkpoint::{Checkpoint, Dtype, save_safetensors};
use lumina_checkpoint::{Error, Result};
use proptest::prelude::*;

use crate::shared::read_all;

type Tensor = (String, Dtype, Vec<usize>, Vec<u8>);

fn save(path: &Path, tensors: &[Tensor]) -> Result<()> {
    let given = tensors.iter().cloned();
    save_safetensors(
        path,
        given.map(|(name, dtype, shape, bytes)| (name, dtype, shape, move || Ok(Bytes::from(bytes)))),
    )
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn floats_widen_to_f32() {
    let values = [0.0f32, -0.0, 1.0, -1.5, 65504.0, 1e-5, f32::INFINITY, f32::NAN];
    // Longer than one block of the conversion, and not a multiple of it.
    let values: Vec<f32> = values.iter().copied().cycle().take(2500).collect();
    let n = values.len();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("floats.safetensors");
    let le = |convert: &dyn Fn(f32) -> Vec<u8>| values.iter().flat_map(|&value| convert(value)).collect::<Vec<u8>>();
    save(
        &path,
        &[
            ("f64".into(), Dtype::F64, vec![n], le(&|value| f64::from(value).to_le_bytes().to_vec())),
            ("f32".into(), Dtype::F32, vec![n], le(&|value| value.to_le_bytes().to_vec())),
            ("f16".into(), Dtype::F16, vec![n], le(&|value| f16::from_f32(value).to_le_bytes().to_vec())),
            ("bf16".into(), Dtype::BF16, vec![n], le(&|value| bf16::from_f32(value).to_le_bytes().to_vec())),
            ("i64".into(), Dtype::I64, vec![1], vec![0; 8]),
        ],
    )
    .unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    let rounded: [(&str, &dyn Fn(f32) -> f32); 4] = [
        ("f64", &|value| value),
        ("f32", &|value| value),
        ("f16", &|value| f16::from_f32(value).to_f32()),
        ("bf16", &|value| bf16::from_f32(value).to_f32()),
    ];
    for (name, round) in rounded {
        let read = checkpoint.get(name).unwrap().to_f32().unwrap();
        assert_eq!(read.len(), n, "{name}");
        for (read, &value) in read.iter().zip(&values) {
            let expected = round(value);
            assert!(
                read.to_bits() == expected.to_bits() || read.is_nan() && expected.is_nan(),
                "{name}: {read} {expected}"
            );
        }
    }
    let error = checkpoint.get("i64").unwrap().to_f32().unwrap_err().to_string();
    assert!(error.contains("floats.safetensors: tensor `i64` has type i64, expected f32"), "{error}");
}

#[test]
fn other_libraries_can_read_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    save(&path, &[("b".into(), Dtype::U8, vec![3], vec![1, 2, 3]), ("a".into(), Dtype::F32, vec![], vec![0; 4])])
        .unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.tensor("b").unwrap().data(), [1, 2, 3]);
    assert_eq!(file.tensor("a").unwrap().shape(), [0usize; 0]);
    let (header_bytes, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(header_bytes % 8, 0);
    assert_eq!(metadata.metadata().as_ref().unwrap()["format"], "pt");
}

#[test]
fn a_mapped_file_can_be_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    save(&path, &[("w".into(), Dtype::U8, vec![2], vec![1, 2])]).unwrap();
    let old = Checkpoint::open(&path).unwrap();
    save(&path, &[("w".into(), Dtype::U8, vec![1], vec![3])]).unwrap();
    assert_eq!(old.get("w").unwrap().bytes(), &[1u8, 2][..]);
    assert_eq!(Checkpoint::open(folder.path()).unwrap().get("w").unwrap().bytes(), &[3u8][..]);
    assert_eq!(names_in(folder.path()), ["model.safetensors"]);
}

#[test]
fn a_failure_leaves_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    save(&path, &[("w".into(), Dtype::U8, vec![2], vec![1, 2])]).unwrap();

    let tensor = |name: &str, shape: Vec<usize>| (name.to_owned(), Dtype::F32, shape, vec![0; 8]);
    let cases = [
        (vec![tensor("w", vec![3])], "tensor `w`: type and shape need 12 bytes, 8 were given"),
        (vec![tensor("w", vec![2]), tensor("w", vec![2])], "tensor `w`: two tensors have this name"),
        (vec![tensor("w", vec![usize::MAX, 2])], "tensor `w`: shape [18446744073709551615, 2] overflows"),
    ];
    for (tensors, says) in cases {
        let error = save(&path, &tensors).unwrap_err().to_string();
        assert!(error.contains(says) && error.contains("model.safetensors"), "{error}");
    }
    let failing = || Err(Error::NoCheckpoint { folder: "x".into(), looked_for: "y".into() });
    save_safetensors(&path, [("w", Dtype::U8, [1], failing)]).unwrap_err();

    assert_eq!(names_in(folder.path()), ["model.safetensors"]);
    assert_eq!(Checkpoint::open(&path).unwrap().get("w").unwrap().bytes(), &[1u8, 2][..]);

    let nowhere = folder.path().join("absent").join("model.safetensors");
    let error = save(&nowhere, &[]).unwrap_err().to_string();
    assert!(error.contains("cannot be written"), "{error}");
}

#[test]
fn values_that_are_not_available_are_reported_with_the_tensor() {
    let folder = tempfile::tempdir().unwrap();
    let failing = || Err(Error::values(std::io::Error::other("the device failed")));
    let error = save_safetensors(folder.path().join("m.safetensors"), [("norm", Dtype::U8, [1], failing)]).unwrap_err();
    assert!(error.to_string().contains("`norm`"), "{error}");
    let source = std::error::Error::source(&error).unwrap();
    assert_eq!(source.to_string(), "the device failed");
    assert_eq!(names_in(folder.path()).len(), 0);
}

proptest! {
    #[test]
    fn what_is_saved_is_read(
        sizes in prop::collection::vec((0usize..10, prop::collection::vec(0usize..4, 0..4)), 0..8),
    ) {
        let types = [
            Dtype::F64, Dtype::F32, Dtype::F16, Dtype::BF16, Dtype::I64,
            Dtype::I32, Dtype::I16, Dtype::I8, Dtype::U8, Dtype::Bool,
        ];
        let tensors: Vec<Tensor> = sizes
            .into_iter()
            .enumerate()
            .map(|(i, (dtype, shape))| {
                let length = shape.iter().product::<usize>() * types[dtype].block_bytes();
                (format!("t\"{i}\u{fc}"), types[dtype], shape, (0..length).map(|at| (at * 7 + i) as u8).collect())
            })
            .collect();
        let folder = tempfile::tempdir().unwrap();
        save(&folder.path().join("model.safetensors"), &tensors).unwrap();
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        prop_assert_eq!(read_all(&checkpoint), tensors.len());
        for (name, dtype, shape, bytes) in &tensors {
            let view = checkpoint.get(name).unwrap();
            prop_assert_eq!((view.dtype(), view.shape(), &view.bytes()[..]), (*dtype, &shape[..], &bytes[..]));
        }
    }
}

#[cfg(unix)]
#[test]
fn a_file_that_is_replaced_keeps_its_permissions() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("weights.safetensors");
    for mode in [0o600, 0o640, 0o444] {
        lumina_checkpoint::save_bytes(&file, b"old").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        lumina_checkpoint::save_bytes(&file, b"new").unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"new");
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, mode);
    }
}

#[test]
fn what_a_killed_writer_left_is_removed_and_what_another_writes_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("a.0.partial"), "left").unwrap();
    let other = std::fs::File::create(at("a.1.partial")).unwrap();
    other.lock().unwrap();
    lumina_checkpoint::save_bytes(at("a"), b"new").unwrap();
    let mut names = names_in(folder.path());
    names.sort();
    assert_eq!(names, ["a", "a.1.partial"]);
}
