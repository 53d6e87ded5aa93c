//! The draw: softmax and a seeded random number, or the most likely token.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::{Candidates, Error, Result};

/// What a token's random number depends on, in addition to its position.
///
/// Numbers come from a counter-based generator (ChaCha with 8 rounds: key = seed, stream = branch, counter = position),
/// so each is computed independently of the others, of their order, and of the batch. They stay the same from version
/// to version of this crate.
///
/// ```
/// let key = lumina_sampling::DrawKey { seed: 7, branch: 0 };
/// let later = key.uniform(100, 0);
/// assert_ne!(later, key.uniform(99, 0));
/// assert_eq!(later, key.uniform(100, 0));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DrawKey {
    /// The seed of the request.
    pub seed: u64,
    /// Which of several answers to the same request.
    pub branch: u64,
}

impl DrawKey {
    /// A uniform number in `[0, 1)` for the token at `position` of the stream. Sampling uses `index` 0; the others are
    /// independent numbers for methods that need more than one per token, such as speculative decoding.
    pub fn uniform(self, position: usize, index: u16) -> f64 {
        const WORDS_PER_NUMBER: u128 = 2;
        let mut key = [0; 32];
        key[..8].copy_from_slice(&self.seed.to_le_bytes());
        let mut generator = ChaCha8Rng::from_seed(key);
        generator.set_stream(self.branch);
        let words_per_position = WORDS_PER_NUMBER << u16::BITS;
        generator.set_word_pos(position as u128 * words_per_position + WORDS_PER_NUMBER * u128::from(index));
        // The 53 bits that an f64 holds.
        (generator.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }
}

impl Candidates {
    /// The most likely candidate; of equally likely ones that with the lowest id.
    ///
    /// # Errors
    /// [`Error::NothingLeft`], [`Error::NanLogit`].
    pub fn most_likely(&self) -> Result<u32> {
        let highest = self.highest_to_draw()?;
        let best = self.iter().find(|&(_, logit)| logit == highest);
        best.map_or(Err(Error::NothingLeft { position: self.position() }), |(token, _)| Ok(token))
    }

    /// The candidate for a number in `[0, 1)`: the first, by ascending token, at which the cumulative probability
    /// exceeds it.
    ///
    /// # Errors
    /// [`Error::NothingLeft`], [`Error::NanLogit`].
    pub fn draw(&mut self, uniform: f64) -> Result<u32> {
        let mut left = uniform * self.weigh()?;
        let mut picked = None;
        for (&token, &weight) in self.tokens().iter().zip(&self.weights) {
            if weight > 0.0 {
                // After the last token rounding can leave a rest above zero: then it is that token.
                picked = Some(token);
                left -= weight;
            }
            if left < 0.0 {
                break;
            }
        }
        picked.ok_or(Error::NothingLeft { position: self.position() })
    }

    /// Softmax in `f64`, in the order of [`Candidates::tokens`].
    ///
    /// Logits of plus infinity share all the probability evenly.
    ///
    /// # Errors
    /// [`Error::NothingLeft`], [`Error::NanLogit`].
    pub fn probabilities(&mut self) -> Result<&[f64]> {
        let sum = self.weigh()?;
        for weight in &mut self.weights {
            *weight /= sum;
        }
        Ok(&self.weights)
    }

    /// Computes the weights, in proportion to the probabilities. Returns their sum, which is at least 1.
    fn weigh(&mut self) -> Result<f64> {
        let highest = self.highest_to_draw()?;
        self.weights.clear();
        self.weights.extend(self.logits.iter().map(|&logit| {
            // Equality first: the difference of two infinities is NaN.
            if logit == highest { 1.0 } else { (f64::from(logit) - f64::from(highest)).exp() }
        }));
        Ok(self.weights.iter().sum())
    }

    /// The highest logit, if there is a candidate to draw.
    fn highest_to_draw(&self) -> Result<f32> {
        self.check()?;
        match self.highest() {
            f32::NEG_INFINITY => Err(Error::NothingLeft { position: self.position() }),
            highest => Ok(highest),
        }
    }
}
