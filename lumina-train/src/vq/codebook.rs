//! What training knows of the codebook besides its entries: use, running means, dead codes.

use std::path::Path;

use lumina_checkpoint::{Checkpoint, Dtype, save_safetensors};
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::Rng;

use super::options::{Codebook, CodebookStart, VqTrainingOptions};
use crate::Result;
use crate::tensors::floats;

/// Keeps the mean of a code that nothing chooses from dividing by nothing.
const SMOOTHING: f32 = 1e-5;
/// An age that is beyond every limit, exact as a float.
const NEVER: u32 = 1 << 24;

/// The codebook's entries on the host with what is known of their use.
#[derive(Debug, Clone)]
pub(super) struct CodebookState {
    embed: usize,
    /// Steps since each code was last chosen.
    idle: Vec<u32>,
    /// How often each code was chosen, forgotten over the window.
    recent: Vec<f32>,
    means: Option<Means>,
}

/// Running means of the latents that chose each code.
#[derive(Debug, Clone)]
struct Means {
    sizes: Vec<f32>,
    sums: Vec<f32>,
}

impl CodebookState {
    /// The state before the first step, for entries `[n_codes, embed]`.
    pub(super) fn new(entries: &[f32], embed: usize, options: &VqTrainingOptions) -> Self {
        let n_codes = entries.len() / embed;
        let idle = match options.codebook_start {
            CodebookStart::File => 0,
            CodebookStart::Latents => NEVER,
        };
        let means = match options.codebook {
            Codebook::Gradient | Codebook::Fixed => None,
            Codebook::Ema { .. } => Some(Means { sizes: vec![1.0; n_codes], sums: entries.to_vec() }),
        };
        Self { embed, idle: vec![idle; n_codes], recent: vec![0.0; n_codes], means }
    }

    /// Puts latents of the batch, each no more than once, in the place of codes that are dead: unused for longer than
    /// allowed, or never set. Returns how many.
    pub(super) fn revive(
        &mut self,
        entries: &mut [f32],
        latents: &[f32],
        options: &VqTrainingOptions,
        rng: &mut ChaCha12Rng,
    ) -> usize {
        let limit = options.revive_after.map_or(NEVER, |steps| steps.min(u64::from(NEVER)) as u32);
        let dead: Vec<usize> = (0..self.idle.len()).filter(|&code| self.idle[code] >= limit).collect();
        if dead.is_empty() {
            return 0;
        }
        // As k-means++ chooses (Arthur and Vassilvitskii 2007): a latent with a probability that grows with its squared
        // distance from the codes there are. So what is rare, and badly coded, gets the codes that are free.
        let alive: Vec<&[f32]> = (0..self.idle.len())
            .filter(|&code| self.idle[code] < limit)
            .map(|code| &entries[code * self.embed..][..self.embed])
            .collect();
        let mut distances: Vec<f64> = latents
            .chunks_exact(self.embed)
            .map(|latent| alive.iter().map(|code| squared_distance(latent, code)).reduce(f64::min).unwrap_or(1.0))
            .collect();
        let n = dead.len().min(distances.len());
        let mut revived = 0;
        for &code in dead.iter().take(n) {
            let total: f64 = distances.iter().sum();
            let mut left = total * (f64::from(rng.next_u32()) / (f64::from(u32::MAX) + 1.0));
            let chosen = distances.iter().position(|&distance| {
                left -= distance;
                distance > 0.0 && left < 0.0
            });
            // All latents have a code of their own.
            let Some(chosen) = chosen else { break };
            let latent = &latents[chosen * self.embed..][..self.embed];
            for (distance, other) in distances.iter_mut().zip(latents.chunks_exact(self.embed)) {
                *distance = distance.min(squared_distance(other, latent));
            }
            entries[code * self.embed..][..self.embed].copy_from_slice(latent);
            if let Some(means) = &mut self.means {
                means.sizes[code] = 1.0;
                means.sums[code * self.embed..][..self.embed].copy_from_slice(latent);
            }
            self.idle[code] = 0;
            self.recent[code] = 0.0;
            revived += 1;
        }
        revived
    }

    /// Notes which codes the latents chose.
    pub(super) fn record(&mut self, codes: &[u32], window: u64) {
        let keep = (1.0 - 1.0 / window as f64) as f32;
        for (idle, recent) in self.idle.iter_mut().zip(&mut self.recent) {
            *idle = (*idle + 1).min(NEVER);
            *recent *= keep;
        }
        for &code in codes {
            self.idle[code as usize] = 0;
            self.recent[code as usize] += 1.0;
        }
    }

    /// Moves the running means by a batch and the entries to the means. Does nothing where gradients move them.
    pub(super) fn follow(&mut self, entries: &mut [f32], latents: &[f32], codes: &[u32], decay: f64) {
        let Some(Means { sizes, sums }) = &mut self.means else { return };
        let (keep, add) = (decay as f32, (1.0 - decay) as f32);
        sizes.iter_mut().chain(&mut *sums).for_each(|value| *value *= keep);
        for (latent, &code) in latents.chunks_exact(self.embed).zip(codes) {
            sizes[code as usize] += add;
            let sum = &mut sums[code as usize * self.embed..][..self.embed];
            sum.iter_mut().zip(latent).for_each(|(sum, value)| *sum += add * value);
        }
        let total: f32 = sizes.iter().sum();
        let scale = total / (total + sizes.len() as f32 * SMOOTHING);
        for ((entry, sum), size) in
            entries.chunks_exact_mut(self.embed).zip(sums.chunks_exact(self.embed)).zip(sizes.iter())
        {
            let size = (size + SMOOTHING) * scale;
            entry.iter_mut().zip(sum).for_each(|(entry, sum)| *entry = sum / size);
        }
    }

    /// Codes chosen in the last `window` steps.
    pub(super) fn used(&self, window: u64) -> usize {
        let window = window.min(u64::from(NEVER));
        self.idle.iter().zip(&self.recent).filter(|&(&idle, &recent)| u64::from(idle) < window && recent > 0.0).count()
    }

    /// The number of codes that, used evenly, would carry as much information as the window's choices.
    pub(super) fn perplexity(&self) -> f64 {
        perplexity(&self.recent)
    }

    /// Writes the state to a safetensors file.
    pub(super) fn save(&self, file: &Path) -> Result<()> {
        let idle: Vec<f32> = self.idle.iter().map(|&steps| steps as f32).collect();
        let mut tensors = vec![("idle", &idle), ("recent", &self.recent)];
        if let Some(means) = &self.means {
            tensors.extend([("ema_sizes", &means.sizes), ("ema_sums", &means.sums)]);
        }
        let tensors = tensors.into_iter().map(|(name, values)| {
            let bytes = || Ok(values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>().into());
            (name, Dtype::F32, [values.len()], bytes)
        });
        Ok(save_safetensors(file, tensors)?)
    }

    /// Reads what [`CodebookState::save`] wrote, into a state of the same options.
    pub(super) fn load(&mut self, file: &Path) -> Result<()> {
        let checkpoint = Checkpoint::open(file)?;
        let n_codes = self.idle.len();
        self.idle = floats(&checkpoint, "idle", n_codes)?.into_iter().map(|steps| steps as u32).collect();
        self.recent = floats(&checkpoint, "recent", n_codes)?;
        if let Some(means) = &mut self.means {
            means.sizes = floats(&checkpoint, "ema_sizes", n_codes)?;
            means.sums = floats(&checkpoint, "ema_sums", n_codes * self.embed)?;
        }
        Ok(())
    }
}

fn squared_distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum()
}

/// Two to the entropy, in bits, of these counts; 0 of none.
pub(super) fn perplexity(counts: &[f32]) -> f64 {
    let total: f64 = counts.iter().map(|&count| f64::from(count)).sum();
    if total <= 0.0 {
        return 0.0;
    }
    let entropy: f64 = counts
        .iter()
        .map(|&count| f64::from(count) / total)
        .filter(|&share| share > 0.0)
        .map(|share| -share * share.ln())
        .sum();
    entropy.exp()
}

#[cfg(test)]
mod tests {
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    fn ema(decay: f64) -> VqTrainingOptions {
        VqTrainingOptions::default().codebook(Codebook::Ema { decay })
    }

    #[test]
    fn running_means_move_as_computed_by_hand() {
        // Two codes of one number. The first is chosen by 4 and 6, the second by nothing.
        let mut entries = vec![2.0, -1.0];
        let mut state = CodebookState::new(&entries, 1, &ema(0.5));
        state.follow(&mut entries, &[4.0, 6.0], &[0, 0], 0.5);
        // sizes: 0.5 · 1 + 0.5 · 2 = 1.5 and 0.5; sums: 0.5 · 2 + 0.5 · 10 = 6 and −0.5.
        let scale = 2.0 / (2.0 + 2e-5);
        assert!((entries[0] - 6.0 / (1.50001 * scale)).abs() < 1e-5, "{entries:?}");
        assert!((entries[1] + 0.5 / (0.50001 * scale)).abs() < 1e-5, "{entries:?}");
        state.follow(&mut entries, &[0.0], &[1], 0.5);
        // sizes 0.75 and 0.75, sums 3 and −0.25.
        assert!((entries[0] - 4.0).abs() < 1e-3 && (entries[1] + 1.0 / 3.0).abs() < 1e-3, "{entries:?}");
    }

    #[test]
    fn without_running_means_entries_stay() {
        let mut entries = vec![2.0, -1.0];
        let mut state = CodebookState::new(&entries, 1, &VqTrainingOptions::default());
        state.follow(&mut entries, &[4.0, 6.0], &[0, 0], 0.5);
        assert_eq!(entries, [2.0, -1.0]);
    }

    #[test]
    fn dead_codes_become_latents_of_the_batch_and_living_ones_stay() {
        let options = ema(0.9).revive_after(Some(2));
        let mut entries = vec![0.0, 0.0, 1.0, 1.0, 2.0, 2.0];
        let mut state = CodebookState::new(&entries, 2, &options);
        let latents = [7.0, 8.0, 5.0, 6.0];
        let revive = |state: &mut CodebookState, entries: &mut Vec<f32>| {
            state.revive(entries, &latents, &options, &mut ChaCha12Rng::seed_from_u64(1))
        };
        state.record(&[1], 10);
        assert_eq!(revive(&mut state, &mut entries), 0, "unused for one step of two");
        state.record(&[1], 10);
        assert_eq!(revive(&mut state, &mut entries), 2);
        assert_eq!(entries[2..4], [1.0, 1.0]);
        let mut born = [[entries[0], entries[1]], [entries[4], entries[5]]];
        born.sort_by(|a, b| a[0].total_cmp(&b[0]));
        assert_eq!(born, [[5.0, 6.0], [7.0, 8.0]], "each latent once");
        assert_eq!(revive(&mut state, &mut entries), 0, "the revived have their time again");
        // The means were set too: with nothing chosen, the entries stay where they are.
        let before = entries.clone();
        state.follow(&mut entries, &[], &[], 0.9);
        assert!(before.iter().zip(&entries).all(|(a, b)| (a - b).abs() < 1e-3), "{entries:?}");
    }

    #[test]
    fn a_start_from_latents_sets_as_many_codes_as_there_are_latents() {
        let options = VqTrainingOptions::default().codebook_start(CodebookStart::Latents);
        let mut entries = vec![0.0; 5];
        let mut state = CodebookState::new(&entries, 1, &options);
        let mut rng = ChaCha12Rng::seed_from_u64(3);
        assert_eq!(state.revive(&mut entries, &[1.0, 2.0], &options, &mut rng), 2);
        assert_eq!(state.revive(&mut entries, &[3.0, 4.0], &options, &mut rng), 2);
        assert_eq!(state.revive(&mut entries, &[5.0, 6.0], &options, &mut rng), 1);
        assert_eq!(state.revive(&mut entries, &[7.0], &options, &mut rng), 0, "no revival was asked for");
        assert!(entries.iter().all(|&entry| entry > 0.0), "{entries:?}");
    }

    #[test]
    fn use_is_counted_over_the_window() {
        let mut state = CodebookState::new(&[0.0; 4], 1, &VqTrainingOptions::default());
        assert_eq!((state.used(2), state.perplexity()), (0, 0.0));
        state.record(&[0, 1, 2, 3], 2);
        assert_eq!(state.used(2), 4);
        assert!((state.perplexity() - 4.0).abs() < 1e-9);
        state.record(&[0], 2);
        state.record(&[0], 2);
        assert_eq!(state.used(2), 1);
        assert!(state.perplexity() < 3.0);
    }
}
