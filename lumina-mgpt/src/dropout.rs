//! Dropout whose draws follow from a seed and a place, not from a generator's history.

use burn::tensor::{Bool, Tensor, TensorData};
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Dropout of what attention and MLP add to the residual stream, in training.
///
/// What is dropped is a function of seed, pass and place in the network. So a run that was interrupted goes on as if it
/// had not been, a layer that is run twice drops the same, and the device does not matter.
/// Mirrors `config.dropout` of the original.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dropout {
    rate: f64,
    seed: u64,
    pass: u64,
}

/// Where in a layer something is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Site {
    Attention,
    Mlp,
}

impl Dropout {
    /// Nothing is dropped.
    pub const NONE: Self = Self { rate: 0.0, seed: 0, pass: 0 };

    /// Drops the share `rate`, clamped to 0 ..= 0.99, of the values; `pass` counts the passes of a run.
    pub fn new(rate: f64, seed: u64, pass: u64) -> Self {
        Self { rate: rate.clamp(0.0, 0.99), seed, pass }
    }

    pub(crate) fn apply(&self, layer: usize, site: Site, x: Tensor<2>) -> Tensor<2> {
        if self.rate <= 0.0 {
            return x;
        }
        let [n, width] = x.dims();
        let mut random = ChaCha12Rng::seed_from_u64(self.seed);
        let place = 2 * layer as u64 + site as u64;
        random.set_stream(self.pass << 16 | place);
        let mut bytes = vec![0; 2 * n * width];
        random.fill_bytes(&mut bytes);
        let threshold = (self.rate * 65_536.0) as u16;
        let dropped: Vec<bool> =
            bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]) < threshold).collect();
        let dropped = Tensor::<2, Bool>::from_data(TensorData::new(dropped, [n, width]), &x.device());
        x.mask_fill(dropped, 0.0) * (1.0 / (1.0 - self.rate))
    }
}
