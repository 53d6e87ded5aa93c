//! Where linear weights reside, and in which format.

use lumina_checkpoint::Dtype;

use crate::{Error, Result};

/// Where the weights of linear layers and embeddings reside.
///
/// ```
/// use lumina_nn::Residence;
/// assert_eq!("host".parse::<Residence>()?, Residence::Host);
/// assert_eq!(Residence::Mapped.to_string(), "mapped");
/// # Ok::<(), lumina_nn::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Residence {
    /// In the memory-mapped checkpoint file. Opening copies nothing, and the memory is page cache, which the system can
    /// take back. A weight that [`Weights`] converts is on the heap.
    Mapped,
    /// On the heap, copied from the file while opening: for files on a drive that is slow or may go away.
    Host,
    /// In tensors of the device.
    Device,
}

impl Residence {
    /// Every choice.
    pub const ALL: [Self; 3] = [Self::Mapped, Self::Host, Self::Device];
}

impl std::fmt::Display for Residence {
    /// The name that [`FromStr`](std::str::FromStr) reads.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Mapped => "mapped",
            Self::Host => "host",
            Self::Device => "device",
        })
    }
}

impl std::str::FromStr for Residence {
    type Err = Error;

    /// `mapped`, `host` or `device`.
    fn from_str(name: &str) -> Result<Self> {
        by_name(name, "residence of weights", &Self::ALL)
    }
}

/// The format of the weights of linear layers.
///
/// | | linear weights | head | 7B |
/// | --- | --- | --- | --- |
/// | `AsStored` | as in the file | as in the file | 13 GB in `bf16` |
/// | `ComputeType` | in the type of activations | the same | 26 GB in `f32` |
/// | `BF16`, `F16` | 16 bits | 16 bits | 13 GB |
/// | `Q8` | 8.5 bits, [`Format::Q8_0`] | 8.5 bits | 7 GB |
/// | `Q4` | 4.5 bits, [`Format::Q4_0`] | 8.5 bits | 4 GB |
///
/// `BF16` to `Q4` convert while opening, with all threads of the current rayon pool, by the rule that GGUF files are
/// written by ([`Weights::dtype_of`]): such a file, opened `AsStored`, gives the same model without the wait. A weight
/// that is as small already stays as it is.
///
/// ```
/// use lumina_nn::Weights;
/// assert_eq!("q8".parse::<Weights>()?, Weights::Q8);
/// assert_eq!(Weights::Q4.to_string(), "q4");
/// # Ok::<(), lumina_nn::Error>(())
/// ```
///
/// [`Format::Q8_0`]: lumina_kernels::Format::Q8_0
/// [`Format::Q4_0`]: lumina_kernels::Format::Q4_0
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Weights {
    /// As in the file.
    AsStored,
    /// In the type of activations, [`Compute::dtype`](crate::Compute::dtype).
    ComputeType,
    /// `bf16` where the file is wider.
    BF16,
    /// `f16` where the file is wider.
    F16,
    /// Blocks of 8-bit numbers where the file is wider.
    Q8,
    /// Blocks of 4-bit numbers where the file is wider, and the head in 8 bits.
    Q4,
}

/// What a matrix of the network is for, which decides its format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The weight of a linear layer.
    Linear,
    /// The weight of the layer that gives logits. Its errors reach the logits as they are, so it has 8 bits where
    /// others have 4.
    Head,
    /// An embedding table. It stays as in the file, as a token reads one row of it.
    Embedding,
}

impl Weights {
    /// Every choice.
    pub const ALL: [Self; 6] = [Self::AsStored, Self::ComputeType, Self::BF16, Self::F16, Self::Q8, Self::Q4];

    /// The type that linear weights are converted to.
    fn target(self) -> Option<Dtype> {
        match self {
            Self::AsStored | Self::ComputeType => None,
            Self::BF16 => Some(Dtype::BF16),
            Self::F16 => Some(Dtype::F16),
            Self::Q8 => Some(Dtype::Q8_0),
            Self::Q4 => Some(Dtype::Q4_0),
        }
    }

    /// The type that a matrix of this role is converted to; `None` where it stays as stored.
    pub fn dtype_of(self, role: Role) -> Option<Dtype> {
        let linear = self.target()?;
        match role {
            Role::Linear => Some(linear),
            Role::Head => Some(head_dtype(linear)),
            Role::Embedding => None,
        }
    }
}

/// The type of the head where linear weights are converted to `linear`: at least 8 bits.
pub fn head_dtype(linear: Dtype) -> Dtype {
    if linear == Dtype::Q4_0 { Dtype::Q8_0 } else { linear }
}

impl std::fmt::Display for Weights {
    /// The name that [`FromStr`](std::str::FromStr) reads.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::AsStored => "as-stored",
            Self::ComputeType => "compute-type",
            Self::BF16 => "bf16",
            Self::F16 => "f16",
            Self::Q8 => "q8",
            Self::Q4 => "q4",
        })
    }
}

impl std::str::FromStr for Weights {
    type Err = Error;

    /// `as-stored`, `compute-type`, `bf16`, `f16`, `q8` or `q4`.
    fn from_str(name: &str) -> Result<Self> {
        by_name(name, "format of weights", &Self::ALL)
    }
}

fn by_name<T: Copy + ToString>(name: &str, what: &'static str, all: &[T]) -> Result<T> {
    all.iter().copied().find(|choice| choice.to_string() == name).ok_or_else(|| {
        let choices = all.iter().map(T::to_string).collect::<Vec<_>>().join(", ");
        Error::UnknownName { what, name: name.to_owned(), choices }
    })
}
