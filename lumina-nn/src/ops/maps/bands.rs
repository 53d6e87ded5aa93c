//! Layers that compute some rows of an activation at a time.

use std::ops::Range;

/// How many rows of an activation a layer computes at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Bands {
    /// All rows at once: the fastest.
    #[default]
    Whole,
    /// This many rows at a time, at least 1. Temporaries are as large as a band instead of the image: about a quarter
    /// less memory in all. On a GPU layers have no such temporaries, and this changes nothing.
    Rows(usize),
}

impl Bands {
    /// The bands of rows of an activation of `height` rows.
    pub(in crate::ops) fn split(self, height: usize) -> impl Iterator<Item = Range<usize>> {
        let rows = self.rows(height);
        (0..height).step_by(rows).map(move |start| start..(start + rows).min(height))
    }

    /// Rows of a band of an activation of `height` rows.
    pub(in crate::ops) fn rows(self, height: usize) -> usize {
        match self {
            Self::Whole => height.max(1),
            Self::Rows(rows) => rows.max(1),
        }
    }
}
