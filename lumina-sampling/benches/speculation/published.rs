//! Published rules, to compare with: speculative Jacobi decoding (arXiv 2410.01699) and its drafts by maximal coupling
//! (arXiv 2510.24211).

use crate::Run;
use crate::process::{N_TOKENS, Process, TOP_K};

/// How the drafts behind a rejected one are drawn for the next pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Redraw {
    /// Independently, as in SJD.
    Independent,
    /// So that each stays as often as possible, as in MC-SJD.
    MaximalCoupling,
}

/// A xorshift generator.
struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    /// An index by weights that need not sum to 1.
    fn weighted(&mut self, weights: impl Iterator<Item = f32> + Clone) -> usize {
        let mut at = self.uniform() as f32 * weights.clone().sum::<f32>();
        let mut last = 0;
        for (index, weight) in weights.enumerate().filter(|&(_, weight)| weight > 0.0) {
            if at < weight {
                return index;
            }
            (last, at) = (index, at - weight);
        }
        last
    }
}

/// A draft and the distribution that it was drawn from.
struct Draft {
    token: usize,
    distribution: Vec<f32>,
}

/// An image by the published rule, ends of rows not counted, with a window of so many drafts.
///
/// A draft `y` from the distribution `q` is accepted with probability `min(1, p(y) / q(y))`, and else drawn from what
/// `p` has over `q`. First drafts are uniform.
pub(crate) fn run(process: &Process, window: usize, redraw: Redraw, seed: u64) -> Run {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let end = process.n_places();
    let (mut stream, mut drafts): (Vec<Option<usize>>, Vec<Option<Draft>>) = (Vec::new(), Vec::new());
    let (mut n_passes, mut n_tokens) = (0, 0);
    let mut logits = Vec::new();
    while stream.len() < end {
        let mut n_drafts = drafts.iter().flatten().count();
        while stream.len() + drafts.len() < end && n_drafts < window {
            let is_code = !process.is_row_end(stream.len() + drafts.len());
            n_drafts += usize::from(is_code);
            drafts.push(is_code.then(|| Draft {
                token: (random.uniform() * N_TOKENS as f64) as usize,
                distribution: vec![1.0 / N_TOKENS as f32; N_TOKENS],
            }));
        }
        n_passes += 1;
        let base = stream.len();
        let tokens: Vec<_> = drafts.iter().map(|draft| draft.as_ref().map(|draft| draft.token)).collect();
        let (mut goes_on, mut next) = (true, Vec::new());
        for (index, draft) in drafts.into_iter().enumerate() {
            let place = base + index;
            let Some(Draft { token, distribution: q }) = draft else {
                if goes_on {
                    stream.push(None)
                } else {
                    next.push(None)
                }
                continue;
            };
            let before =
                |back: usize| (place - back).checked_sub(base).map_or_else(|| stream[place - back], |i| tokens[i]);
            process.logits(place, before, &mut logits);
            let p = distribution(&logits);
            let stays = random.uniform() < f64::from(p[token]) / f64::from(q[token]);
            let residual = |random: &mut Random| random.weighted(p.iter().zip(&q).map(|(p, q)| (p - q).max(0.0)));
            if goes_on {
                n_tokens += 1;
                stream.push(Some(if stays { token } else { residual(&mut random) }));
                goes_on = stays;
            } else {
                let token = match redraw {
                    Redraw::Independent => random.weighted(p.iter().copied()),
                    Redraw::MaximalCoupling if stays => token,
                    Redraw::MaximalCoupling => residual(&mut random),
                };
                next.push(Some(Draft { token, distribution: p }));
            }
        }
        drafts = next;
    }
    Run { tokens: n_tokens, passes: n_passes, ..Run::default() }
}

/// Softmax of the likeliest tokens.
fn distribution(logits: &[f32]) -> Vec<f32> {
    let mut sorted = logits.to_vec();
    let least = *sorted.select_nth_unstable_by(TOP_K - 1, |a, b| b.total_cmp(a)).1;
    let highest = logits.iter().copied().fold(f32::MIN, f32::max);
    let weight = |&logit: &f32| if logit >= least { (logit - highest).exp() } else { 0.0 };
    let mut weights: Vec<f32> = logits.iter().map(weight).collect();
    let sum: f32 = weights.iter().sum();
    weights.iter_mut().for_each(|weight| *weight /= sum);
    weights
}
