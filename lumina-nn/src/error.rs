//! The errors of this crate: what, where, and what to do.

use std::path::PathBuf;

use lumina_checkpoint::Dtype;

use crate::{Residence, Weights};

/// Shorthand for this crate's results.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong in `lumina-nn`.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A checkpoint's tensors are not those of the model.
    #[error(
        "{}: {n_problems} tensors do not fit the model; is this the checkpoint of another size or kind?{list}",
        file.display()
    )]
    Weights {
        /// The folder or file.
        file: PathBuf,
        /// How many tensors are at fault, of those that were looked at.
        n_problems: usize,
        /// One line for each, up to twenty.
        list: String,
    },
    /// A device, format or residence that is not known, or not compiled in.
    #[error("`{name}` is no {what}; choose one of {choices}")]
    UnknownName {
        /// What was to be named.
        what: &'static str,
        /// The name given.
        name: String,
        /// The names that there are.
        choices: String,
    },
    /// A type that activations cannot have.
    #[error("{dtype} is not a type to compute in; choose f32, f16 or bf16")]
    ComputeType {
        /// The type asked for.
        dtype: Dtype,
    },
    /// A type of activations that the device lacks.
    #[error("device `{device}` cannot compute in {dtype}; choose {choices}")]
    DeviceType {
        /// The device.
        device: &'static str,
        /// The type asked for.
        dtype: Dtype,
        /// What to choose instead.
        choices: &'static str,
    },
    /// Weights cannot reside there for this device.
    #[error("weights cannot reside in `{residence}` memory for device `{device}`; choose {choices}")]
    Residence {
        /// The device.
        device: &'static str,
        /// The residence asked for.
        residence: Residence,
        /// What to choose instead.
        choices: &'static str,
    },
    /// The device does not compute with weights of this format yet.
    #[error("device `{device}` does not compute with `{weights}` weights yet; choose {choices}")]
    WeightFormat {
        /// The device.
        device: &'static str,
        /// The format asked for.
        weights: Weights,
        /// What to choose instead.
        choices: &'static str,
    },
    /// A type that a KV cache cannot have.
    #[error("{dtype} is not a type for keys and values; choose f32, bf16 or q8_0, on a GPU also f16")]
    KvCacheType {
        /// The type asked for.
        dtype: Dtype,
    },
    /// A KV cache in another type than that of activations, on a device that cannot read it.
    #[error(
        "keys and values in {dtype} need a CPU device and f32 activations; on device `{device}` they have the \
         type of activations: leave them at f32"
    )]
    KvCacheDevice {
        /// The device.
        device: &'static str,
        /// The type asked for.
        dtype: Dtype,
    },
    /// A device that cannot have a part of a model, named with others.
    #[error(
        "device `{device}` cannot share a model with other devices: layers are split over GPUs and `cpu`, not over \
         Burn's tensors, which training needs; name one device"
    )]
    Together {
        /// The device.
        device: &'static str,
    },
    /// The device failed.
    #[error("the compute device failed; if its memory is full, choose a smaller model, batch or image")]
    Device {
        /// What the backend reported.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There is no GPU, or it failed.
    #[cfg(feature = "cube")]
    #[error(transparent)]
    Gpu(#[from] lumina_cube::Error),
    /// A checkpoint could not be read.
    #[error(transparent)]
    Checkpoint(#[from] lumina_checkpoint::Error),
}

impl Error {
    /// The error of a device, with what the backend reported as its source.
    pub fn device(source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Device { source: Box::new(source) }
    }
}

/// For functions that hand tensors to [`save_safetensors`](lumina_checkpoint::save_safetensors).
impl From<Error> for lumina_checkpoint::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Checkpoint(error) => error,
            other => Self::values(other),
        }
    }
}
