//! How many drafts pay.

use super::setting::Speculation;

/// The numbers of drafts to choose from.
const ARMS: [usize; 9] = [0, 1, 2, 4, 8, 16, 32, 64, 128];
/// What a new measurement counts in a mean.
const NEW: f64 = 1.0 / 16.0;
/// Passes of a probe that are not counted: the drafts of a window get better from pass to pass.
const LEAD_IN: usize = 3;
/// Passes of a probe that are counted.
const COUNTED: usize = 5;
/// The loss that probes may cause, as a fraction of all time.
const MAX_LOSS: f64 = 0.02;
/// The loss that they may cause from the start, in plain passes.
const SLACK: f64 = 4.0;
/// Passes from one probe to the next, at least; and at most, after many that did not pay.
const REST: [usize; 2] = [32, 1024];

/// Chooses how many drafts a pass has: as many as bring the most tokens a second, by the measured time of passes and the
/// measured number of accepted drafts.
///
/// Other numbers than the best one are probed now and then. What probes lose against plain decoding is bounded, by 2 %
/// of all time and a few passes; where no number of drafts pays, the choice is 0. There is no clock: the choice depends
/// on what is noted alone. One chooser serves all sequences of an engine.
///
/// ```
/// use lumina_sampling::speculation::{Speculation, WindowChooser};
/// let mut chooser = WindowChooser::new(Speculation::Auto);
/// // A pass costs 10 ms and 0.1 ms a token; each draft is accepted with 3 chances of 4.
/// for _ in 0..1000 {
///     let places = chooser.choose(1);
///     let tokens = (0..=places).map(|draft| 0.75f64.powi(draft as i32)).sum::<f64>().round() as usize;
///     chooser.note_pass(1 + places, 0.010 + 0.0001 * places as f64);
///     chooser.note_verified(places, places, tokens);
/// }
/// assert!(chooser.choose(1) > 0);
/// ```
#[derive(Debug, Clone)]
pub struct WindowChooser {
    setting: Speculation,
    costs: Costs,
    gains: [Option<Gain>; ARMS.len()],
    /// The arm of the next pass.
    arm: usize,
    probe: Option<Probe>,
    passes_since_probe: usize,
    rest: usize,
    /// Which neighbour was probed last.
    last_probed: usize,
    /// Seconds of all passes, and seconds that these would have taken less than plain ones.
    spent: f64,
    saved: f64,
    rows: usize,
}

#[derive(Debug, Clone, Copy)]
struct Probe {
    arm: usize,
    back: usize,
    passes: usize,
}

/// What an arm brings a sequence, on average.
#[derive(Debug, Clone, Copy)]
struct Gain {
    tokens: f64,
    drafts: f64,
}

/// The seconds of a pass by its tokens: means in classes, two to a factor of two.
#[derive(Debug, Clone, Default)]
struct Costs {
    classes: Vec<Option<(f64, f64)>>,
}

impl Costs {
    fn class(tokens: f64) -> usize {
        (2.0 * tokens.max(1.0).log2()).round() as usize
    }

    fn note(&mut self, tokens: usize, seconds: f64) {
        let class = Self::class(tokens as f64);
        if self.classes.len() <= class {
            self.classes.resize(class + 1, None);
        }
        let mean = self.classes[class].get_or_insert((tokens as f64, seconds));
        mean.0 += (tokens as f64 - mean.0) * NEW;
        // One pass that was held up counts no more than twice what is usual.
        mean.1 += (seconds.min(2.0 * mean.1) - mean.1) * NEW;
    }

    /// The seconds of a pass of so many tokens, from the classes around it; none where nothing is known.
    fn of(&self, tokens: f64) -> Option<f64> {
        let class = Self::class(tokens);
        let known = |index: &usize| self.classes.get(*index).copied().flatten();
        if let Some((_, seconds)) = known(&class) {
            return Some(seconds);
        }
        let below = (0..class).rev().find_map(|index| known(&index));
        let above = (class + 1..self.classes.len()).find_map(|index| known(&index));
        match (below, above) {
            (Some(below), Some(above)) => {
                Some(below.1 + (above.1 - below.1) * (tokens - below.0) / (above.0 - below.0))
            }
            // As if each token cost what it does on average: more than it will be.
            (Some(below), None) => Some(below.1 * tokens / below.0),
            (None, Some(above)) => Some(above.1),
            (None, None) => None,
        }
    }
}

impl WindowChooser {
    /// One that knows nothing yet.
    pub fn new(setting: Speculation) -> Self {
        Self {
            setting,
            costs: Costs::default(),
            gains: [None; ARMS.len()],
            arm: 0,
            probe: None,
            passes_since_probe: 0,
            rest: REST[0],
            last_probed: 0,
            spent: 0.0,
            saved: 0.0,
            rows: 1,
        }
    }

    /// The number of drafts for each sequence in the next pass, where `rows` rows draw: under guidance a sequence has
    /// two of them.
    pub fn choose(&mut self, rows: usize) -> usize {
        self.rows = rows.max(1);
        self.setting.window().unwrap_or(ARMS[self.arm])
    }

    /// Notes the time of a pass that had so many tokens, all rows together.
    pub fn note_pass(&mut self, tokens: usize, seconds: f64) {
        if !seconds.is_finite() || seconds <= 0.0 || tokens == 0 {
            return;
        }
        self.costs.note(tokens, seconds);
        self.spent += seconds;
        self.saved -= seconds;
        self.advance();
    }

    /// Notes that a sequence for which `places` drafts were chosen ran so many, and got so many tokens.
    pub fn note_verified(&mut self, places: usize, drafts: usize, tokens: usize) {
        let Some(arm) = ARMS.iter().position(|&arm| arm == places) else { return };
        let plain = self.costs.of(self.rows as f64).unwrap_or_default();
        self.saved += plain * tokens as f64;
        if self.probe.is_some_and(|probe| probe.arm == arm && probe.passes > COUNTED) {
            return;
        }
        let (tokens, drafts) = (tokens as f64, drafts as f64);
        let gain = self.gains[arm].get_or_insert(Gain { tokens, drafts });
        gain.tokens += (tokens - gain.tokens) * NEW;
        gain.drafts += (drafts - gain.drafts) * NEW;
    }

    /// Tokens a second of an arm, as far as it was measured.
    fn value(&self, arm: usize) -> Option<f64> {
        let gain = self.gains[arm]?;
        Some(gain.tokens / self.costs.of(self.rows as f64 * (1.0 + gain.drafts))?)
    }

    /// Chooses the arm of the next pass.
    fn advance(&mut self) {
        if let Some(probe) = &mut self.probe {
            probe.passes -= 1;
            if probe.passes > 0 {
                return;
            }
            let (probed, back) = (probe.arm, probe.back);
            self.probe = None;
            self.passes_since_probe = 0;
            let pays = self.value(probed) > self.value(back);
            self.rest = if pays { REST[0] } else { (2 * self.rest).min(REST[1]) };
            self.arm = back;
        }
        let best = (0..ARMS.len()).filter(|&arm| self.gains[arm].is_some());
        let best = best.max_by(|&a, &b| self.value(a).partial_cmp(&self.value(b)).unwrap_or(std::cmp::Ordering::Equal));
        self.arm = best.unwrap_or(0);
        self.passes_since_probe += 1;
        // Unknown neighbours first, and else the two in turn.
        let neighbours = [self.arm + 1, self.arm.wrapping_sub(1)].map(|arm| (arm < ARMS.len()).then_some(arm));
        let unknown = neighbours.iter().flatten().copied().find(|&arm| self.gains[arm].is_none());
        let due = unknown.or_else(|| {
            let rested = self.passes_since_probe > self.rest;
            let [up, down] = neighbours;
            let next = if up == Some(self.last_probed) { down.or(up) } else { up.or(down) };
            next.filter(|_| rested)
        });
        if let Some(arm) = due.filter(|&arm| self.affords(arm)) {
            self.probe = Some(Probe { arm, back: self.arm, passes: LEAD_IN + COUNTED });
            (self.arm, self.last_probed) = (arm, arm);
        }
    }

    /// Whether a probe keeps the loss within its bounds, if no draft is accepted.
    fn affords(&self, arm: usize) -> bool {
        let rows = self.rows as f64;
        let (Some(plain), Some(cost)) = (self.costs.of(rows), self.costs.of(rows * (1.0 + ARMS[arm] as f64))) else {
            return false;
        };
        let passes = (LEAD_IN + COUNTED) as f64;
        let sequences = 1.0;
        let loss = passes * (cost - plain * sequences).max(0.0);
        self.saved - loss > -(MAX_LOSS * self.spent + SLACK * plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds of the passes of so many tokens, chosen and plain, and the last choices.
    fn run(cost: impl Fn(usize) -> f64, rate: f64, n_passes: usize) -> (f64, f64, Vec<usize>) {
        let mut chooser = WindowChooser::new(Speculation::Auto);
        let (mut chosen, mut plain, mut choices) = (0.0, 0.0, Vec::new());
        let mut owed = 0.0;
        for _ in 0..n_passes {
            let places = chooser.choose(1);
            choices.push(places);
            // Fractions of tokens are carried over.
            owed += (0..=places).map(|draft| rate.powi(draft as i32)).sum::<f64>();
            let tokens = owed as usize;
            owed -= tokens as f64;
            chooser.note_pass(1 + places, cost(1 + places));
            chooser.note_verified(places, places, tokens);
            chosen += cost(1 + places);
            plain += tokens as f64 * cost(1);
        }
        (chosen, plain, choices)
    }

    #[test]
    fn a_device_with_idle_arithmetic_tries_many() {
        let (chosen, plain, choices) = run(|tokens| 0.005 * (1.0 + 0.001 * tokens as f64), 0.8, 2000);
        assert!(plain / chosen > 4.0, "{}", plain / chosen);
        assert!(choices.iter().skip(1000).filter(|&&places| places >= 16).count() > 900);
    }

    #[test]
    fn a_device_without_tries_few_and_loses_little() {
        for rate in [0.0, 0.3, 0.9] {
            let (chosen, plain, choices) = run(|tokens| 0.005 * tokens as f64, rate, 4000);
            assert!(chosen / plain < 1.02, "{rate}: {}", chosen / plain);
            assert!(choices.iter().skip(1000).filter(|&&places| places == 0).count() > 2900, "{rate}");
        }
    }
}
