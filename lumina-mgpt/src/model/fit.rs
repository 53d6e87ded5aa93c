//! What a model takes on a device or on several, before anything is allocated.

use std::ops::Range;

use lumina_checkpoint::{Adapter, Checkpoint, Dtype, TensorView};
use lumina_nn::{Compute, Role, Weights};

use super::config::{Architecture, ModelConfig};
use super::placement::{Placed, Room, place};
use crate::{Error, Result};

/// Bytes that a model takes where it computes, and what there is: made by [`Lumina::fit`](crate::Lumina::fit).
///
/// With [`Compute::cpu`](crate::Compute) weights as stored are page cache, which the system can take back, so all
/// that is needed is not needed at once.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Fit {
    /// Bytes of the weights, in the format asked for.
    pub weights: u64,
    /// Bytes of the keys and values of one sequence as long as the context, with guidance.
    pub kv_cache: u64,
    /// Bytes of activations and of what drivers and kernels take, roughly, on each device.
    pub overhead: u64,
    /// Bytes that all devices have, free or not, where their drivers, or [`Compute::max_memory`](crate::Compute), say
    /// so.
    pub total: Option<u64>,
    /// Bytes of them that are free now, where drivers say so: on CUDA. What other programs, and models of this one,
    /// have there is not.
    pub free: Option<u64>,
    /// Bytes of the weights in each smaller format, from the largest.
    pub smaller: Vec<(Weights, u64)>,
    /// What each device that is needed gets, in the order of the layers; empty where the model does not fit.
    pub stages: Vec<StageFit>,
    /// The largest smaller format that fits.
    fitting: Option<Weights>,
    /// Number of devices.
    devices: usize,
    placed: Vec<Placed>,
}

/// Layers of a model on one device.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StageFit {
    /// The device and the format of its weights, as `Compute` is displayed.
    pub device: String,
    /// The layers. The embedding is with the first ones, norm and head with the last ones.
    pub layers: Range<usize>,
    /// Bytes of their weights.
    pub weights: u64,
    /// Bytes of their keys and values of one sequence as long as the context, with guidance.
    pub kv_cache: u64,
    /// Bytes that the device has, those that are free where its driver says so, at most
    /// [`Compute::max_memory`](crate::Compute).
    pub available: Option<u64>,
}

/// What kernels, drivers and activations of a pass take on a GPU. A guess: half a gigabyte.
const OVERHEAD: u64 = 1 << 29;

impl Fit {
    /// That of the model in a checkpoint: see [`Lumina::fit`](crate::Lumina::fit), which opens one.
    ///
    /// # Errors
    /// [`Error::Config`], and [`Error::Nn`] where there is no such device.
    pub fn of_checkpoint(checkpoint: &Checkpoint, compute: &Compute) -> Result<Self> {
        compute.check()?;
        let (_, architecture) = ModelConfig::of_checkpoint(checkpoint)?;
        Ok(Self::new(checkpoint, None, &architecture, compute))
    }

    pub(crate) fn new(
        checkpoint: &Checkpoint,
        adapter: Option<&Adapter>,
        architecture: &Architecture,
        compute: &Compute,
    ) -> Self {
        let devices = compute.devices();
        let available = |device: &Compute| device.free_device_memory().or_else(|| device.device_memory());
        let available: Vec<Option<u64>> = devices.iter().map(available).collect();
        let rooms_in = |format| -> Vec<Room> {
            let room = |(device, available): (&Compute, &Option<u64>)| Room {
                bytes: available.map(|bytes| bytes.saturating_sub(OVERHEAD)),
                ..room(checkpoint, adapter, architecture, device, format)
            };
            devices.iter().zip(&available).map(room).collect()
        };
        let rooms = rooms_in(compute.format());
        let weights = |rooms: &[Room]| rooms.first().map_or(0, |room| room.weights(0..architecture.layers));
        let own = weights(&rooms);
        let formats = [Weights::BF16, Weights::Q8, Weights::Q4].map(|format| (format, rooms_in(format)));
        let smaller = formats.iter().filter(|(_, rooms)| weights(rooms) < own);
        let fits = |(_, rooms): &&(Weights, Vec<Room>)| place(rooms, 0).is_some();

        // Both rows of a guided sequence. On one device they take what is left.
        let context = 2 * architecture.max_positions() as u64;
        let placed = place(&rooms, if devices.len() > 1 { context } else { 0 }).unwrap_or_default();
        let stage = |(index, layers): &Placed| StageFit {
            device: devices[*index].to_string(),
            layers: layers.clone(),
            weights: rooms[*index].weights(layers.clone()),
            kv_cache: context.saturating_mul(rooms[*index].kv).saturating_mul(layers.len() as u64),
            available: available[*index],
        };
        let stages: Vec<StageFit> = placed.iter().map(stage).collect();
        let of_stages = |bytes: fn(&StageFit) -> u64| stages.iter().map(bytes).fold(0, u64::saturating_add);
        let kv = rooms.first().map_or(0, |room| room.kv).saturating_mul(architecture.layers as u64);
        Self {
            weights: if stages.is_empty() { own } else { of_stages(|stage| stage.weights) },
            kv_cache: if stages.is_empty() { context.saturating_mul(kv) } else { of_stages(|stage| stage.kv_cache) },
            overhead: OVERHEAD,
            total: sum(devices.iter().map(Compute::device_memory)),
            free: sum(devices.iter().map(Compute::free_device_memory)),
            smaller: smaller.clone().map(|(format, rooms)| (*format, weights(rooms))).collect(),
            fitting: smaller.clone().find(fits).map(|(format, _)| *format),
            devices: devices.len(),
            stages,
            placed,
        }
    }

    /// Bytes with the keys and values of one sequence as long as the context, with guidance: what serves any request.
    /// A model [fits](Fit::fits) where it can be opened; shorter sequences take less than that.
    pub fn needed(&self) -> u64 {
        self.needed_to_open().saturating_add(self.kv_cache)
    }

    /// Bytes before any request: the keys and values of sequences come on top, and take what is left.
    pub fn needed_to_open(&self) -> u64 {
        let devices = if self.stages.is_empty() { self.devices } else { self.stages.len() } as u64;
        self.weights.saturating_add(self.overhead.saturating_mul(devices))
    }

    /// Bytes that the model can have: those that are [free](Fit::free), or where that is not known, [all](Fit::total).
    pub fn available(&self) -> Option<u64> {
        self.free.or(self.total)
    }

    /// Whether the devices have so much; yes where a driver does not say.
    pub fn fits(&self) -> bool {
        !self.stages.is_empty()
    }

    /// The largest smaller format in which the model would fit.
    pub fn format_that_fits(&self) -> Option<Weights> {
        self.fitting
    }

    /// An error that says what to do, unless the model fits.
    pub(crate) fn check(&self) -> Result<()> {
        if self.fits() {
            return Ok(());
        }
        let other = match self.fitting {
            Some(format) => format!("it would fit with `Compute::weights` {format}"),
            None => "choose a smaller model, or `Compute::cpu`".to_owned(),
        };
        // Others have what lacks.
        let has_room = self.free.and(self.total).is_some_and(|total| self.needed_to_open() <= total);
        let other = if has_room { format!("close what else uses the device, or {other}") } else { other };
        let remedy = other + ", or name more devices for what does not fit: `Compute::then`";
        let &Self { free, total, devices, .. } = self;
        Err(Error::DoesNotFit { needed: self.needed_to_open(), free, total, devices, remedy })
    }

    /// Where the layers compute, in their order; `compute` is what this was made for.
    pub(crate) fn places(&self, compute: &Compute) -> Result<Vec<(Compute, Range<usize>)>> {
        self.check()?;
        let devices = compute.devices();
        Ok(self.placed.iter().map(|(index, layers)| (devices[*index].clone(), layers.clone())).collect())
    }
}

impl Room {
    /// Bytes of the weights of these layers, with those that are before the first and after the last one.
    fn weights(&self, layers: Range<usize>) -> u64 {
        let before = if layers.start == 0 { self.embedding } else { 0 };
        let after = if layers.end == self.layers.len() { self.head } else { 0 };
        self.bytes_of(layers, 0).saturating_add(before).saturating_add(after)
    }
}

/// What the parts of a network take on a device in a format.
fn room(
    checkpoint: &Checkpoint,
    adapter: Option<&Adapter>,
    architecture: &Architecture,
    device: &Compute,
    format: Weights,
) -> Room {
    let kv = kv_bytes(architecture, device.kv_dtype());
    let mut room = Room { bytes: None, embedding: 0, layers: vec![0; architecture.layers], head: 0, kv };
    let is_host = device.has_host_memory();
    let mut add = |path: &str, bytes: u64| {
        let part = match path.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.')?.0.parse().ok()) {
            Some(layer) => room.layers.get_mut::<usize>(layer),
            None if path.starts_with("model.embed_tokens.") => Some(&mut room.embedding),
            None if path.starts_with("model.norm.") || path.starts_with("lm_head.") => Some(&mut room.head),
            None => None,
        };
        if let Some(part) = part {
            *part = part.saturating_add(bytes);
        }
    };
    for view in checkpoint.names().filter_map(|name| checkpoint.get(name)) {
        let bytes = |role| bytes_of(&view, format, role, is_host);
        match view.name() {
            // A head that is the embedding's table is loaded a second time.
            name @ "model.embed_tokens.weight" if architecture.tied_head => {
                add(name, bytes(Some(Role::Head)));
                add("lm_head.weight", bytes(Some(Role::Head)));
            }
            "lm_head.weight" if architecture.tied_head => {}
            name @ "model.embed_tokens.weight" => add(name, bytes(Some(Role::Embedding))),
            name @ "lm_head.weight" => add(name, bytes(Some(Role::Head))),
            name if name.ends_with("_proj.weight") => add(name, bytes(Some(Role::Linear))),
            name => add(name, bytes(None)),
        }
    }
    for path in adapter.into_iter().flat_map(Adapter::layers) {
        let matrices = adapter.and_then(|adapter| adapter.matrices(path)).into_iter().flatten();
        add(&format!("{path}."), matrices.map(|view| bytes_of(&view, format, None, is_host)).sum());
    }
    room
}

/// Bytes of a tensor where it is loaded.
fn bytes_of(view: &TensorView, format: Weights, role: Option<Role>, is_host: bool) -> u64 {
    let stored = view.bytes().len();
    let bytes_in = |dtype: Dtype| dtype.bytes_of(view.shape());
    let converted = role.and_then(|role| format.dtype_of(role)).and_then(bytes_in).filter(|bytes| *bytes < stored);
    let own = match view.dtype() {
        Dtype::F32 | Dtype::F16 | Dtype::BF16 | Dtype::Q8_0 | Dtype::Q4_0 => None,
        _ if is_host => None,
        // A GPU has other formats in one of these.
        other => bytes_in(if other.is_quantised() { Dtype::Q8_0 } else { Dtype::F32 }),
    };
    converted.or(own).unwrap_or(stored) as u64
}

/// Bytes of the keys and values of a token in a layer.
fn kv_bytes(architecture: &Architecture, dtype: Dtype) -> u64 {
    let &Architecture { kv_heads, head_dim, .. } = architecture;
    // A head's numbers, and the scale of a quantised one.
    let head = match dtype {
        Dtype::Q8_0 => head_dim + 4,
        Dtype::F16 | Dtype::BF16 => 2 * head_dim,
        _ => 4 * head_dim,
    };
    2 * (kv_heads * head) as u64
}

/// The sum, where all are known.
fn sum(bytes: impl Iterator<Item = Option<u64>>) -> Option<u64> {
    bytes.into_iter().try_fold(0u64, |all, own| Some(all.saturating_add(own?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A card that is large enough, most of which others have.
    #[test]
    fn what_is_free_counts_before_what_the_card_has() {
        let fit = |total: u64, free| Fit {
            weights: 14 << 30,
            kv_cache: 4 << 30,
            overhead: OVERHEAD,
            total: Some(total << 30),
            free,
            smaller: vec![(Weights::Q8, 7 << 30)],
            stages: Vec::new(),
            fitting: Some(Weights::Q8),
            devices: 1,
            placed: Vec::new(),
        };
        let short = fit(24, Some(10 << 30));
        assert_eq!((short.available(), short.format_that_fits()), (Some(10 << 30), Some(Weights::Q8)));
        assert_eq!(
            short.check().unwrap_err().to_string(),
            "the model takes 15.6 GB on the device, which has 10.7 GB free of 25.8 GB; close what else uses the device, \
             or it would fit with `Compute::weights` q8, or name more devices for what does not fit: `Compute::then`"
        );
        let error = Fit { devices: 2, ..fit(10, None) }.check().unwrap_err().to_string();
        assert!(error.contains("on 2 devices, which have 10.7 GB for whole layers; it would fit with"), "{error}");
    }
}
