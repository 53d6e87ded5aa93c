//! Parts of a network that have no parameters of Burn, as its modules see them: there is nothing to visit or to move.

use burn::module::{Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor};
use burn::tensor::Device;

use crate::ops::HostMatrix;
use crate::ops::host::{HostCodebook, HostConv};
use crate::ops::values::HostValues;

macro_rules! no_parameters {
    ($([$($generic:tt)*] $type:ty),* $(,)?) => { $(
        impl<$($generic)*> Module for $type {
            fn collect_devices(&self, devices: Devices) -> Devices {
                devices
            }

            fn fork(self, _: &Device) -> Self {
                self
            }

            fn to_device(self, _: &Device) -> Self {
                self
            }

            fn visit<V: ModuleVisitor>(&self, _: &mut V) {}

            fn map<M: ModuleMapper>(self, _: &mut M) -> Self {
                self
            }

            fn materialize(self) -> Self {
                self
            }

            fn valid(&self) -> Self {
                self.clone()
            }

            fn train(self) -> Self {
                self
            }
        }

        impl<$($generic)*> ModuleDisplayDefault for $type {
            fn content(&self, content: Content) -> Option<Content> {
                content.add_formatted(&format!("{self:?}")).optional()
            }
        }

        impl<$($generic)*> ModuleDisplay for $type {}
    )* };
}

no_parameters!([] HostMatrix, [] HostConv, [] HostCodebook, [const D: usize] HostValues<D>);

#[cfg(feature = "cube")]
no_parameters!(
    [] crate::ops::weight::GpuMatrix,
    [] crate::ops::maps::GpuConv,
    [] crate::ops::maps::GpuEntries,
    [const D: usize] crate::ops::values::GpuValues<D>,
);
