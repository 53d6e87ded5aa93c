//! Layers that compute some rows of a tensor at a time.

use std::ops::Range;

use burn::tensor::Tensor;

use crate::ops::RowWriter;

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
    fn split(self, height: usize) -> impl Iterator<Item = Range<usize>> {
        let rows = self.rows(height);
        (0..height).step_by(rows).map(move |start| start..(start + rows).min(height))
    }

    /// Rows of a band of an activation of `height` rows.
    pub(super) fn rows(self, height: usize) -> usize {
        match self {
            Self::Whole => height.max(1),
            Self::Rows(rows) => rows.max(1),
        }
    }
}

/// An activation of `height` rows, of which `compute` gives bands. Each is written into the result at once, so that no
/// more than one is there besides.
pub(super) fn in_bands(bands: Bands, height: usize, compute: impl Fn(Range<usize>) -> Tensor<4>) -> Tensor<4> {
    if bands.rows(height) >= height {
        return compute(0..height);
    }
    let mut result: Option<RowWriter> = None;
    for band in bands.split(height) {
        let part = compute(band.clone());
        let whole = result.take().unwrap_or_else(|| RowWriter::new(height, &part));
        result = Some(whole.write(band, part));
    }
    result.expect("an activation has rows").finish()
}

pub(super) fn rows(x: &Tensor<4>, rows: Range<usize>) -> Tensor<4> {
    x.clone().narrow(2, rows.start, rows.len())
}
