//! What is read from well-formed files.

use std::path::Path;
use std::sync::Arc;

use lumina_checkpoint::gguf::check_finite;
use lumina_checkpoint::{Checkpoint, Dtype, Error, MappedTensor, Reorder};
use proptest::prelude::*;

use crate::build::{Pickle, legacy, open, safetensors, torch, two_bytes};
use crate::shared::{f32_bytes, read_all};

/// A shard that was reused has an old copy of `x`, and a tensor that the index does not name.
#[test]
fn a_tensor_counts_only_in_the_shard_that_the_index_names() {
    let one =
        |name: &str, at: u64| format!(r#""{name}":{{"dtype":"U8","shape":[2],"data_offsets":[{at},{}]}}"#, at + 2);
    let reused = format!("{{{},{},{}}}", one("x", 0), one("y", 2), one("left_over", 4));
    let files = |x: &str, y: &str| {
        let index = format!(r#"{{"weight_map":{{"x":"{x}.safetensors","y":"{y}.safetensors"}}}}"#);
        [
            ("model.safetensors.index.json", index.into_bytes()),
            ("a.safetensors", two_bytes("x")),
            ("b.safetensors", safetensors(&reused, &[1, 2, 3, 4, 5, 6])),
        ]
    };
    for (x, y, values) in [("a", "b", [7, 9]), ("b", "b", [1, 2])] {
        let checkpoint = Checkpoint::from_files("model", files(x, y)).unwrap();
        assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["x", "y"]);
        assert_eq!(checkpoint.get("x").unwrap().bytes(), &values[..]);
        assert_eq!(checkpoint.get("y").unwrap().bytes(), &[3u8, 4][..]);
        assert_eq!(checkpoint.file_of("x"), Some(&*Path::new("model").join(format!("{x}.safetensors"))));
    }
}

#[test]
fn tensors_next_to_leftovers_of_training() {
    let pickle = Pickle::new()
        .op(b"}(")
        .text("epoch")
        .int(12)
        // An ordered dict with an attribute, a parameter in it.
        .text("state_dict")
        .global("collections", "OrderedDict")
        .op(b")R(")
        .text("b")
        .vector("1", 2)
        .text("a")
        .global("torch._utils", "_rebuild_parameter")
        .op(b"(")
        .vector("0", 3)
        .op(b"\x88NtRu}")
        .text("_metadata")
        .op(b"}sb")
        // A class as a key, an object with attributes, a call, a set, a number beyond 64 bits.
        .text("callbacks")
        .op(b"}")
        .global("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint")
        .op(b"}s")
        .text("hyper_parameters")
        .global("argparse", "Namespace")
        .op(b")\x81}")
        .text("lr")
        .op(b"G\x3f\xf0\0\0\0\0\0\0sb")
        .text("extra")
        .global("collections", "defaultdict")
        .global("builtins", "list")
        .op(b"\x85R")
        .text("key")
        .op(b"]s")
        .text("set")
        .op(b"\x8f(K\x01K\x02\x90")
        .text("long")
        .op(b"\x8a\x09\0\0\0\0\0\0\0\0\x01u");
    let bytes = torch(&pickle.end(), &[("0", f32_bytes([1.0, 2.0, 3.0])), ("1", f32_bytes([4.0, 5.0]))]);
    let checkpoint = open("vqgan.ckpt", &bytes).unwrap();
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(checkpoint.get("a").unwrap().to_f32().unwrap(), [1.0, 2.0, 3.0]);
    assert_eq!(checkpoint.get("b").unwrap().to_f32().unwrap(), [4.0, 5.0]);
    assert!(checkpoint.get("epoch").is_none() && !checkpoint.contains("epoch"));
    assert_eq!(read_all(&checkpoint), 2);
}

#[test]
fn tensors_at_the_top_level() {
    let pickle = Pickle::new().op(b"}").text("step").int(1).op(b"s").text("w").vector("0", 1).op(b"s");
    let checkpoint = open("weights.pt", &torch(&pickle.end(), &[("0", f32_bytes([0.5]))])).unwrap();
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["w"]);
}

#[test]
fn opcodes_of_protocol_4() {
    let name = |text: &str| [&[0x8c, text.len() as u8], text.as_bytes()].concat();
    let pickle = Pickle::new()
        .op(b"\x80\x04\x95\0\0\0\0\0\0\0\0}\x94")
        .op(&name("w"))
        .op(b"\x94")
        .op(&name("torch._utils"))
        .op(b"\x94")
        .op(&name("_rebuild_tensor_v2"))
        .op(b"\x94\x93\x94((")
        .op(&name("storage"))
        .op(&name("torch"))
        .op(&name("HalfStorage"))
        .op(b"\x93")
        .op(&name("0"))
        .op(&name("cpu"))
        .op(b"K\x02tQK\x00K\x02\x85K\x01\x85\x89}tRs");
    let checkpoint = open("w.bin", &torch(&pickle.end(), &[("0", vec![0x00, 0x3c, 0x00, 0xc0])])).unwrap();
    let view = checkpoint.get("w").unwrap();
    assert_eq!((view.dtype(), view.shape()), (Dtype::F16, &[2][..]));
    assert_eq!(view.to_f32().unwrap(), [1.0, -2.0]);
}

#[test]
fn storages_without_a_type() {
    let pickle = Pickle::new()
        .op(b"}")
        .text("w")
        .global("torch._utils", "_rebuild_tensor_v3")
        .op(b"((")
        .text("storage")
        .global("torch.storage", "UntypedStorage")
        .text("0")
        .text("cpu")
        .op(b"K\x08tQK\x01K\x01\x85K\x01\x85\x89}")
        .global("torch", "float32")
        .op(b"tRs");
    let checkpoint = open("w.pt", &torch(&pickle.end(), &[("0", f32_bytes([1.5, 2.5]))])).unwrap();
    assert_eq!(checkpoint.get("w").unwrap().to_f32().unwrap(), [2.5]);
}

#[test]
fn every_type_of_storage() {
    let types = [
        ("DoubleStorage", Dtype::F64),
        ("FloatStorage", Dtype::F32),
        ("HalfStorage", Dtype::F16),
        ("BFloat16Storage", Dtype::BF16),
        ("LongStorage", Dtype::I64),
        ("IntStorage", Dtype::I32),
        ("ShortStorage", Dtype::I16),
        ("CharStorage", Dtype::I8),
        ("ByteStorage", Dtype::U8),
        ("BoolStorage", Dtype::Bool),
    ];
    let pickle = types.iter().fold(Pickle::new().op(b"}"), |pickle, (class, _)| {
        pickle.text(class).view((class, class, 4), 1, &[3], &[1]).op(b"s")
    });
    let pickle = pickle.end();
    let data = |dtype: Dtype| (0..4 * dtype.block_bytes() as u8).collect::<Vec<_>>();
    let zipped = torch(&pickle, &types.map(|(class, dtype)| (class, data(dtype))));
    let old = legacy(&pickle, &types.map(|(class, dtype)| (class, 4, data(dtype))));
    for bytes in [zipped, old] {
        let checkpoint = open("types.pth", &bytes).unwrap();
        assert_eq!(read_all(&checkpoint), types.len());
        for (class, dtype) in types {
            let view = checkpoint.get(class).unwrap();
            assert_eq!(view.dtype(), dtype);
            assert_eq!(view.bytes(), &data(dtype)[dtype.block_bytes()..]);
        }
    }
}

#[test]
fn scalars_and_empty_tensors() {
    let pickle = Pickle::new().op(b"}").text("scalar").view(("FloatStorage", "0", 2), 1, &[], &[]).op(b"s");
    let pickle = pickle.text("empty").view(("FloatStorage", "0", 2), 0, &[3, 0], &[9, 9]).op(b"s");
    let checkpoint = open("w.pt", &torch(&pickle.end(), &[("0", f32_bytes([1.0, 2.0]))])).unwrap();
    assert_eq!(checkpoint.get("scalar").unwrap().to_f32().unwrap(), [2.0]);
    let empty = checkpoint.get("empty").unwrap();
    assert_eq!((empty.shape(), empty.bytes().len()), (&[3, 0][..], 0));
}

#[test]
fn what_lies_in_order_is_not_copied() {
    // Axes of length one may have any stride.
    let pickle = Pickle::new().op(b"}").text("w").view(("FloatStorage", "0", 8), 2, &[2, 1, 3], &[3, 77, 1]).op(b"s");
    let checkpoint = open("w.pt", &torch(&pickle.end(), &[("0", f32_bytes((0..8).map(|i| i as f32)))])).unwrap();
    let (first, second) = (checkpoint.get("w").unwrap(), checkpoint.clone().get("w").unwrap());
    assert_eq!(first.bytes().as_ptr(), second.bytes().as_ptr());
    assert_eq!(first.to_f32().unwrap(), [2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
}

#[test]
fn a_checkpoint_can_be_shared_between_threads() {
    fn shared<T: Send + Sync + Clone>() {}
    shared::<lumina_checkpoint::Checkpoint>();
    shared::<lumina_checkpoint::TensorView>();
}

/// A shape, an order of its axes in memory, and gaps between the elements.
fn layouts() -> impl Strategy<Value = (Vec<usize>, Vec<usize>, usize, usize)> {
    let shape_and_order = prop::collection::vec(1usize..5, 0..5)
        .prop_flat_map(|shape| (Just(shape.clone()), Just((0..shape.len()).collect::<Vec<_>>()).prop_shuffle()));
    (shape_and_order, 1usize..3, 0usize..4).prop_map(|((shape, order), gap, offset)| (shape, order, gap, offset))
}

proptest! {
    #[test]
    fn views_in_any_order_are_read_row_major((shape, order, gap, offset) in layouts()) {
        let mut strides = vec![0; shape.len()];
        let mut stride = gap;
        for &axis in &order {
            strides[axis] = stride;
            stride *= shape[axis];
        }
        let length = offset + stride;
        let count: usize = shape.iter().product();
        // The place of each element, from its index taken apart from the innermost axis on.
        let expected = (0..count).map(|flat| {
            let (place, _) = (0..shape.len()).rev().fold((offset, flat), |(place, rest), axis| {
                (place + rest % shape[axis] * strides[axis], rest / shape[axis])
            });
            place as f32
        });
        let signed = |lengths: &[usize]| lengths.iter().map(|&length| length as i64).collect::<Vec<_>>();
        let storage = ("FloatStorage", "0", length as i64);
        let pickle = Pickle::new().op(b"}").text("w").view(storage, offset as i64, &signed(&shape), &signed(&strides)).op(b"s");
        let bytes = torch(&pickle.end(), &[("0", f32_bytes((0..length).map(|place| place as f32)))]);
        let view = open("w.pt", &bytes).unwrap().get("w").unwrap();
        prop_assert_eq!(view.to_f32().unwrap(), expected.collect::<Vec<_>>());
    }
}

/// Each order is that of the tensor before, so two mappings are one after the other.
#[test]
fn reorders_compose() {
    let header = r#"{"w":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#;
    let checkpoint = Checkpoint::from_bytes("m.safetensors", safetensors(header, &[1, 2, 3, 4])).unwrap();
    let map = |checkpoint: &Checkpoint, reorder: Option<Reorder>| {
        checkpoint
            .map_tensors(|view| Ok(MappedTensor { name: view.name().to_owned(), reorder: reorder.clone() }))
            .unwrap()
    };
    let rotate: Reorder = Arc::new(|from, to| {
        to.copy_from_slice(from);
        to.rotate_left(1);
    });
    let swap: Reorder = Arc::new(|from, to| {
        to.copy_from_slice(from);
        to.swap(0, 1);
    });
    let mapped = map(&map(&map(&checkpoint, Some(rotate)), None), Some(swap));
    // 2 3 4 1, then 3 2 4 1.
    assert_eq!(mapped.get("w").unwrap().bytes()[..], [3, 2, 4, 1]);
}

#[test]
fn values_that_are_not_finite_are_found() {
    let header = r#"{"w":{"dtype":"F32","shape":[2000],"data_offsets":[0,8000]}}"#;
    let checkpoint = Checkpoint::from_bytes("m.safetensors", safetensors(header, &[0; 8000])).unwrap();
    let view = checkpoint.get("w").unwrap();
    let mut values = vec![1.0; 2000];
    assert!(check_finite(&view, Dtype::F32, &f32_bytes(values.clone()), 0).is_ok());
    values[1500] = f32::INFINITY;
    let error = check_finite(&view, Dtype::F32, &f32_bytes(values), 10).unwrap_err().to_string();
    assert!(error.contains("`w`") && error.contains("element 1510 is inf"), "{error}");
    assert!(check_finite(&view, Dtype::F64, &1e300f64.to_le_bytes(), 0).is_ok());
    assert!(check_finite(&view, Dtype::F64, &f64::NAN.to_le_bytes(), 0).is_err());
    // A scale of infinity in a block.
    let block = [&[0x00, 0x7C][..], &[1; 32]].concat();
    assert!(check_finite(&view, Dtype::Q8_0, &block, 0).is_err());
    assert!(check_finite(&view, Dtype::I8, &[255], 0).is_ok());
}

#[test]
fn documents_are_read_not_mapped() {
    let folder = tempfile::tempdir().unwrap();
    let header = r#"{"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#;
    std::fs::write(folder.path().join("model.safetensors"), safetensors(header, &[1])).unwrap();
    let file = folder.path().join("config.json");
    std::fs::write(&file, "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 3\n").unwrap();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let error = checkpoint.document("config.json").unwrap_err().to_string();
    assert!(error.contains("git lfs pull") && error.contains("config.json"), "{error}");
    std::fs::write(&file, "{}").unwrap();
    let document = checkpoint.document("config.json").unwrap().unwrap();
    // A mapping would see what is written later.
    std::fs::write(&file, "[]").unwrap();
    assert_eq!(document[..], b"{}"[..]);
    #[cfg(target_os = "linux")]
    {
        std::fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &file).unwrap();
        assert!(matches!(checkpoint.document("config.json"), Err(Error::Core(lumina_core::Error::NotAFile { .. }))));
    }
}
