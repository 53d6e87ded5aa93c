//! A codebook as a tensor, for training.

use burn::tensor::{DType, Device, Tensor, TensorData};

use super::read;
use crate::Result;
use crate::ops::host::HostCodebook;
use crate::ops::maps::{Codebook, Entries};

impl Codebook {
    /// The entries as a tensor: the parameter, or a copy on the processor.
    pub fn tensor(&self) -> Tensor<2> {
        let values = match &self.entries {
            Entries::Burn(entries) => return entries.val(),
            Entries::Host(own) => own.entries().to_vec(),
            #[cfg(feature = "cube")]
            Entries::Gpu(own) => own.codebook.read(&own.gpu).expect(super::GPU_WORKS),
        };
        Tensor::from_data(TensorData::new(values, self.dims()), (&Device::flex(), DType::F32))
    }

    /// Replaces the entries by others of their shape; gradients are recorded as before.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device), `Error::Gpu` where the device fails.
    pub fn set(&mut self, entries: Tensor<2>) -> Result<()> {
        match &mut self.entries {
            Entries::Burn(own) => {
                *own = own.clone().map(|old| {
                    let tracked = old.is_require_grad();
                    entries.detach().set_require_grad(tracked)
                });
            }
            Entries::Host(own) => *own = HostCodebook::new(read(entries)?, own.dims()[1]),
            #[cfg(feature = "cube")]
            Entries::Gpu(own) => {
                let shape = entries.dims();
                own.codebook = lumina_cube::conv::Codebook::new(&own.gpu, shape, &read(entries)?)?;
            }
        }
        Ok(())
    }
}
