//! Random damage to well-formed files: an error or a checkpoint, never a panic.

use proptest::prelude::*;

use crate::build::{Pickle, legacy, open, safetensors, torch};
use crate::shared::{Damage, damage, damaged, f32_bytes, many, read_all, read_if_opened};

pub(crate) fn survives(name: &str, whole: &[u8], damage: Damage) {
    read_if_opened(open(name, &damaged(whole, damage)));
}

fn small_pickle() -> Vec<u8> {
    let matrix = ("FloatStorage", "0", 12);
    Pickle::new()
        .op(b"}")
        .text("state_dict")
        .op(b"}(")
        .text("conv.weight")
        .view(matrix, 0, &[2, 3, 2], &[6, 1, 3])
        .text("conv.bias")
        .view(matrix, 4, &[3], &[1])
        .text("steps")
        .view(("LongStorage", "1", 1), 0, &[], &[])
        .op(b"us")
        .text("epoch")
        .op(b"K\x05s")
        .end()
}

fn numbers() -> Vec<u8> {
    f32_bytes((0..12).map(|i| i as f32))
}

/// Pieces of a pickle, among them every opcode that is understood.
fn opcodes() -> impl Strategy<Value = Vec<u8>> {
    let single = b"N\x88\x89.(012)t\x85\x86\x87]lae}dsu\x8f\x90\x91\x94\x93QR\x81\x92b".to_vec();
    prop_oneof![
        8 => prop::sample::select(single).prop_map(|opcode| vec![opcode]),
        2 => (0u8..4).prop_map(|value| vec![b'K', value]),
        2 => (0u8..4).prop_map(|key| vec![b'q', key]),
        2 => (0u8..4).prop_map(|key| vec![b'h', key]),
        2 => prop::sample::select(vec![&b"X\x01\0\0\x000"[..], b"\x8c\x0astate_dict", b"U\x01w", b"\x8a\x02\xff\xff", b"C\x01a"])
            .prop_map(<[u8]>::to_vec),
        2 => prop::sample::select(vec![
            &b"ctorch._utils\n_rebuild_tensor_v2\n"[..], b"ctorch._utils\n_rebuild_tensor_v3\n", b"ctorch\nFloatStorage\n",
            b"ccollections\nOrderedDict\n", b"ctorch._utils\n_rebuild_parameter\n", b"ctorch\nfloat32\n",
        ])
        .prop_map(<[u8]>::to_vec),
        2 => Just(Pickle::new().vector("0", 12).end()).prop_map(|pickle| pickle[2..pickle.len() - 1].to_vec()),
    ]
}

proptest! {
    #![proptest_config(many())]

    #[test]
    fn safetensors_files(damage in damage()) {
        let header = r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"b":{"dtype":"BF16","shape":[4],"data_offsets":[24,32]}}"#;
        survives("model.safetensors", &safetensors(header, &[1; 32]), damage);
    }

    #[test]
    fn torch_files(damage in damage()) {
        survives("vqgan.ckpt", &torch(&small_pickle(), &[("0", numbers()), ("1", vec![1; 8])]), damage);
    }

    #[test]
    fn legacy_torch_files(damage in damage()) {
        survives("vqgan.ckpt", &legacy(&small_pickle(), &[("0", 12, numbers()), ("1", 1, vec![1; 8])]), damage);
    }

    #[test]
    fn random_pickles(pieces in prop::collection::vec(opcodes(), 0..60)) {
        let pickle = Pickle::new().op(b"}X\x01\0\0\x00w").op(&pieces.concat()).op(b"s");
        survives("vqgan.ckpt", &torch(&pickle.end(), &[("0", numbers())]), (vec![], None));
    }

    #[test]
    fn indices_of_shards(damage in damage()) {
        let folder = tempfile::tempdir().unwrap();
        let shard = safetensors(r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#, &[1]);
        std::fs::write(folder.path().join("m.safetensors"), shard).unwrap();
        let mut index = br#"{"metadata":{"total_size":1},"weight_map":{"a":"m.safetensors"}}"#.to_vec();
        for (place, value) in damage.0 {
            *place.get_mut(&mut index) = value;
        }
        std::fs::write(folder.path().join("model.safetensors.index.json"), index).unwrap();
        if let Ok(checkpoint) = lumina_checkpoint::Checkpoint::open(folder.path()) {
            read_all(&checkpoint);
        }
    }
}

#[test]
fn the_files_are_whole_before_they_are_damaged() {
    assert_eq!(
        open("vqgan.ckpt", &torch(&small_pickle(), &[("0", numbers()), ("1", vec![1; 8])])).unwrap().names().count(),
        3
    );
    let old = legacy(&small_pickle(), &[("0", 12, numbers()), ("1", 1, vec![1; 8])]);
    let checkpoint = open("vqgan.ckpt", &old).unwrap();
    assert_eq!(checkpoint.get("conv.bias").unwrap().to_f32().unwrap(), [4.0, 5.0, 6.0]);
    assert_eq!(checkpoint.get("conv.weight").unwrap().to_f32().unwrap()[..4], [0.0, 3.0, 1.0, 4.0]);
}
