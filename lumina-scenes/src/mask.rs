//! Which pixels a shape covers.

use crate::{Shape, Size};

/// Samples a pixel, on each axis.
const SAMPLES: u32 = 4;
/// The coverage of a pixel that lies inside whole.
pub(crate) const FULL: u32 = SAMPLES * SAMPLES;

/// The coverage of each pixel by a shape, on the square that it just fits into.
pub(crate) struct Mask {
    side: u32,
    /// `0..=FULL` a pixel, row-major.
    coverage: Vec<u32>,
}

impl Mask {
    pub(crate) fn new(shape: Shape, size: Size) -> Self {
        let side = size.side_px();
        let coverage = (0..side * side).map(|pixel| coverage(shape, size, (pixel % side, pixel / side))).collect();
        Self { side, coverage }
    }

    /// Width and height, in pixels.
    pub(crate) fn side(&self) -> i32 {
        self.side.cast_signed()
    }

    /// The coverage of the pixel right of and below the centre by `(x, y)`; 0 outside.
    pub(crate) fn coverage(&self, (x, y): (i32, i32)) -> u32 {
        let half = self.side() / 2;
        match (u32::try_from(x + half), u32::try_from(y + half)) {
            (Ok(x), Ok(y)) if x < self.side && y < self.side => self.coverage[(y * self.side + x) as usize],
            _ => 0,
        }
    }

    /// Whether at least half of the pixel is inside.
    pub(crate) fn covers(&self, offset: (i32, i32)) -> bool {
        2 * self.coverage(offset) >= FULL
    }

    /// The pixels that it may cover, as offsets from the centre.
    pub(crate) fn offsets(&self) -> impl Iterator<Item = (i32, i32)> + use<> {
        let half = self.side() / 2;
        (-half..half).flat_map(move |y| (-half..half).map(move |x| (x, y)))
    }
}

/// How many of a pixel's samples are inside.
fn coverage(shape: Shape, size: Size, (x, y): (u32, u32)) -> u32 {
    // In units of half a sample's distance, which makes all samples and sides whole numbers.
    let unit = 2 * SAMPLES;
    let half = (size.side_px() * unit / 2).cast_signed();
    let arm = match size {
        Size::Small => 3,
        Size::Large => 5,
    } * unit.cast_signed();
    let along = |pixel: u32| (0..SAMPLES).map(move |sample| (pixel * unit + 2 * sample + 1).cast_signed() - half);
    let inside = |x: i32, y: i32| match shape {
        Shape::Circle => x * x + y * y <= half * half,
        Shape::Square => true,
        Shape::Triangle => 2 * x.abs() <= y + half,
        Shape::Cross => x.abs() < arm || y.abs() < arm,
    };
    let samples = along(y).flat_map(|y| along(x).map(move |x| (x, y)));
    samples.map(|(x, y)| u32::from(inside(x, y))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_have_their_areas_and_fill_their_squares() {
        for (shape, area) in [
            (Shape::Circle, std::f64::consts::FRAC_PI_4),
            (Shape::Square, 1.0),
            (Shape::Triangle, 0.5),
            (Shape::Cross, 0.6),
        ] {
            for size in Size::ALL {
                let mask = Mask::new(shape, size);
                let side = f64::from(size.side_px());
                let found = f64::from(mask.coverage.iter().sum::<u32>()) / f64::from(FULL) / (side * side);
                assert!((found - area).abs() < 0.02, "{size} {shape}: {found}");
                let touches = |edge: fn((i32, i32), i32) -> bool| {
                    mask.offsets().any(|at| edge(at, mask.side() / 2) && mask.coverage(at) > 0)
                };
                assert!(touches(|at, half| at.0 == -half) && touches(|at, half| at.0 == half - 1));
                assert!(touches(|at, half| at.1 == -half) && touches(|at, half| at.1 == half - 1));
                assert_eq!(mask.coverage((mask.side() / 2, 0)), 0);
            }
        }
    }
}
