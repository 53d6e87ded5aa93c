//! Tensors of a trainer's state.

use lumina_checkpoint::Checkpoint;

use crate::{Error, Result};

/// The values of a tensor in a file of saved state, which must have this many.
pub(crate) fn state_values(checkpoint: &Checkpoint, name: &str, expected: usize) -> Result<Vec<f32>> {
    match checkpoint.get(name) {
        Some(view) if view.shape().iter().product::<usize>() == expected => Ok(view.to_f32()?),
        _ => Err(Error::TrainerState { file: checkpoint.path().to_owned(), tensor: name.to_owned() }),
    }
}
