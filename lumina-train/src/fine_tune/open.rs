//! The networks of the ranks of this process: whole ones, or each with its share of the weights.

use std::collections::HashMap;
use std::path::Path;

use lumina_checkpoint::Adapter;

use super::rank::Rank;
use super::shards::Shards;
use super::trainable::{Loaded, Source};
use super::{Devices, FineTuneOptions, Trainable, recording};
use crate::Result;

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
        // Names and shapes say who owns what.
        let owners = Shards::new(&source.load(device, &|_| false)?, ranks);
        let open = |(number, device)| {
            let loaded = source.load(device, &|name| owners.is_owned(first + number, name))?;
            Ok(Rank::new(loaded, options, ranks))
        };
        return devices.own.iter().enumerate().map(open).collect();
    }
    let Loaded { trainable: Trainable { model, names }, shapes, .. } = source.load(device, &|_| true)?;
    let replicas: Vec<_> = devices.own.iter().skip(1).map(|device| model.replica(&recording(device))).collect();
    let rank = |model| {
        let trainable = Trainable { model, names: names.clone() };
        // What is frozen stays whole.
        Rank::new(Loaded { trainable, frozen: HashMap::new(), shapes: shapes.clone() }, options, ranks)
    };
    Ok(std::iter::once(model).chain(replicas).map(rank).collect())
}
