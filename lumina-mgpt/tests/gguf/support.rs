//! Models in GGUF files: opened as a model, read in every way, and damaged.

use lumina_checkpoint::Checkpoint;
use proptest::prelude::*;

pub(crate) fn f32_bytes(values: impl IntoIterator<Item = f32>) -> Vec<u8> {
    values.into_iter().flat_map(f32::to_le_bytes).collect()
}

/// Writes one file and opens it.
pub(crate) fn open(name: &str, bytes: &[u8]) -> lumina_checkpoint::Result<Checkpoint> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    // The mapping outlives the file's name.
    lumina_mgpt::convert::open(&path)
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

type Damage = (Vec<(prop::sample::Index, u8)>, Option<prop::sample::Index>);

/// What happens to a file.
pub(crate) fn damage() -> impl Strategy<Value = Damage> {
    (
        prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        prop::option::weighted(0.3, any::<prop::sample::Index>()),
    )
}

pub(crate) fn survives(name: &str, whole: &[u8], (changes, cut): Damage) {
    let mut bytes = whole.to_vec();
    for (place, value) in changes {
        *place.get_mut(&mut bytes) = value;
    }
    if let Some(cut) = cut {
        bytes.truncate(cut.index(bytes.len()));
    }
    if let Ok(checkpoint) = open(name, &bytes) {
        read_all(&checkpoint);
        let _ = checkpoint.document("config.json");
    }
}

pub(crate) fn many() -> ProptestConfig {
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default(),
        None => ProptestConfig::with_cases(2000),
    }
}
