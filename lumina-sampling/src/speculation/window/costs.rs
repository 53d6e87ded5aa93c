//! What a pass costs.

use super::NEW;

/// The seconds of a pass by its tokens: means in classes, two to a factor of two.
#[derive(Debug, Clone, Default)]
pub(super) struct Costs {
    /// Tokens and seconds.
    classes: Vec<Option<(f64, f64)>>,
}

impl Costs {
    fn class(tokens: f64) -> usize {
        (2.0 * tokens.max(1.0).log2()).round() as usize
    }

    /// Notes a pass.
    pub(super) fn note(&mut self, tokens: usize, seconds: f64) {
        let class = Self::class(tokens as f64);
        if self.classes.len() <= class {
            self.classes.resize(class + 1, None);
        }
        let mean = self.classes[class].get_or_insert((tokens as f64, seconds));
        mean.0 += (tokens as f64 - mean.0) * NEW;
        // A pass that was held up counts no more than twice what is usual.
        mean.1 += (seconds.min(2.0 * mean.1) - mean.1) * NEW;
    }

    /// Whether passes of about so many tokens were noted.
    pub(super) fn is_known(&self, tokens: f64) -> bool {
        self.classes.get(Self::class(tokens)).is_some_and(Option::is_some)
    }

    /// The seconds of a pass of so many tokens: by its class, or else between those around it. Beyond all of them as if
    /// each token cost what it does on average, which is more than it will be. None where nothing was noted.
    pub(super) fn of(&self, tokens: f64) -> Option<f64> {
        let class = Self::class(tokens);
        let known = |index: usize| self.classes.get(index).copied().flatten();
        if let Some((_, seconds)) = known(class) {
            return Some(seconds);
        }
        let below = (0..class).rev().find_map(known);
        let above = (class + 1..self.classes.len()).find_map(known);
        match (below, above) {
            (Some(below), Some(above)) => {
                Some(below.1 + (above.1 - below.1) * (tokens - below.0) / (above.0 - below.0))
            }
            (Some(below), None) => Some(below.1 * tokens / below.0),
            (None, Some(above)) => Some(above.1),
            (None, None) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Costs;

    #[test]
    fn what_is_not_known_lies_between_or_beyond() {
        let mut costs = Costs::default();
        assert_eq!(costs.of(5.0), None);
        costs.note(4, 1.0);
        assert_eq!([1.0, 4.0, 8.0].map(|tokens| costs.of(tokens)), [1.0, 1.0, 2.0].map(Some));
        costs.note(16, 3.0);
        assert_eq!([4.0, 10.0, 16.0, 32.0].map(|tokens| costs.of(tokens)), [1.0, 2.0, 3.0, 6.0].map(Some));
        assert_eq!([4.0, 8.0].map(|tokens| costs.is_known(tokens)), [true, false]);
    }

    #[test]
    fn a_pass_that_was_held_up_counts_little() {
        let mut costs = Costs::default();
        (0..50).for_each(|_| costs.note(4, 1.0));
        costs.note(4, 1000.0);
        assert!(costs.of(4.0).unwrap() < 1.1);
        (0..100).for_each(|_| costs.note(4, 3.0));
        assert!(costs.of(4.0).unwrap() > 2.8, "what stays is believed");
    }
}
