//! The state of the codebook besides its entries: use, dead codes, averages for the EMA update.

use std::path::Path;

use lumina_checkpoint::{Checkpoint, Dtype, save_safetensors};
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::Rng;

use super::options::{CodebookStart, CodebookUpdate, VqTrainingOptions};
use crate::Result;
use crate::checkpoint::state_values;

/// Added to the sizes, so that the average of a code that no latent chooses is not a division by 0.
const SMOOTHING: f32 = 1e-5;
/// A number of steps beyond every limit, exact as a float.
const NEVER: u32 = 1 << 24;

/// The use of the codebook's entries, and the averages of their latents.
#[derive(Debug, Clone)]
pub(super) struct CodebookState {
    embed: usize,
    /// Steps since each code was last chosen.
    idle: Vec<u32>,
    /// How often each code was chosen, with older choices decaying over the window.
    recent: Vec<f32>,
    averages: Option<Averages>,
}

/// Exponential moving averages of the latents that chose each code: their number and their sum.
#[derive(Debug, Clone)]
struct Averages {
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
        let averages = match options.codebook {
            CodebookUpdate::Gradient | CodebookUpdate::Fixed => None,
            CodebookUpdate::Ema { .. } => Some(Averages { sizes: vec![1.0; n_codes], sums: entries.to_vec() }),
        };
        Self { embed, idle: vec![idle; n_codes], recent: vec![0.0; n_codes], averages }
    }

    /// Whether there are codes that [`CodebookState::revive`] would replace.
    pub(super) fn has_dead_codes(&self, options: &VqTrainingOptions) -> bool {
        self.idle.iter().any(|&idle| idle >= idle_limit(options))
    }

    /// Replaces dead codes, unused for longer than allowed or never set, by latents of the batch, each at most once.
    /// Returns how many.
    pub(super) fn revive(
        &mut self,
        entries: &mut [f32],
        latents: &[f32],
        options: &VqTrainingOptions,
        rng: &mut ChaCha12Rng,
    ) -> usize {
        let limit = idle_limit(options);
        let dead: Vec<usize> = (0..self.idle.len()).filter(|&code| self.idle[code] >= limit).collect();
        if dead.is_empty() {
            return 0;
        }
        // As k-means++ chooses (Arthur and Vassilvitskii 2007): a latent's probability is proportional to its squared
        // distance from the living codes. So rare latents, which are coded badly, get the free codes.
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
            // Each latent has a code of its own.
            let Some(chosen) = chosen else { break };
            let latent = &latents[chosen * self.embed..][..self.embed];
            for (distance, other) in distances.iter_mut().zip(latents.chunks_exact(self.embed)) {
                *distance = distance.min(squared_distance(other, latent));
            }
            entries[code * self.embed..][..self.embed].copy_from_slice(latent);
            if let Some(averages) = &mut self.averages {
                averages.sizes[code] = 1.0;
                averages.sums[code * self.embed..][..self.embed].copy_from_slice(latent);
            }
            self.idle[code] = 0;
            self.recent[code] = 0.0;
            revived += 1;
        }
        revived
    }

    /// Counts the codes that the latents chose.
    pub(super) fn record(&mut self, codes: &[u32], window: u64) {
        let decay = (1.0 - 1.0 / window as f64) as f32;
        for (idle, recent) in self.idle.iter_mut().zip(&mut self.recent) {
            *idle = (*idle + 1).min(NEVER);
            *recent *= decay;
        }
        for &code in codes {
            self.idle[code as usize] = 0;
            self.recent[code as usize] += 1.0;
        }
    }

    /// Updates the averages by a batch, and sets the entries to them. Does nothing where gradients update the entries.
    pub(super) fn ema_update(&mut self, entries: &mut [f32], latents: &[f32], codes: &[u32], decay: f64) {
        let Some(Averages { sizes, sums }) = &mut self.averages else { return };
        let (decay, one_minus_decay) = (decay as f32, (1.0 - decay) as f32);
        sizes.iter_mut().chain(&mut *sums).for_each(|value| *value *= decay);
        for (latent, &code) in latents.chunks_exact(self.embed).zip(codes) {
            sizes[code as usize] += one_minus_decay;
            let sum = &mut sums[code as usize * self.embed..][..self.embed];
            sum.iter_mut().zip(latent).for_each(|(sum, value)| *sum += one_minus_decay * value);
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

    /// The number of codes that, used evenly, would carry as much information as those of the window.
    pub(super) fn perplexity(&self) -> f64 {
        perplexity(&self.recent)
    }

    /// Writes the state to a safetensors file.
    pub(super) fn save(&self, file: &Path) -> Result<()> {
        let idle: Vec<f32> = self.idle.iter().map(|&steps| steps as f32).collect();
        let mut tensors = vec![("idle", &idle), ("recent", &self.recent)];
        if let Some(averages) = &self.averages {
            tensors.extend([("ema_sizes", &averages.sizes), ("ema_sums", &averages.sums)]);
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
        self.idle = state_values(&checkpoint, "idle", n_codes)?.into_iter().map(|steps| steps as u32).collect();
        self.recent = state_values(&checkpoint, "recent", n_codes)?;
        if let Some(averages) = &mut self.averages {
            averages.sizes = state_values(&checkpoint, "ema_sizes", n_codes)?;
            averages.sums = state_values(&checkpoint, "ema_sums", n_codes * self.embed)?;
        }
        Ok(())
    }
}

/// After how many steps without use a code is dead.
fn idle_limit(options: &VqTrainingOptions) -> u32 {
    options.revive_after.map_or(NEVER, |steps| steps.min(u64::from(NEVER)) as u32)
}

fn squared_distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum()
}

/// Two to the power of the entropy, in bits, of these counts; 0 where there are none.
pub(super) fn perplexity(counts: &[f32]) -> f64 {
    let total: f64 = counts.iter().map(|&count| f64::from(count)).sum();
    if total <= 0.0 {
        return 0.0;
    }
    let entropy: f64 = counts
        .iter()
        .map(|&count| f64::from(count) / total)
        .filter(|&fraction| fraction > 0.0)
        .map(|fraction| -fraction * fraction.ln())
        .sum();
    entropy.exp()
}

#[cfg(test)]
mod tests {
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    fn ema(decay: f64) -> VqTrainingOptions {
        VqTrainingOptions::default().codebook(CodebookUpdate::Ema { decay })
    }

    #[test]
    fn the_ema_update_is_as_computed_by_hand() {
        // Two codes of one number. The first is chosen by 4 and 6, the second by none.
        let mut entries = vec![2.0, -1.0];
        let mut state = CodebookState::new(&entries, 1, &ema(0.5));
        state.ema_update(&mut entries, &[4.0, 6.0], &[0, 0], 0.5);
        // sizes: 0.5 · 1 + 0.5 · 2 = 1.5 and 0.5; sums: 0.5 · 2 + 0.5 · 10 = 6 and −0.5.
        let scale = 2.0 / (2.0 + 2e-5);
        assert!((entries[0] - 6.0 / (1.50001 * scale)).abs() < 1e-5, "{entries:?}");
        assert!((entries[1] + 0.5 / (0.50001 * scale)).abs() < 1e-5, "{entries:?}");
        state.ema_update(&mut entries, &[0.0], &[1], 0.5);
        // sizes 0.75 and 0.75, sums 3 and −0.25.
        assert!((entries[0] - 4.0).abs() < 1e-3 && (entries[1] + 1.0 / 3.0).abs() < 1e-3, "{entries:?}");
    }

    #[test]
    fn without_averages_entries_stay() {
        let mut entries = vec![2.0, -1.0];
        let mut state = CodebookState::new(&entries, 1, &VqTrainingOptions::default());
        state.ema_update(&mut entries, &[4.0, 6.0], &[0, 0], 0.5);
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
        assert_eq!(revive(&mut state, &mut entries), 0, "revived codes begin a new count");
        // The averages were set too: with nothing chosen, the entries stay.
        let before = entries.clone();
        state.ema_update(&mut entries, &[], &[], 0.9);
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
