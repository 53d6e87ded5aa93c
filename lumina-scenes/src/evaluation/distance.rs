//! Distances of colours, Euclidean in 8-bit RGB.

/// The square of the distance.
pub(super) fn squared_distance(a: [u8; 3], b: [u8; 3]) -> i32 {
    a.into_iter().zip(b).map(|(a, b)| (i32::from(a) - i32::from(b)).pow(2)).sum()
}
