//! Models in GGUF files: opened as a model, and damaged.

use lumina_checkpoint::Checkpoint;

use crate::shared::{Damage, damaged, read_if_opened, write_and_open};

/// Writes one file and opens it as a model.
pub(crate) fn open(name: &str, bytes: &[u8]) -> lumina_checkpoint::Result<Checkpoint> {
    write_and_open(name, bytes, |path| lumina_mgpt::convert::open(path))
}

pub(crate) fn survives(name: &str, whole: &[u8], damage: Damage) {
    read_if_opened(open(name, &damaged(whole, damage)));
}
