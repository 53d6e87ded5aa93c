//! Files that are cut short, damaged or made to do harm: each is an error, and its message names what is wrong.

use lumina_checkpoint::Checkpoint;
use lumina_testing::whole_message;

use crate::build::{Entry, Pickle, legacy, safetensors, torch, two_bytes, zip};
use crate::shared::f32_bytes;

struct Case {
    about: &'static str,
    files: Vec<(&'static str, Vec<u8>)>,
    /// What is opened; empty for the folder.
    open: &'static str,
    /// What the message must say.
    says: Vec<&'static str>,
}

/// A folder of shards.
fn folder(about: &'static str, files: Vec<(&'static str, Vec<u8>)>, says: &[&'static str]) -> Case {
    Case { about, files, open: "", says: says.to_vec() }
}

/// One file, which the message must name.
fn file(about: &'static str, name: &'static str, bytes: Vec<u8>, says: &[&'static str]) -> Case {
    Case { about, files: vec![(name, bytes)], open: name, says: [&[name], says].concat() }
}

/// One safetensors file.
fn header(about: &'static str, header: &str, data: &[u8], says: &[&'static str]) -> Case {
    file(about, "model.safetensors", safetensors(header, data), says)
}

/// One torch file of this pickle and one storage, `0`, of four `f32`.
fn pickle(about: &'static str, pickle: Pickle, says: &[&'static str]) -> Case {
    file(about, "vqgan.ckpt", torch(&pickle.end(), &[("0", f32_bytes([1.0, 2.0, 3.0, 4.0]))]), says)
}

/// A torch file whose `state_dict` has one view of that storage.
fn view(about: &'static str, offset: i64, shape: &[i64], strides: &[i64], says: &[&'static str]) -> Case {
    let tensor = Pickle::new().op(b"}").text("w").view(("FloatStorage", "0", 4), offset, shape, strides).op(b"s");
    pickle(about, tensor, &[&["`w`"], says].concat())
}

#[test]
fn every_one_is_an_error_that_says_what_and_where() {
    for case in [folders(), headers(), pickles(), views(), containers()].iter().flatten() {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in &case.files {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        }
        let path = folder.path().join(case.open);
        let error = whole_message(&Checkpoint::open(&path).expect_err(case.about));
        assert!(error.contains(&folder.path().display().to_string()), "{}: no path in `{error}`", case.about);
        for part in &case.says {
            assert!(error.contains(part), "{}: no `{part}` in `{error}`", case.about);
        }
    }
}

/// In memory each is the same error.
#[test]
fn every_one_is_the_same_error_in_memory() {
    for case in [folders(), headers(), pickles(), views(), containers()].iter().flatten() {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in &case.files {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        }
        let path = folder.path().join(case.open);
        let on_disk = Checkpoint::open(&path).expect_err(case.about);
        let in_memory = match &case.files[..] {
            [(name, bytes)] if *name == case.open => Checkpoint::from_bytes(&path, bytes.clone()),
            files => Checkpoint::from_files(folder.path(), files.iter().cloned()),
        };
        // A folder's path can have a slash at the end, which the name in memory lacks.
        let [on_disk, in_memory] = [on_disk, in_memory.expect_err(case.about)].map(|error| whole_message(&error));
        assert_eq!(on_disk.replace("/:", ":"), in_memory.replace("/:", ":"), "{}", case.about);
    }
}

fn index(map: &str) -> Vec<u8> {
    format!(r#"{{"metadata":{{}},"weight_map":{map}}}"#).into_bytes()
}

fn folders() -> Vec<Case> {
    let index_name = "model.safetensors.index.json";
    vec![
        folder(
            "an empty folder",
            vec![],
            &["holds no checkpoint", "`model.safetensors`", "`model.safetensors.index.json`"],
        ),
        folder(
            "a missing shard",
            vec![
                ("a.safetensors", two_bytes("x")),
                (index_name, index(r#"{"x":"a.safetensors","y":"b.safetensors"}"#)),
            ],
            &["the shard `b.safetensors`", index_name, "download"],
        ),
        folder(
            "an index naming a tensor that its shard lacks",
            vec![
                ("a.safetensors", two_bytes("x")),
                (index_name, index(r#"{"x":"a.safetensors","y":"a.safetensors"}"#)),
            ],
            &["tensor `y`", "`a.safetensors`", index_name],
        ),
        folder(
            "an index naming the wrong one of two shards",
            vec![
                ("a.safetensors", two_bytes("x")),
                ("b.safetensors", two_bytes("y")),
                (index_name, index(r#"{"x":"b.safetensors","y":"a.safetensors"}"#)),
            ],
            &["tensor `x`", "`b.safetensors`"],
        ),
        folder(
            "a tensor in two shards, one of which lacks its own",
            vec![
                ("a.safetensors", two_bytes("x")),
                ("b.safetensors", two_bytes("x")),
                (index_name, index(r#"{"x":"a.safetensors","z":"b.safetensors"}"#)),
            ],
            &["tensor `z`", "`b.safetensors`", index_name],
        ),
        folder(
            "an index leading out of its folder",
            vec![(index_name, index(r#"{"x":"../a.safetensors"}"#))],
            &["`../a.safetensors`", index_name],
        ),
        folder("an index that is not JSON", vec![(index_name, b"{".to_vec())], &[index_name, "not an index of shards"]),
        folder(
            "a shard cut short",
            vec![("a.safetensors", two_bytes("x")[..40].to_vec()), (index_name, index(r#"{"x":"a.safetensors"}"#))],
            &["a.safetensors", "cut short"],
        ),
    ]
}

fn headers() -> Vec<Case> {
    let one = |dtype: &str, shape: &str, offsets: &str| {
        format!(r#"{{"w":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
    };
    let overlap =
        r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}}"#;
    let gap =
        r#"{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[4,6]}}"#;
    let mut larger_than_file = safetensors("{}", &[]);
    larger_than_file[..8].copy_from_slice(&5000u64.to_le_bytes());
    let mut absurd = safetensors("{}", &[]);
    absurd[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    let bomb = format!(r#"{{"w":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    vec![
        file("an empty file", "model.safetensors", vec![], &["empty"]),
        file("seven bytes", "model.safetensors", vec![0; 7], &["cut short", "8 bytes are needed, 7 are there"]),
        file(
            "a header larger than the file",
            "model.safetensors",
            larger_than_file,
            &["5008 bytes are needed, 10 are there"],
        ),
        file(
            "a header beyond the limit",
            "model.safetensors",
            absurd,
            &["the header claims 18446744073709551615 bytes"],
        ),
        header(
            "a header that is not JSON",
            "{not json",
            &[],
            &["the header is not that of a safetensors file", "line 1"],
        ),
        header("a header that is not UTF-8", "\u{0}", &[], &["the header is not that of a safetensors file"]),
        header(
            "a header nested too deeply",
            &bomb,
            &[],
            &["the header is not that of a safetensors file", "recursion"],
        ),
        header("data cut short", &one("F32", "[4]", "[0,16]"), &[0; 10], &["cut short", "download it again"]),
        header("data left over", &one("F32", "[1]", "[0,4]"), &[0; 6], &["2 bytes follow the last tensor"]),
        header("overlapping tensors", overlap, &[0; 6], &["invalid offset", "`b`"]),
        header("a gap between tensors", gap, &[0; 6], &["invalid offset", "`b`"]),
        header("a shape that does not fit its bytes", &one("F32", "[3]", "[0,16]"), &[0; 16], &["invalid shape"]),
        header("a shape that overflows", &one("F32", "[9223372036854775807,9]", "[0,16]"), &[0; 16], &["overflow"]),
        header(
            "an empty shape that overflows",
            &one("F32", "[0,9223372036854775807,9]", "[0,0]"),
            &[],
            &["`w`", "overflows"],
        ),
        header(
            "data of an exabyte",
            &one("U8", "[1152921504606846976]", "[0,1152921504606846976]"),
            &[0; 16],
            &["cut short"],
        ),
        header(
            "a negative length",
            &one("U8", "[-1]", "[0,1]"),
            &[0; 1],
            &["the header is not that of a safetensors file", "-1"],
        ),
        header(
            "an unknown type",
            &one("F31", "[1]", "[0,4]"),
            &[0; 4],
            &["the header is not that of a safetensors file", "F31"],
        ),
        header("a type of no use here", &one("F8_E4M3", "[4]", "[0,4]"), &[0; 4], &["`w`", "F8_E4M3", "quantized"]),
    ]
}

/// `{"state_dict": {"w": tensor}}` up to the value, and what closes it.
fn in_state_dict(value: impl FnOnce(Pickle) -> Pickle) -> Pickle {
    value(Pickle::new().op(b"}").text("state_dict").op(b"}").text("w")).op(b"ss")
}

/// A valid `state_dict`, and next to it a value.
fn beside_state_dict(value: impl FnOnce(Pickle) -> Pickle) -> Pickle {
    value(in_state_dict(|pickle| pickle.vector("0", 4)).text("callbacks")).op(b"s")
}

fn pickles() -> Vec<Case> {
    let system = |pickle: Pickle| pickle.global("os", "system").op(b"(").text("touch /tmp/executed").op(b"tR");
    let eval = |pickle: Pickle| pickle.global("builtins", "eval").op(b"(").text("1").op(b"tR");
    // Each list holds the one before twice: unfolded, 2^60 values.
    let doubling = |pickle: Pickle| {
        let lists = |level: u8| [b']', b'q', level + 1, b'(', b'h', level, b'h', level, b'e', b'0'];
        (0..60).fold(pickle.op(b"]q\x000"), |pickle, level| pickle.op(&lists(level))).op(b"h\x3c")
    };
    let stack_global = |pickle: Pickle| pickle.text("posix").text("system").op(b"\x93)R");
    vec![
        pickle("os.system in the state dict", in_state_dict(system), &["`os.system`", "nothing was executed"]),
        pickle("os.system next to the state dict", beside_state_dict(system), &["`os.system`", "nothing was executed"]),
        pickle("eval", beside_state_dict(eval), &["`builtins.eval`"]),
        pickle("a global of protocol 4", beside_state_dict(stack_global), &["`posix.system`"]),
        pickle(
            "a global that is not called",
            beside_state_dict(|p| p.global("subprocess", "Popen")),
            &["`subprocess.Popen`"],
        ),
        pickle("torch's own loader", beside_state_dict(|p| p.global("torch", "load")), &["`torch.load`"]),
        pickle("escape codes in a name", beside_state_dict(|p| p.global("a\u{1b}[31m", "b")), &["`a\\u{1b}[31m.b`"]),
        file(
            "a bare pickle calling os.system",
            "vqgan.ckpt",
            system(Pickle::new()).end(),
            &["`os.system`", "nothing was executed"],
        ),
        file(
            "a bare pickle of protocol 0",
            "vqgan.ckpt",
            b"cos\nsystem\n(S'id'\ntR.".to_vec(),
            &["neither safetensors, GGUF nor saved by torch"],
        ),
        pickle("the registry of extensions", Pickle::new().op(b"\x82\x01"), &["0x82 is no opcode"]),
        pickle("lists doubled sixty times", in_state_dict(doubling), &["`w` in its `state_dict` is a list"]),
        pickle(
            "a hundred thousand lists open",
            in_state_dict(|pickle| pickle.op(&[b']'; 100_000]).op(&[b'a'; 99_999])),
            &["nest more than 65536 deep", "byte 655"],
        ),
        pickle(
            "a hundred thousand marks",
            in_state_dict(|pickle| pickle.op(&[b'('; 100_000])),
            &["nest more than 65536 deep"],
        ),
        pickle(
            "a hundred thousand tuples, one in another",
            in_state_dict(|pickle| pickle.op(b")").op(&[0x85; 100_000])),
            &["`w` in its `state_dict` is a tuple"],
        ),
        pickle(
            "two million values",
            in_state_dict(|pickle| pickle.op(&b"N0".repeat(2_000_000))),
            &["more than 1048576 values"],
        ),
        pickle(
            "two million memos",
            in_state_dict(|pickle| pickle.op(b"N").op(&[0x94; 2_000_000])),
            &["more than 1048576 memos"],
        ),
        pickle("text of four gigabytes", in_state_dict(|pickle| pickle.op(b"X\xff\xff\xff\xff")), &["of 4294967295"]),
        pickle(
            "bytes beyond 64 bits",
            in_state_dict(|pickle| pickle.op(b"\x8e").op(&[0xff; 8])),
            &["of 18446744073709551615"],
        ),
        pickle(
            "a pickle of 20 MB",
            in_state_dict(|pickle| pickle.op(&b"N0".repeat(1000)).op(b"B\x00\x00\x40\x01").op(&vec![0; 20 << 20])),
            &["longer than 16777216 bytes"],
        ),
        pickle(
            "a number in the state dict",
            in_state_dict(|pickle| pickle.int(3)),
            &["`w` in its `state_dict` is an integer"],
        ),
        pickle(
            "an object in the state dict",
            in_state_dict(|pickle| pickle.global("argparse", "Namespace").op(b")\x81}b")),
            &["`w` in its `state_dict` is an object of `argparse.Namespace`"],
        ),
        pickle(
            "a sparse tensor",
            in_state_dict(|p| p.global("torch._utils", "_rebuild_sparse_tensor").op(b")R")),
            &["_rebuild_sparse_tensor"],
        ),
        pickle(
            "a key that is a number",
            Pickle::new().op(b"}").text("state_dict").op(b"}").int(1).vector("0", 4).op(b"ss"),
            &["a key of its `state_dict` is an integer"],
        ),
        pickle(
            "a state dict that is a list",
            Pickle::new().op(b"}").text("state_dict").op(b"]s"),
            &["its `state_dict` is a list"],
        ),
        pickle("a top level that is a tensor", Pickle::new().vector("0", 4), &["its top level is a tensor"]),
        pickle("no tensor", Pickle::new().op(b"}").text("model").op(b"}s"), &["it holds no tensor", "\"model\""]),
        pickle("an empty stack", Pickle::new(), &["byte 2 of the pickle", "a value is missing"]),
        pickle("a memo that was not set", Pickle::new().op(b"h\x05"), &["memo 5"]),
        pickle("a key without a value", Pickle::new().op(b"}(N").op(b"u"), &["a key without a value"]),
        pickle("items of a number", Pickle::new().int(1).op(b"(NNu"), &["sets items of what is no dict"]),
        pickle("a call of a number", Pickle::new().int(1).op(b")R"), &["a call of what is no function"]),
        pickle(
            "arguments that are no tuple",
            Pickle::new().global("collections", "OrderedDict").op(b"NR"),
            &["no tuple"],
        ),
        pickle("a group that takes what lies below it", Pickle::new().op(b"NN(\x86"), &["a value is missing"]),
        pickle(
            "a name without an end",
            Pickle::new().op(b"c").op(&[b'a'; 5000]),
            &["a name does not end within 1024 bytes"],
        ),
        pickle("protocol 9", Pickle::new().op(b"\x80\x09"), &["protocol 9"]),
    ]
}

fn views() -> Vec<Case> {
    let storage = |class: &str, key: &str, length: i64| {
        Pickle::new().op(b"}").text("w").view((class, key, length), 0, &[2], &[1]).op(b"s")
    };
    let huge = i64::MAX;
    vec![
        view("a view longer than its storage", 0, &[5], &[1], &["reaches beyond the 4 elements of its storage `0`"]),
        view("an offset beyond the storage", 3, &[2], &[1], &["offset 3, shape [2]", "beyond the 4 elements"]),
        view("a stride beyond the storage", 0, &[2, 2], &[3, 1], &["strides [3, 1]", "beyond the 4 elements"]),
        view("a stride that overflows", 1, &[3], &[huge], &["beyond the 4 elements"]),
        view("an offset that overflows", huge, &[2], &[huge], &["beyond the 4 elements"]),
        view("a negative stride", 3, &[2], &[-1], &["strides [-1]"]),
        view("a negative length", 0, &[-2], &[1], &["shape [-2] has a negative length"]),
        view("a negative offset", -1, &[1], &[1], &["offset is -1"]),
        view("strides of other axes", 0, &[2, 2], &[1], &["strides [1] do not fit shape [2, 2]"]),
        view("a shape that overflows", 0, &[huge, huge], &[1, 1], &["overflows"]),
        view("an empty shape that overflows", 0, &[0, huge, huge], &[1, 1, 1], &["overflows"]),
        view("one element repeated a billion times", 0, &[1 << 30], &[0], &["1073741824 elements", "only 4"]),
        view("seventeen axes", 0, &[1; 17], &[1; 17], &["not those of a tensor"]),
        pickle(
            "a storage longer than its file",
            storage("FloatStorage", "0", 5),
            &["`w`", "claims 20 bytes, 16 are there"],
        ),
        pickle("a storage that overflows", storage("DoubleStorage", "0", huge), &["`w`", "claims"]),
        pickle("a negative storage", storage("FloatStorage", "0", -4), &["`w`", "not those of a tensor"]),
        pickle(
            "a storage that is not there",
            storage("FloatStorage", "9", 4),
            &["`name/data/9` is not in the archive"],
        ),
        pickle("a type of no use here", storage("ComplexFloatStorage", "0", 2), &["`w`", "ComplexFloatStorage"]),
        pickle(
            "a tensor without a storage",
            in_state_dict(|p| {
                p.global("torch._utils", "_rebuild_tensor_v2").op(b"(N").int(0).ints(&[1]).ints(&[1]).op(b"tR")
            }),
            &["`w`", "not those of a tensor"],
        ),
        pickle(
            "a tensor of nothing",
            in_state_dict(|p| p.global("torch._utils", "_rebuild_tensor_v2").op(b")R")),
            &["`w`", "not those of a tensor"],
        ),
    ]
}

fn containers() -> Vec<Case> {
    let whole = || Pickle::new().op(b"}").text("w").vector("0", 4).op(b"s").end();
    let data = || f32_bytes([1.0, 2.0, 3.0, 4.0]);
    let with = |change: fn(&mut Entry, &mut Entry)| {
        let (mut pickle, mut storage) = (Entry::new("name/data.pkl", whole()), Entry::new("name/data/0", data()));
        change(&mut pickle, &mut storage);
        zip(&[pickle, storage])
    };
    let zipped = torch(&whole(), &[("0", data())]);
    let half = zipped[..zipped.len() / 2].to_vec();
    let big_endian = zip(&[Entry::new("name/data.pkl", whole()), Entry::new("name/byteorder", "big")]);
    let old = legacy(&whole(), &[("0", 4, data())]);
    let cut = old[..old.len() - 3].to_vec();
    vec![
        file("a zip archive cut short", "vqgan.ckpt", half, &["not a whole zip archive", "download it again"]),
        file(
            "only the first bytes of a zip archive",
            "vqgan.ckpt",
            b"PK\x03\x04".to_vec(),
            &["not a whole zip archive"],
        ),
        file(
            "a storage larger than the file",
            "vqgan.ckpt",
            with(|_, storage| storage.claimed = 1 << 30),
            &["`name/data/0`", "1073741824 bytes", "beyond the end"],
        ),
        file(
            "a pickle larger than the file",
            "vqgan.ckpt",
            with(|pickle, _| pickle.claimed = 1 << 30),
            &["`name/data.pkl`", "beyond the end"],
        ),
        file(
            "a compressed storage",
            "vqgan.ckpt",
            with(|_, storage| storage.method = 8),
            &["`name/data/0` is compressed"],
        ),
        file("another zip archive", "vqgan.ckpt", zip(&[Entry::new("a/b", "c")]), &["no `data.pkl`"]),
        file("big-endian numbers", "vqgan.ckpt", big_endian, &["not little-endian"]),
        file("the legacy form cut short", "vqgan.ckpt", cut, &["cut short", "download it again"]),
        file(
            "a legacy storage of another length",
            "vqgan.ckpt",
            legacy(&whole(), &[("0", 3, data())]),
            &["`0` has not the 4 elements"],
        ),
        file(
            "a legacy storage of no tensor",
            "vqgan.ckpt",
            legacy(&whole(), &[("1", 4, data())]),
            &["belongs to no tensor"],
        ),
        file("a legacy storage that is not there", "vqgan.ckpt", legacy(&whole(), &[]), &["`0` is not in the file"]),
        file("a pickle of other origin", "vqgan.ckpt", Pickle::new().int(1).end(), &["not one that torch saved"]),
        file("an unknown file", "vqgan.ckpt", b"<html>".to_vec(), &["neither safetensors, GGUF nor saved by torch"]),
        file(
            "a pointer of Git LFS",
            "vqgan.ckpt",
            b"version https://git-lfs.github.com/spec/v1\n".to_vec(),
            &["git lfs pull"],
        ),
        file(
            "a pointer of Git LFS instead of safetensors",
            "model.safetensors",
            b"version https://git-lfs.github.com/spec/v1\n".to_vec(),
            &["git lfs pull"],
        ),
    ]
}

#[test]
fn what_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("absent.ckpt");
    let error = Checkpoint::open(&path).unwrap_err();
    assert!(error.to_string().contains(&path.display().to_string()));
    assert!(std::error::Error::source(&error).is_some());
}
