//! Files of training data as others wrote them: encodings, numbers of Python, pointers, special files, and paths.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's panic is its failure, in helpers too")]

use std::path::{Path, PathBuf};

use lumina_tokenizer::Record;
use lumina_train::data::{Dataset, IndexEntry, Records, TokenItems};
use lumina_train::metrics::JsonLines;
use lumina_train::{Error, Result};
use tempfile::TempDir;

/// A folder with the images that the records name.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("imgs")).unwrap();
    for name in ["a.png", "b.png"] {
        image::RgbImage::new(40, 40).save(folder.path().join("imgs").join(name)).unwrap();
    }
    folder
}

/// A file of the tests.
fn kept(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/records").join(name)).unwrap()
}

/// All records of a text, or the first error.
fn read(text: &[u8]) -> Result<Vec<Record>> {
    let folder = folder();
    let file = folder.path().join("records");
    std::fs::write(&file, text).unwrap();
    let records = Records::open(file)?;
    (0..records.len()).map(|index| Ok(records.load(index)?.0)).collect()
}

#[test]
fn a_byte_order_mark_costs_no_record() {
    let plain = read(&kept("plain.jsonl")).unwrap();
    assert_eq!(plain.len(), 3);
    for name in ["bom.jsonl", "bom_list.json"] {
        assert!(kept(name).starts_with(b"\xef\xbb\xbf"));
        assert_eq!(read(&kept(name)).unwrap(), plain, "{name}");
    }
    let joined = [kept("bom.jsonl"), kept("bom.jsonl"), kept("plain.jsonl")].concat();
    assert_eq!(read(&joined).unwrap(), [&plain[..], &plain[..], &plain[..]].concat());
    assert!(read(b"\xef\xbb\xbf").unwrap().is_empty() && read(b"\xef\xbb\xbf \n[]").unwrap().is_empty());
}

#[test]
fn other_encodings_are_one_error_that_names_them() {
    let text = String::from_utf8(kept("bom.jsonl")).unwrap();
    for text in [text.as_str(), text.trim_start_matches('\u{feff}')] {
        let utf16 = |to_bytes: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(to_bytes).collect::<Vec<u8>>();
        let utf32 = |to_bytes: fn(u32) -> [u8; 4]| text.chars().flat_map(|c| to_bytes(c.into())).collect::<Vec<u8>>();
        let cases = [
            (utf16(u16::to_le_bytes), "UTF-16 (little-endian)"),
            (utf16(u16::to_be_bytes), "UTF-16 (big-endian)"),
            (utf32(u32::to_le_bytes), "UTF-32 (little-endian)"),
            (utf32(u32::to_be_bytes), "UTF-32 (big-endian)"),
        ];
        for (bytes, name) in cases {
            let message = read(&bytes).unwrap_err().to_string();
            assert!(message.contains(name) && message.contains("records"), "{message}");
        }
    }
}

#[test]
fn numbers_of_python_are_passed_over_where_nobody_reads_them() {
    let text =
        |record: &Record| record.conversations.iter().map(|turn| turn.value.clone().unwrap()).collect::<Vec<_>>();
    for name in ["nan.jsonl", "nan_list.json"] {
        let records = read(&kept(name)).unwrap();
        assert_eq!(records.iter().map(text).collect::<Vec<_>>(), [["a", "x"], ["a", "x"]], "{name}");
    }
    let turn =
        |value: &str| format!(r#"{{"s": [-Infinity, NaN], "conversations": [{{"from": "human", "value": {value}}}]}}"#);
    let told = |value: &str| read(format!("[{}]", turn(value)).as_bytes()).map(|records| text(&records[0]));
    assert_eq!(told(r#""NaN, \"Infinity\" -Infinity""#).unwrap(), [r#"NaN, "Infinity" -Infinity"#]);
    // A value that is read has to be a text, as in the original.
    assert!(told("NaN").is_err() && told("-Infinity").is_err());
    for bad in ["nan", "+NaN", "NaNs", "Infinit", "--Infinity"] {
        assert!(read(format!("[{{\"s\": {bad}}}]").as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn pointers_of_git_lfs_are_named() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    for name in ["records.jsonl", "record.json", "data.yaml", "0-of-1.tokens"] {
        std::fs::write(at(name), kept("lfs_pointer.jsonl")).unwrap();
    }
    let line = r#"{"file":"0-of-1.tokens","len":3,"id":4,"offset":8}"#;
    std::fs::write(at("0-of-1-record.jsonl"), format!("{line}\n")).unwrap();
    for error in [
        Records::open(at("records.jsonl")).err(),
        IndexEntry::read_all(&at("record.json")).err(),
        Dataset::open(at("data.yaml")).err(),
        TokenItems::open(at("0-of-1-record.jsonl")).err(),
    ] {
        let message = error.unwrap().to_string();
        assert!(message.contains("Git LFS pointer"), "{message}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn special_files_are_refused_at_once() {
    let folder = folder();
    let pipe = folder.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let index = folder.path().join("0-of-1-record.jsonl");
    for special in [&pipe, Path::new("/dev/zero"), folder.path()] {
        let name = special.to_str().unwrap();
        std::fs::write(&index, format!("{{\"file\":\"{name}\",\"len\":3,\"id\":4,\"offset\":8}}\n")).unwrap();
        let pickle = folder.path().join("pickles.jsonl");
        std::fs::write(&pickle, format!("{{\"file\":\"{name}\",\"len\":3,\"id\":4}}\n")).unwrap();
        let image = folder.path().join("image.jsonl");
        std::fs::write(&image, format!("{{\"conversations\":[],\"image\":[\"{name}\"]}}\n")).unwrap();
        for error in [
            Records::open(special).err(),
            Records::open(image).unwrap().load(0).err(),
            IndexEntry::read_all(special).err(),
            Dataset::open(special).err(),
            TokenItems::open(&index).err(),
            TokenItems::open(&pickle).unwrap().get(0).err(),
            JsonLines::append(special).err(),
        ] {
            let message = error.unwrap().to_string();
            assert!(message.contains(name), "{message}");
        }
    }
}

/// Where a path leads out of the root: upwards, from `/`, and through a symbolic link.
fn ways_out(folder: &Path, name: &str) -> Vec<String> {
    #[cfg(unix)]
    std::os::unix::fs::symlink(folder, folder.join("root/link")).unwrap();
    let link = cfg!(unix).then(|| format!("link/{name}"));
    let absolute = folder.join(name).to_str().unwrap().to_owned();
    [format!("../{name}"), format!("sub/../../{name}"), absolute].into_iter().chain(link).collect()
}

fn is_outside(error: &Error) -> bool {
    matches!(error, Error::Core(lumina_core::Error::OutsideRoot { .. }))
}

#[test]
fn images_stay_inside_their_folder() {
    let folder = folder();
    let root = folder.path().join("root");
    std::fs::create_dir_all(root.join("sub")).unwrap();
    std::fs::copy(folder.path().join("imgs/a.png"), root.join("sub/a.png")).unwrap();
    let file = root.join("records.jsonl");
    let load = |path: &str, inside: bool| {
        let record = serde_json::json!({ "conversations": [], "image": [path] });
        std::fs::write(&file, record.to_string()).unwrap();
        let records = Records::open(&file).unwrap();
        let records = if inside { records.images_inside(&root) } else { records };
        records.load(0).map(|(_, images)| images.len())
    };
    assert_eq!(load("sub/a.png", true).unwrap(), 1);
    for path in ways_out(folder.path(), "imgs/a.png") {
        assert_eq!(load(&path, false).unwrap(), 1, "{path}");
        let error = load(&path, true).unwrap_err();
        assert!(is_outside(&error), "{path}: {error}");
    }
}

#[test]
fn indexes_and_shards_stay_inside_their_folder() {
    let folder = folder();
    let root = folder.path().join("root");
    std::fs::create_dir_all(root.join("sub")).unwrap();
    for place in [folder.path(), &root.join("sub")] {
        std::fs::write(place.join("0-of-1.tokens"), b"LUMTOK\0\x01").unwrap();
        std::fs::write(place.join("record.json"), r#"[{"file":"0-of-1.tokens","len":3,"id":4,"offset":8}]"#).unwrap();
    }
    let config = |path: &str| -> PathBuf {
        let file = root.join("data.yaml");
        std::fs::write(&file, format!("META: [{{path: '{path}'}}]")).unwrap();
        file
    };
    let index = |path: &str| -> PathBuf {
        let file = root.join("index.json");
        std::fs::write(&file, format!(r#"[{{"file":"{path}","len":3,"id":4,"offset":8}}]"#)).unwrap();
        file
    };
    assert_eq!(Dataset::open_inside(&root, config("sub/record.json")).unwrap().len(), 1);
    assert_eq!(TokenItems::open_inside(&root, index("sub/0-of-1.tokens")).unwrap().len(), 1);
    for path in ways_out(folder.path(), "record.json") {
        assert_eq!(Dataset::open(config(&path)).unwrap().len(), 1, "{path}");
        let error = Dataset::open_inside(&root, config(&path)).unwrap_err();
        assert!(is_outside(&error), "{path}: {error}");
        let shard = path.replace("record.json", "0-of-1.tokens");
        assert_eq!(TokenItems::open(index(&shard)).unwrap().len(), 1, "{shard}");
        let error = TokenItems::open_inside(&root, index(&shard)).unwrap_err();
        assert!(is_outside(&error), "{shard}: {error}");
    }
    // An index outside of the root.
    assert!(is_outside(&TokenItems::open_inside(&root, folder.path().join("record.json")).unwrap_err()));
}
