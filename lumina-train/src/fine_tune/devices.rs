//! Where a run computes.

use std::sync::Arc;

use lumina_nn::Compute;

use crate::collective::{Alone, Collective};
use crate::{Error, Result};

/// Where a run computes: on devices of this process, or on one of this process together with those of others.
///
/// A device is a rank: it computes its passes, with weights and optimizer as [`Sharding`](super::Sharding) says. Lists
/// of [`Compute`] are devices of this process.
#[derive(Debug, Clone)]
pub struct Devices {
    pub(super) own: Vec<Compute>,
    /// The other processes.
    pub(super) processes: Arc<dyn Collective>,
}

impl Devices {
    /// A device of this process, which is one rank of a collective. All of its ranks make the same calls.
    pub fn over(collective: impl Collective + 'static, device: Compute) -> Self {
        Self { own: vec![device], processes: Arc::new(collective) }
    }

    /// The number of devices, with those of other processes.
    pub(super) fn count(&self) -> usize {
        self.own.len() * self.processes.size()
    }

    /// The number of the first of this process among all.
    pub(super) fn first(&self) -> usize {
        self.own.len() * self.processes.rank()
    }

    /// The first of this process. Each computes with a whole network.
    pub(super) fn check(&self) -> Result<&Compute> {
        self.own.iter().try_for_each(Compute::check_alone)?;
        self.own.first().ok_or(Error::NoDevices)
    }
}

impl From<&[Compute]> for Devices {
    fn from(devices: &[Compute]) -> Self {
        Self { own: devices.to_vec(), processes: Arc::new(Alone) }
    }
}

impl<const N: usize> From<&[Compute; N]> for Devices {
    fn from(devices: &[Compute; N]) -> Self {
        devices.as_slice().into()
    }
}

impl From<&Vec<Compute>> for Devices {
    fn from(devices: &Vec<Compute>) -> Self {
        devices.as_slice().into()
    }
}

impl From<&Devices> for Devices {
    fn from(devices: &Devices) -> Self {
        devices.clone()
    }
}
