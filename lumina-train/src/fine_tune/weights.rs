//! The weights of a trainer in files, whichever ranks have them.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use lumina_checkpoint::save_safetensors;

use super::{Trainable, Trainer};
use crate::checkpoint::{WeightType, create_together, save_parameters, tensor_bytes};
use crate::collective::tell;
use crate::shards::Values;
use crate::{Error, Result};

impl Trainer {
    /// Makes a folder with what all processes write into it.
    pub(super) fn write_together(&self, folder: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let processes = &*self.devices.processes;
        create_together(processes, folder, |partial| match self.shares_weights() {
            // The others may be waiting for a tensor, and take what comes next for it.
            true => write(partial).inspect_err(|error| tell(processes, error)),
            false => write(partial),
        })
    }

    /// The model, or the adapter alone, with its config: the first process writes it. All call this.
    pub(super) fn write_weights(&self, folder: &Path, dtype: WeightType) -> Result<()> {
        let is_first = self.devices.processes.rank() == 0;
        if !self.shares_weights() {
            return match &*self.ranks {
                [rank, ..] if is_first => {
                    let file = folder.join(self.files.write(folder, dtype)?);
                    let Trainable { model, names } = &rank.trainable;
                    save_parameters(model, names, dtype.dtype(), &file)
                }
                _ => Ok(()),
            };
        }
        // A tensor after the other, so that no rank holds all of them. The file has them in the order of their names.
        let Some(shards) = self.ranks.first().map(|rank| &rank.shards) else { return Err(Error::NoDevices) };
        let trained = shards.parameters().iter().enumerate().filter(|(_, parameter)| parameter.is_trained);
        let places: BTreeMap<&str, usize> = trained.map(|(at, parameter)| (&*parameter.name, at)).collect();
        let first = self.devices.first();
        let own: Vec<Values> = (first..)
            .zip(&self.ranks)
            .map(|(number, rank)| rank.shards.own_weights(&rank.trainable.model, number))
            .collect();
        if !is_first {
            return places.into_values().try_for_each(|at| self.weight_for_first(&own, at, dtype).map(|_| ()));
        }
        let file = folder.join(self.files.write(folder, dtype)?);
        let own = &own;
        let tensors = places.into_iter().map(|(name, at)| {
            let bytes = move || self.weight_for_first(own, at, dtype).map_err(lumina_checkpoint::Error::values);
            (name, dtype.dtype(), &shards.parameters()[at].shape, bytes)
        });
        save_safetensors(file, tensors).map_err(|error| match error {
            lumina_checkpoint::Error::Values { tensor, source } => match source.downcast::<Error>() {
                Ok(own) => *own,
                Err(source) => lumina_checkpoint::Error::Values { tensor, source }.into(),
            },
            other => other.into(),
        })
    }

    /// The bytes of a weight, which its owner gives to the first process. All call this; the others get nothing.
    /// `own` has the weights of this process's devices.
    fn weight_for_first(&self, own: &[Values], at: usize, dtype: WeightType) -> Result<Bytes> {
        let (processes, devices) = (&*self.devices.processes, own.len());
        let owner = self.ranks.first().and_then(|rank| rank.shards.owner(at)).unwrap_or(0);
        let (process, device) = (owner / devices, owner % devices);
        let given = match own[device][at].clone().filter(|_| process == processes.rank()) {
            Some(weight) => tensor_bytes(weight, dtype)?,
            None => Bytes::new(),
        };
        let mut received = processes.exchange(vec![given])?;
        Ok(received.swap_remove(process))
    }
}
