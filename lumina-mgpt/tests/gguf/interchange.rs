//! Files of llama.cpp's own package (`make_fixture.py` says which values they hold).

use std::path::Path;

use lumina_checkpoint::gguf::{Array, Value, quantise_tensor};
use lumina_checkpoint::{Checkpoint, Dtype};
use lumina_mgpt::convert;

fn fixture() -> Checkpoint {
    convert::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gguf/reference.gguf")).unwrap()
}

#[test]
fn metadata_of_the_package() {
    let checkpoint = fixture();
    let metadata = checkpoint.metadata().unwrap();
    for (key, value) in [
        ("value.u8", Value::U8(200)),
        ("value.i8", Value::I8(-5)),
        ("value.u16", Value::U16(50_000)),
        ("value.i16", Value::I16(-5)),
        ("value.u32", Value::U32(4_000_000_000)),
        ("value.i32", Value::I32(-5)),
        ("value.u64", Value::U64(1 << 63)),
        ("value.i64", Value::I64(-(1 << 62))),
        ("value.f32", Value::F32(1.5)),
        ("value.f64", Value::F64(0.1)),
        ("value.bool", Value::Bool(true)),
        ("value.string", Value::from("Größe")),
        ("value.strings", Value::Array(Array::String(["a", "", "b"].map(str::to_owned).to_vec()))),
        ("value.numbers", Value::Array(Array::I32(vec![1, -2, 3]))),
    ] {
        assert_eq!(metadata.get(key), Some(&value), "{key}");
    }
    assert_eq!(metadata.architecture(), "none");
}

/// Products and differences of the same `f32`s in the same order: to the bit.
#[test]
fn every_type_is_read_as_the_package_reads_it() {
    let checkpoint = fixture();
    for (name, dtype) in [
        ("q8_0", Dtype::Q8_0),
        ("q4_0", Dtype::Q4_0),
        ("q4_k", Dtype::Q4_K),
        ("q6_k", Dtype::Q6_K),
        ("q4_1", Dtype::Q4_1),
        ("q5_0", Dtype::Q5_0),
        ("q5_1", Dtype::Q5_1),
        ("q5_k", Dtype::Q5_K),
        ("q2_k", Dtype::Q2_K),
        ("q3_k", Dtype::Q3_K),
        ("bf16", Dtype::BF16),
        ("f16", Dtype::F16),
    ] {
        let view = checkpoint.get(name).unwrap();
        assert_eq!((view.dtype(), view.shape()), (dtype, &[2, 512][..]));
        let expected = checkpoint.get(&format!("{name}.expected")).unwrap();
        assert_eq!(view.to_f32().unwrap(), expected.to_f32().unwrap(), "{name}");
        assert!(expected.to_f32().unwrap().iter().any(|value| *value != 0.0));
    }
}

#[test]
fn every_type_is_written_as_the_package_writes_it() {
    let checkpoint = fixture();
    for (name, dtype) in [("q8_0", Dtype::Q8_0), ("q4_0", Dtype::Q4_0), ("bf16", Dtype::BF16), ("f16", Dtype::F16)] {
        let source = checkpoint.get(&format!("{name}.source")).unwrap();
        let written = quantise_tensor(&source, dtype).unwrap();
        assert_eq!(written, checkpoint.get(name).unwrap().bytes(), "{name}");
    }
}
