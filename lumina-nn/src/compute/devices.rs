//! Several devices that share a model.

use super::Compute;
use crate::{Error, Result};

impl Compute {
    /// What does not fit this device goes to `next`: to another GPU, or to host memory with `Compute::cpu()`. Whole
    /// layers do, and each computes where its weights and its keys and values are; the book's page on GPUs says which.
    /// A GPU whose driver does not say how much memory it has needs [`Compute::max_memory`], else all of a model goes
    /// there.
    ///
    /// What is set afterwards is set for all devices, but [`Compute::weights_in`] and [`Compute::max_memory`], which
    /// are this one's. The image tokenizer is on the first device. Burn's tensors, and so training, are in one place.
    ///
    /// ```
    /// # #[cfg(feature = "wgpu")] {
    /// use lumina_nn::Compute;
    /// let compute = Compute::wgpu().max_memory(8 << 30).then(Compute::cpu());
    /// assert_eq!(compute.to_string(), "wgpu+cpu f32 as-stored");
    /// assert_eq!("wgpu+cpu".parse::<Compute>()?.devices().len(), 2);
    /// # }
    /// # Ok::<(), lumina_nn::Error>(())
    /// ```
    #[must_use]
    pub fn then(mut self, mut next: Self) -> Self {
        let last = std::mem::take(&mut next.others);
        self.others.push(next);
        self.others.extend(last);
        self
    }

    /// All CUDA devices, in their order: a model that does not fit the first is split over as many as it needs. Where
    /// there is none, [`Compute::check`] says why.
    ///
    /// Looking for them starts their driver.
    #[cfg(feature = "cuda")]
    pub fn cuda_all() -> Self {
        let is_cuda = |choice: &lumina_cube::DeviceChoice| matches!(choice, lumina_cube::DeviceChoice::Cuda(_));
        let n = lumina_cube::Gpu::enumerate().iter().filter(|choice| is_cuda(choice)).count();
        (1..n).map(Self::cuda).fold(Self::cuda(0), Self::then)
    }

    /// The most bytes of its memory that a model may take on this device: for a GPU that others use as well, or whose
    /// driver does not say how much it has. In host memory it counts weights, mapped ones too.
    #[must_use]
    pub fn max_memory(mut self, bytes: u64) -> Self {
        self.max_memory = Some(bytes);
        self
    }

    /// The device, and those [after](Compute::then) it, each alone.
    pub fn devices(&self) -> Vec<Self> {
        let first = Self { others: Vec::new(), ..self.clone() };
        std::iter::once(first).chain(self.others.iter().cloned()).collect()
    }

    /// Checks that no device is [after](Compute::then) this one.
    ///
    /// # Errors
    /// [`Error::Together`].
    pub fn check_alone(&self) -> Result<()> {
        if self.others.is_empty() { Ok(()) } else { Err(Error::Together { device: self.name }) }
    }

    /// Sets something for all devices.
    pub(super) fn each(mut self, set: impl Fn(&mut Self)) -> Self {
        set(&mut self);
        self.others.iter_mut().for_each(set);
        self
    }

    /// Checks those after this one, and that each of them can have a part of a model.
    pub(super) fn check_others(&self) -> Result<()> {
        let in_tensors = |device: &&Self| device.is_in_tensors();
        if !self.others.is_empty()
            && let Some(device) = std::iter::once(self).chain(&self.others).find(in_tensors)
        {
            return Err(Error::Together { device: device.name });
        }
        self.others.iter().try_for_each(Self::check)
    }
}

#[cfg(test)]
mod tests {
    use lumina_checkpoint::Dtype;

    use super::*;
    use crate::{Residence, Weights};

    #[test]
    fn settings_are_for_all_devices_but_those_of_memory() {
        let compute = Compute::cpu().then(Compute::cpu().max_memory(7)).then(Compute::cpu());
        let compute = compute.weights(Weights::Q8).kv_cache(Dtype::BF16).weights_in(Residence::Host).max_memory(5);
        let devices = compute.devices();
        assert!(devices.iter().all(|device| device.format() == Weights::Q8 && device.kv_dtype() == Dtype::BF16));
        assert_eq!(devices.iter().map(Compute::device_memory).collect::<Vec<_>>(), [Some(5), Some(7), None]);
        let residences = [Residence::Host, Residence::Mapped, Residence::Mapped];
        assert_eq!(devices.iter().map(Compute::residence).collect::<Vec<_>>(), residences);
        assert!(devices.iter().all(|device| device.devices().len() == 1));
        compute.check().unwrap();
        // One after the other, however they are put together.
        let nested = Compute::cpu().then(Compute::cpu().max_memory(7).then(Compute::cpu().max_memory(8)));
        assert_eq!(nested.devices().iter().map(Compute::device_memory).collect::<Vec<_>>(), [None, Some(7), Some(8)]);
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        let compute: Compute = "cpu+cpu".parse().unwrap();
        assert_eq!((compute.devices().len(), compute.to_string()), (2, "cpu+cpu f32 as-stored".to_owned()));
        for name in ["cpu+", "+cpu", "cpu+tpu", "+"] {
            assert!(name.parse::<Compute>().is_err(), "{name}");
        }
    }

    /// The device of each is checked.
    #[test]
    fn what_cannot_have_a_part_of_a_model_is_an_error() {
        let wrong = Compute::cpu().then(Compute::cpu().weights_in(Residence::Device));
        assert!(matches!(wrong.check(), Err(Error::Residence { .. })));
        assert!(Compute::cpu().then(Compute::cpu()).check().is_ok());
    }

    /// Tensors are in one place.
    #[cfg(feature = "burn")]
    #[test]
    fn tensors_are_on_one_device() {
        for compute in [Compute::cpu().then(Compute::flex()), Compute::flex().then(Compute::cpu())] {
            assert!(matches!(compute.check(), Err(Error::Together { device: "flex" })));
        }
        assert!(matches!(Compute::cpu().then(Compute::cpu()).in_tensors().check(), Err(Error::Together { .. })));
    }
}
