//! The draw: the first of a race, or the most likely token.

use serde::{Deserialize, Serialize};

use crate::{Candidates, Error, Result, race};

/// How a token is drawn from the candidates and their logits.
///
/// What a seed gives belongs to the rule: a rule never changes, and a better one will be another variant. Options that
/// name a rule that this version lacks cannot be read.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DrawRule {
    /// A [race] of all candidates: noise by seed, branch, position and token id from Philox 4×32-10, in whole numbers.
    ///
    /// Equal on every device. Two similar distributions mostly draw the same token, as each token has its own noise.
    #[default]
    Race,
}

/// What the noise of a draw depends on, in addition to position and token.
///
/// It comes from a [counter-based generator](race::noise), so each token's is computed independently of the others, of
/// their order, and of the batch.
///
/// ```
/// use lumina_sampling::{Candidates, DrawKey};
/// let key = DrawKey { seed: 7, branch: 0 };
/// let candidates = Candidates::from_row(&[0.5, 1.0, 0.0])?;
/// assert_eq!(candidates.draw(key)?, candidates.draw(key)?);
/// # Ok::<(), lumina_sampling::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DrawKey {
    /// The seed of the request.
    pub seed: u64,
    /// Which of several answers to the same request.
    pub branch: u64,
}

/// The first `N` of the [race] at a position among tokens with their depths, ascending by token: when each arrives, and
/// which it is; of several that arrive at once, that with the lowest id first. Where there are fewer, the rest arrives
/// at [`u32::MAX`].
pub(crate) fn first<const N: usize>(
    key: DrawKey,
    position: u32,
    depths: impl Iterator<Item = (u32, u32)>,
) -> [(u32, u32); N] {
    /// Blocks of 16 tokens whose high bytes are computed at once, by vector code.
    const BLOCKS: u32 = 16;
    let mut first = [(u32::MAX, 0); N];
    let (mut first_block, mut high_bytes) = (u32::MAX, [[0; BLOCKS as usize]; 4]);
    for (token, depth) in depths {
        let latest = first[N - 1].0;
        // It cannot win, whatever its noise.
        if depth + race::EARLIEST[0] > latest {
            continue;
        }
        if token / 16 / BLOCKS * BLOCKS != first_block {
            first_block = token / 16 / BLOCKS * BLOCKS;
            let blocks = std::array::from_fn(|n| first_block + n as u32);
            high_bytes = race::high_bytes(key.seed, key.branch, position, blocks);
        }
        // Most cannot win with this byte.
        if depth + race::EARLIEST[race::high_byte(&high_bytes, first_block, token) as usize] > latest {
            continue;
        }
        let time = depth + race::arrival(race::noise(key.seed, key.branch, position, token));
        insert(&mut first, (time, token));
    }
    first
}

/// Puts an arrival in its place among the first ones, after those at the same time.
pub(crate) fn insert<const N: usize>(first: &mut [(u32, u32); N], arrival: (u32, u32)) {
    if arrival.0 < first[N - 1].0 {
        let place = first.partition_point(|other| other.0 <= arrival.0);
        first[place..].rotate_right(1);
        first[place] = arrival;
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
        best.map_or(Err(self.nothing_left()), |(token, _)| Ok(token))
    }

    /// The candidate that wins the [race] at [`Candidates::position`]: each as often as [`Candidates::probabilities`]
    /// says, within what 32 bits of noise can tell apart. Of several that arrive at once, that with the lowest id.
    ///
    /// Of the position the lower 32 bits count.
    ///
    /// # Errors
    /// [`Error::NothingLeft`], [`Error::NanLogit`].
    pub fn draw(&self, key: DrawKey) -> Result<u32> {
        let highest = self.highest_to_draw()?;
        let depths = self.iter().map(|(token, logit)| (token, race::depth(highest, logit)));
        let [(time, token)] = first(key, self.position() as u32, depths);
        if time < u32::MAX { Ok(token) } else { Err(self.nothing_left()) }
    }

    /// Softmax in `f64`, in the order of [`Candidates::tokens`].
    ///
    /// Logits of plus infinity share all the probability evenly.
    ///
    /// # Errors
    /// [`Error::NothingLeft`], [`Error::NanLogit`].
    pub fn probabilities(&mut self) -> Result<&[f64]> {
        let highest = self.highest_to_draw()?;
        self.weights.clear();
        self.weights.extend(self.logits.iter().map(|&logit| {
            // Equality first: the difference of two infinities is NaN.
            if logit == highest { 1.0 } else { (f64::from(logit) - f64::from(highest)).exp() }
        }));
        let sum: f64 = self.weights.iter().sum();
        for weight in &mut self.weights {
            *weight /= sum;
        }
        Ok(&self.weights)
    }

    /// The highest logit, if there is a candidate to draw.
    fn highest_to_draw(&self) -> Result<f32> {
        self.check()?;
        match self.highest() {
            f32::NEG_INFINITY => Err(self.nothing_left()),
            highest => Ok(highest),
        }
    }

    fn nothing_left(&self) -> Error {
        Error::NothingLeft { position: self.position() }
    }
}
