//! The tokens that can be drawn, with their logits.

use crate::{Allowed, Error, LogitsRow, Result, guide};

/// The tokens that can be drawn, ascending, and their logits.
///
/// Steps work on this list instead of a whole row of logits: in an image it has the image tokens only, and after top-k
/// only those that top-k kept. Its buffers are reused from draw to draw.
///
/// ```
/// use lumina_sampling::Candidates;
/// let mut candidates = Candidates::from_row(&[0.0, f32::NEG_INFINITY, 2.0, 0.0])?;
/// assert_eq!(candidates.tokens(), [0, 2, 3]);
/// candidates.retain(|token, _| token != 2);
/// assert_eq!(candidates.probabilities()?, [0.5, 0.5]);
/// # Ok::<(), lumina_sampling::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct Candidates {
    position: usize,
    tokens: Vec<u32>,
    pub(crate) logits: Vec<f32>,
    /// Buffer of guidance and selections.
    scratch: Vec<f32>,
    /// Buffer of the probabilities.
    pub(crate) weights: Vec<f64>,
}

impl Candidates {
    /// Every token of a row of logits `[vocabulary]` that is not excluded by minus infinity.
    ///
    /// # Errors
    /// [`Error::NanLogit`]; [`Error::ShortRow`] where the row starts at another id than 0.
    pub fn from_row<'a>(logits: impl Into<LogitsRow<'a>>) -> Result<Self> {
        let mut candidates = Self::default();
        candidates.load(0, Allowed::AllBut(&[]), logits.into(), None)?;
        Ok(candidates)
    }

    /// Replaces the candidates with the allowed tokens. Guidance is per token, so applying it to the allowed ones only
    /// is the same as guidance followed by the grammar.
    pub(crate) fn load(
        &mut self,
        position: usize,
        allowed: Allowed<'_>,
        row: LogitsRow<'_>,
        guidance: Option<(LogitsRow<'_>, f32)>,
    ) -> Result<()> {
        self.position = position;
        self.tokens.clear();
        self.logits.clear();
        match allowed {
            Allowed::One(token) => self.tokens.push(token),
            Allowed::Only(tokens) => self.tokens.extend_from_slice(tokens),
            Allowed::AllBut(excluded) => {
                let n_excluded = (0..).zip(excluded).take_while(|&(id, &token)| id == token).count();
                let lowest = n_excluded as u32;
                if lowest < row.first_id {
                    return Err(row.lacks(lowest));
                }
                self.tokens.extend(row.ids());
            }
        }
        row.append_to(&mut self.logits, &self.tokens)?;
        if let Some((unconditional, scale)) = guidance {
            guide(&mut self.logits, unconditional.of(&self.tokens, &mut self.scratch)?, scale);
        }
        if let Allowed::AllBut(excluded) = allowed {
            for &token in excluded {
                let logit = token.checked_sub(row.first_id).and_then(|index| self.logits.get_mut(index as usize));
                logit.into_iter().for_each(|logit| *logit = f32::NEG_INFINITY);
            }
        }
        self.check()?;
        // Without an early exit, so that the compiler can vectorise it: most rows exclude nothing.
        if self.logits.iter().fold(false, |any, &logit| any | (logit == f32::NEG_INFINITY)) {
            self.retain(|_, logit| logit > f32::NEG_INFINITY);
        }
        Ok(())
    }

    /// Fails where a logit is NaN.
    pub(crate) fn check(&self) -> Result<()> {
        // Without an early exit, as above.
        if !self.logits.iter().fold(false, |nan, logit| nan | logit.is_nan()) {
            return Ok(());
        }
        let nan = self.iter().find(|(_, logit)| logit.is_nan());
        nan.map_or(Ok(()), |(token, _)| Err(Error::NanLogit { token }))
    }

    /// Index in the stream of the token to be drawn.
    pub fn position(&self) -> usize {
        self.position
    }
    /// The number of candidates.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }
    /// Whether there is no candidate.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }
    /// The tokens, ascending.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }
    /// Their logits, in the order of [`Candidates::tokens`].
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }
    /// Their logits, to be changed, in the order of [`Candidates::tokens`].
    pub fn logits_mut(&mut self) -> &mut [f32] {
        &mut self.logits
    }
    /// Tokens and logits.
    pub fn iter(&self) -> impl Iterator<Item = (u32, f32)> {
        self.tokens.iter().copied().zip(self.logits.iter().copied())
    }
    /// Tokens and logits, the latter to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut f32)> {
        self.tokens.iter().copied().zip(&mut self.logits)
    }
    /// The logit of a token, where it is a candidate.
    pub fn get_mut(&mut self, token: u32) -> Option<&mut f32> {
        let index = self.tokens.binary_search(&token).ok()?;
        self.logits.get_mut(index)
    }

    /// Drops the candidates for which `keep` is false.
    pub fn retain(&mut self, mut keep: impl FnMut(u32, f32) -> bool) {
        let mut n_kept = 0;
        for index in 0..self.tokens.len() {
            let (token, logit) = (self.tokens[index], self.logits[index]);
            // Always written, and overwritten if not kept: no branch to mispredict.
            self.tokens[n_kept] = token;
            self.logits[n_kept] = logit;
            n_kept += usize::from(keep(token, logit));
        }
        self.tokens.truncate(n_kept);
        self.logits.truncate(n_kept);
    }

    /// The highest logit; minus infinity where there is no candidate. NaN is ignored.
    pub fn highest(&self) -> f32 {
        highest(&self.logits)
    }

    /// The `n`-th highest logit, counting from 1 and counting ties; none where there are fewer.
    pub fn nth_highest(&mut self, n: usize) -> Option<f32> {
        const BLOCK: usize = 32;
        let index = n.checked_sub(1)?;
        let mut bound = f32::NEG_INFINITY;
        if n <= self.logits.len() / BLOCK / 2 {
            // The n-th highest of the blocks' maxima is a lower bound: n logits reach it, and few more do.
            self.scratch.clear();
            self.scratch.extend(self.logits.chunks(BLOCK).map(highest));
            bound = select(&mut self.scratch, index)?;
        }
        self.scratch.clear();
        self.scratch.extend(self.logits.iter().filter(|&&logit| logit >= bound));
        select(&mut self.scratch, index)
    }

    /// The logits, highest first.
    pub(crate) fn descending(&mut self) -> &[f32] {
        self.scratch.clear();
        self.scratch.extend_from_slice(&self.logits);
        self.scratch.sort_unstable_by(|a, b| b.total_cmp(a));
        &self.scratch
    }
}

fn select(logits: &mut [f32], index: usize) -> Option<f32> {
    (index < logits.len()).then(|| *logits.select_nth_unstable_by(index, |a, b| b.total_cmp(a)).1)
}

// Inlined, so that blocks of a known size become vector code.
#[inline]
fn highest(logits: &[f32]) -> f32 {
    let higher = |a: f32, b: f32| if b > a { b } else { a };
    // Sixteen at a time, for vector code.
    let (chunks, rest) = logits.as_chunks::<16>();
    let mut lanes = [f32::NEG_INFINITY; 16];
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(lane, &logit)| *lane = higher(*lane, logit));
    }
    lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, higher)
}

impl std::fmt::Debug for Candidates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Candidates").field("position", &self.position).field("len", &self.len()).finish_non_exhaustive()
    }
}
