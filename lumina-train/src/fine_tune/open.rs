//! The networks of the ranks of this process: whole ones, or each with its share of the weights.

use std::path::Path;

use lumina_checkpoint::Adapter;

use super::rank::Rank;
use super::trainable::{Loaded, Source};
use super::{Devices, FineTuneOptions, Trainable, recording};
use crate::Result;
use crate::shards::{Names, Shards};

/// Opens the model in a folder, with an adapter on it if there is one, for each device of this process.
///
/// Where weights are shared out, those of other ranks are never read.
pub(super) fn open(
    model: &Path,
    adapter: Option<&Adapter>,
    options: &FineTuneOptions,
    devices: &Devices,
) -> Result<Vec<Rank>> {
    let device = devices.check()?;
    let (source, ranks, first) = (Source::open(model, adapter)?, devices.count(), devices.first());
    if options.sharding.shares_weights(ranks) {
        let shards = |loaded: &Loaded| {
            let Loaded { trainable: Trainable { model, names }, frozen, shapes } = loaded;
            Shards::new(model, &Names { trained: names, frozen: Some(frozen), shapes: Some(shapes) }, ranks)
        };
        // Names and shapes say who owns what.
        let owners = shards(&source.load(device, &|_| false)?);
        let open = |(number, device)| {
            let loaded = source.load(device, &|name| owners.is_owned(first + number, name))?;
            let shards = shards(&loaded);
            Ok(Rank::new(loaded.trainable, shards, options))
        };
        return devices.own.iter().enumerate().map(open).collect();
    }
    let Trainable { model, names } = source.load(device, &|_| true)?.trainable;
    let replicas: Vec<_> = devices.own.iter().skip(1).map(|device| model.replica(&recording(device))).collect();
    let rank = |model| {
        let shards = Shards::new(&model, &Names::trained(&names), ranks);
        Rank::new(Trainable { model, names: names.clone() }, shards, options)
    };
    Ok(std::iter::once(model).chain(replicas).map(rank).collect())
}
