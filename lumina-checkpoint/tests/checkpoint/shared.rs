//! What the tests of checkpoints here and those of models in `lumina-mgpt` share: files opened, read in every way, and
//! damaged.

use std::path::Path;

use lumina_checkpoint::{Checkpoint, Result};
use proptest::prelude::*;

pub(crate) fn f32_bytes(values: impl IntoIterator<Item = f32>) -> Vec<u8> {
    values.into_iter().flat_map(f32::to_le_bytes).collect()
}

/// Writes one file and opens it.
pub(crate) fn write_and_open(name: &str, bytes: &[u8], open: fn(&Path) -> Result<Checkpoint>) -> Result<Checkpoint> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    // The mapping outlives the file's name.
    open(&path)
}

/// Reads every tensor of a checkpoint in every way.
pub(crate) fn read_all(checkpoint: &Checkpoint) -> usize {
    for name in checkpoint.names() {
        let view = checkpoint.get(name).unwrap();
        assert_eq!(Some(view.bytes().len()), view.dtype().bytes_of(view.shape()), "{name}");
        assert_eq!(view.to_f32().is_ok(), view.dtype().is_float() || view.dtype().is_quantised(), "{name}");
        assert_eq!(Some(view.file()), checkpoint.file_of(name));
    }
    checkpoint.names().count()
}

/// Bytes replaced, then the end cut off.
pub(crate) type Damage = (Vec<(prop::sample::Index, u8)>, Option<prop::sample::Index>);

/// What happens to a file.
pub(crate) fn damage() -> impl Strategy<Value = Damage> {
    (
        prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        prop::option::weighted(0.3, any::<prop::sample::Index>()),
    )
}

/// The bytes after what happens to them.
pub(crate) fn damaged(whole: &[u8], (changes, cut): Damage) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    for (place, value) in changes {
        *place.get_mut(&mut bytes) = value;
    }
    if let Some(cut) = cut {
        bytes.truncate(cut.index(bytes.len()));
    }
    bytes
}

/// Reads all of a checkpoint that could be opened; that it could not is right as well.
pub(crate) fn read_if_opened(opened: Result<Checkpoint>) {
    if let Ok(checkpoint) = opened {
        read_all(&checkpoint);
        let _ = checkpoint.document("config.json");
    }
}

/// Two thousand cases, unless `PROPTEST_CASES` says how many.
pub(crate) fn many() -> ProptestConfig {
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default(),
        None => ProptestConfig::with_cases(2000),
    }
}
