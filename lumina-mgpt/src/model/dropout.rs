//! Dropout keyed by seed, pass and place: no generator has a state to restore.

use burn::tensor::Tensor;
use lumina_nn::ops::dropout_add;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rayon::prelude::*;

use super::layer::Site;

/// Residual dropout, in training: of the outputs of attention and MLP.
///
/// The mask is a function of seed, pass and place in the network. So a resumed run equals one that was not interrupted,
/// a layer that is run twice drops the same values, and the device does not matter. Mirrors `config.dropout` of the
/// original.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dropout {
    rate: f64,
    seed: u64,
    pass: u64,
}

/// Draws of two bytes that a thread makes at a time.
const DRAWS: usize = 1 << 14;

impl Dropout {
    /// Nothing is dropped.
    pub const NONE: Self = Self { rate: 0.0, seed: 0, pass: 0 };

    /// Drops the share `rate`, clamped to 0 ..= 0.99, of the values; `pass` counts the passes of a run.
    pub fn new(rate: f64, seed: u64, pass: u64) -> Self {
        Self { rate: rate.clamp(0.0, 0.99), seed, pass }
    }

    /// `x + dropout(y)`, both `[n, hidden]`.
    pub(super) fn add(&self, layer: usize, site: Site, x: Tensor<2>, y: Tensor<2>) -> Tensor<2> {
        if self.rate <= 0.0 {
            return x + y;
        }
        let [n, width] = x.dims();
        let place = 2 * layer as u64 + site as u64;
        let threshold = (self.rate * 65_536.0) as u16;
        let mut kept = vec![0; n * width];
        // The position of a part's draws does not depend on how many parts there are.
        kept.par_chunks_mut(DRAWS).enumerate().for_each(|(part, kept)| {
            let mut random = ChaCha12Rng::seed_from_u64(self.seed);
            random.set_stream(self.pass << 16 | place);
            random.set_word_pos((part * DRAWS / 2) as u128);
            let mut bytes = vec![0; 2 * kept.len()];
            random.fill_bytes(&mut bytes);
            for (kept, pair) in kept.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *kept = u8::from(u16::from_le_bytes(*pair) >= threshold);
            }
        });
        dropout_add(x, y, kept, 1.0 / (1.0 - self.rate))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use burn::tensor::Device;

    use super::*;

    fn ones(dropout: Dropout, layer: usize, site: Site) -> Vec<f32> {
        let [x, y] = [Tensor::zeros([400, 250], &Device::flex()), Tensor::ones([400, 250], &Device::flex())];
        dropout.add(layer, site, x, y).into_data().try_into_vec().unwrap()
    }

    /// Of 100,000 values the share that is dropped has a standard deviation of at most 0.0016; five are allowed.
    #[test]
    fn the_rate_is_dropped_and_the_rest_made_up_for_it() {
        for rate in [0.05, 0.3, 0.5, 0.99] {
            let values = ones(Dropout::new(rate, 1, 2), 3, Site::Mlp);
            let dropped = values.iter().filter(|&&value| value == 0.0).count() as f64 / values.len() as f64;
            let deviation = (rate * (1.0 - rate) / values.len() as f64).sqrt();
            assert!((dropped - rate).abs() < 5.0 * deviation + 1.0 / 65_536.0, "{dropped} of {rate}");
            let kept = (1.0 / (1.0 - rate)) as f32;
            assert!(values.iter().all(|&value| value == 0.0 || (value - kept).abs() <= 1e-6 * kept));
        }
    }

    #[test]
    fn what_is_dropped_follows_from_seed_pass_and_place() {
        let first = ones(Dropout::new(0.5, 1, 2), 3, Site::Mlp);
        assert_eq!(first, ones(Dropout::new(0.5, 1, 2), 3, Site::Mlp));
        let others = [
            ones(Dropout::new(0.5, 2, 2), 3, Site::Mlp),
            ones(Dropout::new(0.5, 1, 3), 3, Site::Mlp),
            ones(Dropout::new(0.5, 1, 2), 4, Site::Mlp),
            ones(Dropout::new(0.5, 1, 2), 3, Site::Attention),
        ];
        for other in others {
            // Independent masks of a half agree at half of the places.
            let same = first.iter().zip(&other).filter(|(a, b)| a == b).count() as f64 / first.len() as f64;
            assert!((same - 0.5).abs() < 0.01, "{same}");
        }
    }

    #[test]
    fn nothing_is_dropped_at_a_rate_of_zero() {
        for none in [Dropout::NONE, Dropout::new(0.0, 1, 2), Dropout::new(-1.0, 1, 2)] {
            assert!(ones(none, 0, Site::Attention).iter().all(|&value| value == 1.0));
        }
    }
}
