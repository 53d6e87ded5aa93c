//! How many drafts pay.

mod costs;

use costs::Costs;

use super::setting::Speculation;

/// The numbers of drafts to choose from.
const ARMS: [usize; 9] = [0, 1, 2, 4, 8, 16, 32, 64, 128];
/// What a new time counts in a mean.
const NEW: f64 = 1.0 / 16.0;
/// Passes that a mean of accepted drafts is taken over.
const MEAN_OF: f64 = 64.0;
/// Passes that an old mean counts as, when an arm is probed again.
const OLD: f64 = 4.0;
/// The loss that probes may cause, as a fraction of all time.
const MAX_LOSS: f64 = 0.02;
/// The loss that they may cause from the start, in plain passes.
const SLACK: f64 = 4.0;
/// Passes of a probe that are not counted: the drafts of a window get better from pass to pass.
const LEAD_IN: usize = 3;
/// Passes of a probe that are counted.
const COUNTED: usize = 6;
/// Passes from one probe of an arm to the next: at first, and at most, if it does not pay.
const REST: [usize; 2] = [64, 4096];
/// How much better than the best one before an arm must be.
const MARGIN: f64 = 1.03;
/// How much better than when it was measured an arm may have become.
const HOPE: f64 = 1.2;
/// Passes after which a measurement says nothing of what an arm may bring now.
const EXPIRY: usize = 512;

/// Chooses how many drafts a pass has: as many as bring the most tokens a second, by the measured time of passes and
/// the measured number of accepted drafts.
///
/// Other numbers than the best one are probed now and then. What probes lose against plain decoding, if nothing that
/// they try is accepted, stays within 2 % of all time and 4 passes, and what was gained before; where no number of
/// drafts pays, the choice is 0. There is no clock: the choice depends on what is noted alone. One chooser serves all
/// sequences of an engine that draw images, and another one those that draw text.
///
/// ```
/// use lumina_sampling::speculation::{Speculation, WindowChooser};
/// let mut chooser = WindowChooser::new(Speculation::Auto);
/// // A pass takes 10 ms, and 0.1 ms for each draft, of which every third pass accepts up to five.
/// for pass in 0..1000 {
///     let drafts = chooser.choose(1);
///     chooser.note_pass(1 + drafts, 0.010 + 0.0001 * drafts as f64);
///     chooser.note_verified(drafts, drafts, 1 + if pass % 3 == 0 { drafts.min(5) } else { 0 });
/// }
/// assert!((4..=8).contains(&chooser.choose(1)));
/// ```
#[derive(Debug, Clone)]
pub struct WindowChooser {
    setting: Speculation,
    costs: Costs,
    arms: [Arm; ARMS.len()],
    /// The arm of the pass.
    arm: usize,
    probe: Option<Probe>,
    pass: Pass,
    n_passes: usize,
    /// Seconds of all passes, and seconds by which plain ones would have taken longer.
    spent: f64,
    saved: f64,
}

/// What is known of a number of drafts.
#[derive(Debug, Clone, Copy)]
struct Arm {
    /// Mean tokens of a sequence in a pass, and the drafts that it ran.
    gain: Option<(f64, f64)>,
    /// Passes that this mean counts as.
    weight: f64,
    /// When that was.
    measured: usize,
    /// When it may be probed again.
    rested: usize,
    rest: usize,
}

/// An arm that is tried.
#[derive(Debug, Clone, Copy)]
struct Probe {
    /// The arm that was best before.
    back: usize,
    lead_in: usize,
    counted: usize,
}

/// What is noted of a pass.
#[derive(Debug, Clone, Copy, Default)]
struct Pass {
    rows: usize,
    seconds: f64,
    sequences: usize,
    tokens: usize,
    drafts: usize,
}

impl WindowChooser {
    /// One that knows nothing yet.
    pub fn new(setting: Speculation) -> Self {
        Self {
            setting,
            costs: Costs::default(),
            arms: [Arm { gain: None, weight: 0.0, measured: 0, rested: 0, rest: REST[0] }; ARMS.len()],
            arm: 0,
            probe: None,
            pass: Pass::default(),
            n_passes: 0,
            spent: 0.0,
            saved: 0.0,
        }
    }

    /// The number of drafts for each sequence in the next pass, where `rows` rows draw: under guidance a sequence has
    /// two of them, and both run its drafts.
    pub fn choose(&mut self, rows: usize) -> usize {
        let pass = std::mem::replace(&mut self.pass, Pass { rows: rows.max(1), ..Pass::default() });
        if pass.sequences > 0 && pass.seconds > 0.0 {
            self.close(pass);
        }
        self.setting.window().unwrap_or(ARMS[self.arm])
    }

    /// Notes the time of the pass since the last choice, and its tokens, all rows together.
    pub fn note_pass(&mut self, tokens: usize, seconds: f64) {
        if seconds.is_finite() && seconds > 0.0 {
            self.costs.note(tokens, seconds);
            self.pass.seconds += seconds;
        }
    }

    /// Notes that a sequence of this pass, for which `places` drafts were chosen, ran so many, and got so many tokens.
    pub fn note_verified(&mut self, places: usize, drafts: usize, tokens: usize) {
        if places == ARMS[self.arm] {
            self.pass.sequences += 1;
            self.pass.drafts += drafts;
            self.pass.tokens += tokens;
        }
    }

    /// Takes what was noted of a pass, and chooses the arm of the next.
    fn close(&mut self, pass: Pass) {
        let sequences = pass.sequences as f64;
        let (tokens, drafts) = (pass.tokens as f64 / sequences, pass.drafts as f64 / sequences);
        self.n_passes += 1;
        self.spent += pass.seconds;
        self.saved += self.costs.of(self.rows()).map_or(0.0, |plain| plain * tokens - pass.seconds);
        match &mut self.probe {
            // Only the time counted, if nothing else is to be counted.
            Some(Probe { back, lead_in: 1, counted: 0 }) => {
                let back = *back;
                self.end_probe(back);
                return;
            }
            Some(Probe { lead_in, .. }) if *lead_in > 0 => {
                *lead_in -= 1;
                return;
            }
            Some(Probe { counted, .. }) => *counted = counted.saturating_sub(1),
            None => {}
        }
        let arm = &mut self.arms[self.arm];
        let (mean_tokens, mean_drafts) = arm.gain.get_or_insert((tokens, drafts));
        if arm.measured + EXPIRY < self.n_passes {
            arm.weight = arm.weight.min(OLD);
        }
        arm.weight = (arm.weight + 1.0).min(MEAN_OF);
        let new = 1.0 / arm.weight;
        *mean_tokens += (tokens - *mean_tokens) * new;
        *mean_drafts += (drafts - *mean_drafts) * new;
        arm.measured = self.n_passes;
        if self.probe.is_some_and(|probe| probe.counted > 0) {
            return;
        }
        self.end_probe(self.best(self.probe.map_or(self.arm, |probe| probe.back)));
    }

    /// Ends a probe, if there is one, and goes on with the best arm or with another probe.
    fn end_probe(&mut self, best: usize) {
        if let Some(Probe { counted: 0, lead_in, .. }) = self.probe.take() {
            if best == self.arm {
                // What was worse before may be better now, too.
                for arm in &mut self.arms {
                    (arm.rest, arm.rested) = (REST[0], arm.rested.min(self.n_passes + REST[0]));
                }
            }
            let is_known = self.costs.is_known(self.rows() * (1 + ARMS[self.arm]) as f64);
            let arm = &mut self.arms[self.arm];
            // Once it is known what it costs, it can be counted at once what it brings.
            if lead_in == 0 || !is_known {
                arm.rested = self.n_passes + arm.rest;
                arm.rest = (2 * arm.rest).min(REST[1]);
            }
        }
        self.arm = best;
        if let Some((arm, probe)) = self.next_probe(best) {
            (self.arm, self.probe) = (arm, Some(probe));
        }
    }

    fn rows(&self) -> f64 {
        self.pass.rows as f64
    }

    /// The arm with the most tokens a second, as far as they were measured: the one before, unless another is clearly
    /// better.
    fn best(&self, before: usize) -> usize {
        let measured = |arm: usize| self.value(arm, self.arms[arm].gain?);
        let values = (0..ARMS.len()).filter_map(|arm| Some((arm, measured(arm)?)));
        let best = values.max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)));
        let least = measured(before).map_or(0.0, |value| MARGIN * value);
        let best = best.filter(|&(_, value)| value > least).map_or(before, |(arm, _)| arm);
        // Nothing is slower than plain passes for long.
        if measured(best) < measured(0) { 0 } else { best }
    }

    /// Tokens a second of an arm with such a gain.
    fn value(&self, arm: usize, (tokens, drafts): (f64, f64)) -> Option<f64> {
        let drafts = drafts.min(ARMS[arm] as f64);
        Some(tokens / self.costs.of(self.rows() * (1.0 + drafts))?)
    }

    /// An arm to try, if there is one that may be better than the best.
    fn next_probe(&self, best: usize) -> Option<(usize, Probe)> {
        let is_rested = |&arm: &usize| self.arms[arm].rested <= self.n_passes;
        // A pass of each tells what it costs.
        let unknown = (1..ARMS.len()).find(|&arm| !self.costs.is_known(self.rows() * (1 + ARMS[arm]) as f64));
        if let Some(arm) = unknown.filter(is_rested).filter(|&arm| self.affords(arm, 1)) {
            return Some((arm, Probe { back: best, lead_in: 1, counted: 0 }));
        }
        let least = self.value(best, self.arms[best].gain?)?;
        let plain = self.costs.of(self.rows())?;
        let hopes = (0..ARMS.len()).filter(|&arm| arm != best).filter(is_rested).filter_map(|arm| {
            let value = self.value(arm, (self.hoped_tokens(arm), ARMS[arm] as f64))?;
            (value > MARGIN * least && self.affords(arm, LEAD_IN + COUNTED)).then_some((arm, value))
        });
        let (arm, _) = if self.arms[1..].iter().any(|arm| self.is_recent(arm)) {
            hopes.max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)))?
        } else {
            // Nothing limits what to hope for: what is cheap first, and of that the most.
            let is_cheap =
                |&(arm, _): &(usize, f64)| self.loss(arm, LEAD_IN + COUNTED).is_some_and(|loss| loss < plain);
            hopes.clone().rfind(is_cheap).or_else(|| hopes.min_by_key(|&(arm, _)| arm))?
        };
        let lead_in = if arm == 0 { 0 } else { LEAD_IN };
        Some((arm, Probe { back: best, lead_in, counted: if arm == 0 { 1 } else { COUNTED } }))
    }

    /// The most tokens a pass that an arm may bring by what was measured of late: hardly more than it brought, and than
    /// others would if they had as many drafts.
    fn hoped_tokens(&self, arm: usize) -> f64 {
        let mut least = (1 + ARMS[arm]) as f64;
        for (other, known) in self.arms.iter().enumerate().skip(1).filter(|(_, arm)| self.is_recent(arm)) {
            if let Some((tokens, _)) = known.gain {
                let expected =
                    if other == arm { tokens } else { expected_tokens(ARMS[arm], rate(ARMS[other], tokens)) };
                least = least.min(HOPE * expected);
            }
        }
        least
    }

    fn is_recent(&self, arm: &Arm) -> bool {
        arm.gain.is_some() && arm.measured + EXPIRY >= self.n_passes
    }

    /// Whether so many passes of an arm keep the loss within its bounds, if no draft is accepted.
    fn affords(&self, arm: usize, passes: usize) -> bool {
        let (Some(loss), Some(plain)) = (self.loss(arm, passes), self.costs.of(self.rows())) else { return false };
        self.saved - loss >= -(MAX_LOSS * self.spent + SLACK * plain)
    }

    /// The seconds that so many passes of an arm take longer than plain ones.
    fn loss(&self, arm: usize, passes: usize) -> Option<f64> {
        let cost = self.costs.of(self.rows() * (1 + ARMS[arm]) as f64)?;
        Some(passes as f64 * (cost - self.costs.of(self.rows())?).max(0.0))
    }
}

/// Tokens of a pass of so many drafts, if each is accepted at a rate after the one before: `1 + r + r² + …`.
fn expected_tokens(drafts: usize, rate: f64) -> f64 {
    let n = (1 + drafts) as f64;
    if rate < 1.0 { (1.0 - rate.powf(n)) / (1.0 - rate) } else { n }
}

/// The rate that gives so many tokens.
fn rate(drafts: usize, tokens: f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..20 {
        let middle = (low + high) / 2.0;
        *(if expected_tokens(drafts, middle) < tokens { &mut low } else { &mut high }) = middle;
    }
    high
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run of passes that cost so many seconds by their tokens, where each draft is accepted at this rate after the
    /// one before: the seconds, those of plain passes for the same tokens, the greatest loss beyond 2 %, and the
    /// choices.
    struct Outcome {
        seconds: f64,
        plain: f64,
        worst: f64,
        choices: Vec<usize>,
    }

    impl Outcome {
        fn of(cost: impl Fn(usize) -> f64, rate: impl Fn(usize) -> f64, n_passes: usize, rows: usize) -> Self {
            let mut chooser = WindowChooser::new(Speculation::Auto);
            let mut outcome = Self { seconds: 0.0, plain: 0.0, worst: f64::NEG_INFINITY, choices: Vec::new() };
            // Drafts get better from pass to pass, and a wider window begins with worse ones.
            let (mut last, mut warm) = (0, 0);
            let mut random = lumina_testing::lcg(7).map(|state| f64::from(state >> 8) / f64::from(1 << 24));
            for pass in 0..n_passes {
                let drafts = chooser.choose(rows);
                warm = if drafts > last { 1 } else { warm + 1 };
                last = drafts;
                let rate = rate(pass) * f64::from(warm.min(4)) / 4.0;
                let accepted = (0..drafts).take_while(|_| random.by_ref().next().unwrap() < rate).count();
                let seconds = cost(rows * (1 + drafts)) * (0.9 + 0.2 * random.next().unwrap());
                chooser.note_pass(rows * (1 + drafts), seconds);
                chooser.note_verified(drafts, drafts, 1 + accepted);
                outcome.choices.push(drafts);
                outcome.seconds += seconds;
                outcome.plain += (1 + accepted) as f64 * cost(rows);
                outcome.worst = outcome.worst.max(outcome.seconds - 1.02 * outcome.plain);
            }
            outcome
        }

        /// How often the choice was in a range, of the last half.
        fn share(&self, range: std::ops::RangeInclusive<usize>) -> f64 {
            let last = &self.choices[self.choices.len() / 2..];
            last.iter().filter(|choice| range.contains(choice)).count() as f64 / last.len() as f64
        }
    }

    /// A pass is bound by memory up to so many tokens.
    fn roofline(tokens: usize, free: usize) -> f64 {
        0.005 * (1.0 + 0.001 * tokens as f64).max(tokens as f64 / free as f64)
    }

    #[test]
    fn idle_arithmetic_is_used() {
        let outcome = Outcome::of(|tokens| roofline(tokens, 300), |_| 0.8, 2000, 2);
        assert!(outcome.plain / outcome.seconds > 3.8, "{}", outcome.plain / outcome.seconds);
        assert!(outcome.share(8..=128) > 0.95);
        assert!(outcome.choices[10..200].iter().filter(|&&drafts| drafts >= 8).count() > 180);
        let outcome = Outcome::of(|tokens| roofline(tokens, 12), |_| 0.8, 2000, 2);
        assert!(outcome.plain / outcome.seconds > 2.0, "{}", outcome.plain / outcome.seconds);
        assert!(outcome.share(4..=8) > 0.9, "{:?}", &outcome.choices[1900..]);
    }

    #[test]
    fn where_nothing_is_idle_next_to_nothing_is_lost() {
        for rate in [0.0, 0.3, 0.9] {
            let outcome = Outcome::of(|tokens| 0.005 * tokens as f64, |_| rate, 5000, 1);
            // 4 passes of slack, and the noise of the times.
            assert!(outcome.worst < 8.0 * 0.005, "{rate}: {}", outcome.worst / 0.005);
            assert!(outcome.share(0..=0) > 0.95, "{rate}: {}", outcome.share(0..=0));
        }
    }

    #[test]
    fn what_changes_is_followed() {
        // Drafts are accepted, then hardly any, then again.
        let rate = |pass: usize| if (2000..4000).contains(&pass) { 0.02 } else { 0.8 };
        let outcome = Outcome::of(|tokens| 0.005 * (1.0 + 0.05 * tokens as f64), rate, 8000, 1);
        let share = |range: std::ops::Range<usize>, is: fn(usize) -> bool| {
            outcome.choices[range.clone()].iter().filter(|&&drafts| is(drafts)).count() as f64 / range.len() as f64
        };
        let shares = [
            share(1000..2000, |drafts| drafts >= 4),
            share(3000..4000, |drafts| drafts == 0),
            share(7000..8000, |drafts| drafts >= 4),
        ];
        assert!(shares.iter().all(|&share| share > 0.9), "{shares:?}");
    }

    #[test]
    fn rates_and_tokens() {
        assert_eq!(expected_tokens(4, 1.0), 5.0);
        for (drafts, at) in [(1, 0.5), (8, 0.8), (128, 0.95)] {
            assert!((rate(drafts, expected_tokens(drafts, at)) - at).abs() < 1e-5);
        }
    }

    #[test]
    fn a_number_that_was_set_is_kept() {
        for (setting, places) in [(Speculation::Off, 0), (Speculation::Window(5), 5)] {
            let mut chooser = WindowChooser::new(setting);
            for _ in 0..100 {
                assert_eq!(chooser.choose(2), places);
                chooser.note_pass(2 * (1 + places), 0.01);
                chooser.note_verified(places, places, 1);
            }
        }
    }

    #[test]
    fn times_that_make_no_sense_are_passed_over() {
        let mut chooser = WindowChooser::new(Speculation::Auto);
        for seconds in [f64::NAN, 0.0, -1.0, f64::INFINITY, 1e300, 1e-300] {
            for _ in 0..50 {
                let places = chooser.choose(1);
                assert!(ARMS.contains(&places));
                chooser.note_pass(1 + places, seconds);
                chooser.note_verified(places, places, 1);
            }
        }
    }
}
