//! Distances of colours, Euclidean in 8-bit RGB.

/// The line from one colour to another.
pub(super) struct ColourLine {
    from: [f32; 3],
    by: [f32; 3],
    length_squared: f32,
}

impl ColourLine {
    pub(super) fn new(from: [u8; 3], to: [u8; 3]) -> Self {
        let from = from.map(f32::from);
        let by: [f32; 3] = std::array::from_fn(|channel| f32::from(to[channel]) - from[channel]);
        Self { from, by, length_squared: by.iter().map(|channel| channel * channel).sum() }
    }

    /// How far along the line a colour is, 0 at its start and 1 at its end.
    pub(super) fn along(&self, rgb: [u8; 3]) -> f32 {
        let along = (0..3).map(|channel| (f32::from(rgb[channel]) - self.from[channel]) * self.by[channel]);
        along.sum::<f32>() / self.length_squared
    }
}

/// The square of the distance.
pub(super) fn squared_distance(a: [u8; 3], b: [u8; 3]) -> i32 {
    a.into_iter().zip(b).map(|(a, b)| (i32::from(a) - i32::from(b)).pow(2)).sum()
}
