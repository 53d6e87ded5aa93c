//! The names of devices: what a command line or a config file says.

use super::Compute;
use crate::{Error, Result, Weights};

impl std::fmt::Display for Compute {
    /// The name that [`FromStr`](std::str::FromStr) reads, the type of activations, and the format of weights unless it
    /// is the same.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, device) in self.devices().iter().enumerate() {
            f.write_str(if index > 0 { "+" } else { "" })?;
            f.write_str(device.name)?;
            match device.cuda_index() {
                None | Some(0) => {}
                Some(cuda) => write!(f, ":{cuda}")?,
            }
        }
        write!(f, " {}", self.dtype)?;
        if self.weights == Weights::ComputeType { Ok(()) } else { write!(f, " {}", self.weights) }
    }
}

impl std::str::FromStr for Compute {
    type Err = Error;

    /// `cpu`, `flex`, `ndarray`, `cuda`, `cuda:1`, `cuda:all`, `wgpu`, as far as their features are compiled in;
    /// several with a `+` between them, `cuda+cpu`, are one [after](Compute::then) the other.
    fn from_str(name: &str) -> Result<Self> {
        if let Some((first, rest)) = name.split_once('+') {
            return Ok(first.parse::<Self>()?.then(rest.parse()?));
        }
        match name {
            "cpu" => Ok(Self::cpu()),
            #[cfg(feature = "burn")]
            "flex" => Ok(Self::flex()),
            #[cfg(feature = "ndarray")]
            "ndarray" => Ok(Self::ndarray()),
            #[cfg(feature = "wgpu")]
            "wgpu" | "vulkan" | "metal" => Ok(Self::wgpu()),
            #[cfg(feature = "cuda")]
            "cuda" => Ok(Self::cuda(0)),
            #[cfg(feature = "cuda")]
            "cuda:all" => Ok(Self::cuda_all()),
            #[cfg(feature = "cuda")]
            _ if name.strip_prefix("cuda:").is_some_and(|index| index.parse::<usize>().is_ok()) => {
                Ok(Self::cuda(name[5..].parse().unwrap_or(0)))
            }
            _ => {
                let built_in = [
                    ("cpu", true),
                    ("flex", cfg!(feature = "burn")),
                    ("ndarray", cfg!(feature = "ndarray")),
                    ("cuda", cfg!(feature = "cuda")),
                    ("wgpu", cfg!(feature = "wgpu")),
                ];
                let names: Vec<_> = built_in.iter().filter(|(_, there)| *there).map(|(name, _)| *name).collect();
                let choices = format!("{}; others come with Cargo features", names.join(", "));
                Err(Error::UnknownName { what: "device of this build", name: name.to_owned(), choices })
            }
        }
    }
}

impl std::fmt::Debug for Compute {
    /// The settings, without the memory for activations.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compute")
            .field("name", &self.name)
            .field("dtype", &self.dtype)
            .field("residence", &self.residence)
            .field("weights", &self.weights)
            .field("kv_cache", &self.kv_cache)
            .field("activations", &self.activations)
            .field("master_weights", &self.master_weights)
            .field("max_memory", &self.max_memory)
            .field("others", &self.others)
            .finish_non_exhaustive()
    }
}
