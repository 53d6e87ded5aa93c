//! The network in training: its passes in parts, so that a layer can be run twice, and its replicas.

use burn::module::Module;
use burn::tensor::{Bool, DType, Device, Tensor, TensorData};
use lumina_nn::Compute;
use lumina_nn::ops::Hidden;
use smallvec::SmallVec;

use super::attention::PassRows;
use super::dropout::Dropout;
use super::layer::{Site, Stream};
use super::rope::Rotation;
use super::row::{MAX_INLINE_ROWS, Row};
use super::stage::Stage;
use super::transformer::Transformer;
use crate::{Error, Result};

/// What the layers of a training pass share: rotary positions, which tokens are a row, and what is dropped.
pub struct Pass {
    rotation: Rotation,
    device: Device,
    lens: SmallVec<[usize; MAX_INLINE_ROWS]>,
    dropout: Dropout,
}

impl Transformer {
    /// The same network computing elsewhere. In training it is a replica: its parameters keep their ids, and record
    /// gradients of their own. A network that is split over devices stays where it is.
    #[must_use]
    pub fn replica(&self, compute: &Compute) -> Self {
        if self.stages.len() > 1 {
            return self.clone();
        }
        let mut replica = self.clone().fork(&compute.device());
        replica.compute = compute.clone();
        replica.stages = vec![Stage::new(&replica.architecture, 0..replica.architecture.layers, compute)];
        replica
    }

    /// The same network, with the same parameters, for passes that have no backward pass. It records nothing: what is
    /// recorded stays in memory until a backward pass comes through it.
    #[must_use]
    pub fn unrecorded(&self) -> Self {
        let device = self.compute.device();
        if !device.is_autodiff() {
            return self.clone();
        }
        let mut network = self.valid();
        network.compute = self.compute.clone().on_device(device.without_autodiff());
        network.stages = vec![Stage::new(&network.architecture, 0..network.architecture.layers, &network.compute)];
        network
    }

    /// Begins a training pass over whole sequences that goes layer by layer: hidden states `[n, hidden]`, n being the
    /// number of tokens of all rows. Training needs the steps apart, to run a layer twice instead of keeping all that
    /// it computed.
    ///
    /// # Errors
    /// As [`Transformer::forward`]; [`Error::Nn`] where the network may be split over devices.
    pub fn begin(&self, sequences: &[&[u32]], dropout: Dropout) -> Result<(Pass, Tensor<2>)> {
        let rows: Vec<Row<'_>> = sequences.iter().map(|tokens| Row::whole(tokens)).collect();
        self.compute.check_alone()?;
        let x = self.embed(&self.tokens(&rows)?, &self.compute)?;
        let rotation = Rotation::new(&self.architecture, &rows, &self.compute);
        let device = self.compute.device();
        let x = x.into_tensor(&device);
        let lens = rows.iter().map(Row::len).collect();
        Ok((Pass { rotation, device, lens, dropout }, x))
    }

    /// Layer `index` of a pass, the first is 0: `[n, hidden]` → `[n, hidden]`. The same pass, layer and
    /// input give the same result again, dropout included.
    ///
    /// # Errors
    /// [`Error::NoLayer`] where there is no such layer.
    pub fn layer(&self, index: usize, x: Tensor<2>, pass: &Pass) -> Result<Tensor<2>> {
        let layer = self.layers.get(index).ok_or(Error::NoLayer { index, layers: self.layers.len() })?;
        let add = |site: Site, x: Hidden, y: Hidden| -> Hidden {
            let [x, y] = [x, y].map(|x| x.into_tensor(&pass.device));
            pass.dropout.add(index, site, x, y).into()
        };
        let stream = Stream::from(Hidden::from(x));
        let stream = layer.forward(stream, &pass.rotation, PassRows::Whole(&pass.lens), Some(&add));
        Ok(stream.sum().into_tensor(&pass.device))
    }

    /// The norm after the last layer, `[n, hidden]` → `[n, hidden]`.
    pub fn final_norm(&self, x: Tensor<2>) -> Tensor<2> {
        self.norm.forward(&x.into()).into_tensor(&self.compute.device())
    }

    /// Logits in `f32` of hidden states `[n, hidden]`: `[n, vocab_size]`. With `mask_image_logits` those of image
    /// tokens are the lowest finite value.
    pub fn logits(&self, hidden: impl Into<Hidden>) -> Tensor<2> {
        let logits = self.lm_head.forward(&hidden.into()).into_tensor(&self.compute.device()).cast(DType::F32);
        let masked = &self.architecture.masked_logits;
        if masked.is_empty() {
            return logits;
        }
        let [n, n_tokens] = logits.dims();
        let mut is_masked = vec![false; n_tokens];
        for &token in masked {
            is_masked[token as usize] = true;
        }
        let mask = TensorData::new(is_masked, [1, n_tokens]);
        let mask = Tensor::<2, Bool>::from_data(mask, &logits.device());
        logits.mask_fill(mask.expand([n, n_tokens]), f32::MIN)
    }
}
