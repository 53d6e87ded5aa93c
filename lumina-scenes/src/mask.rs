//! The pixels that a shape covers.

use crate::{ObjectShape, ObjectSize};

/// Samples per pixel along each axis.
const SAMPLES: u32 = 4;
/// The coverage of a pixel that is completely inside.
pub(crate) const FULL_COVERAGE: u32 = SAMPLES * SAMPLES;

/// How much of each pixel a shape covers, on the bounding square of the shape.
pub(crate) struct Mask {
    side: u32,
    /// `0..=FULL_COVERAGE`, `[side, side]`.
    coverage: Vec<u32>,
}

impl Mask {
    pub(crate) fn new(shape: ObjectShape, size: ObjectSize) -> Self {
        let side = size.side_px();
        let coverage = (0..side * side).map(|pixel| coverage(shape, size, (pixel % side, pixel / side))).collect();
        Self { side, coverage }
    }

    /// Width and height, in pixels.
    pub(crate) fn side(&self) -> i32 {
        self.side.cast_signed()
    }

    /// The coverage of the pixel at an offset `(x, y)` from the centre; 0 outside.
    pub(crate) fn coverage(&self, (x, y): (i32, i32)) -> u32 {
        let half = self.side() / 2;
        match (u32::try_from(x + half), u32::try_from(y + half)) {
            (Ok(x), Ok(y)) if x < self.side && y < self.side => self.coverage[(y * self.side + x) as usize],
            _ => 0,
        }
    }

    /// Whether the shape covers at least half of the pixel.
    pub(crate) fn covers(&self, offset: (i32, i32)) -> bool {
        2 * self.coverage(offset) >= FULL_COVERAGE
    }

    /// The pixels of the bounding square, as offsets from the centre.
    pub(crate) fn offsets(&self) -> impl Iterator<Item = (i32, i32)> + use<> {
        let half = self.side() / 2;
        (-half..half).flat_map(move |y| (-half..half).map(move |x| (x, y)))
    }
}

/// The number of samples of a pixel that are inside the shape.
fn coverage(shape: ObjectShape, size: ObjectSize, (x, y): (u32, u32)) -> u32 {
    // One unit is half of the distance between samples: all coordinates are then integers.
    let unit = 2 * SAMPLES;
    let half = (size.side_px() * unit / 2).cast_signed();
    let arm = match size {
        ObjectSize::Small => 3,
        ObjectSize::Large => 5,
    } * unit.cast_signed();
    let along = |pixel: u32| (0..SAMPLES).map(move |sample| (pixel * unit + 2 * sample + 1).cast_signed() - half);
    let inside = |x: i32, y: i32| match shape {
        ObjectShape::Circle => x * x + y * y <= half * half,
        ObjectShape::Square => true,
        ObjectShape::Triangle => 2 * x.abs() <= y + half,
        ObjectShape::Cross => x.abs() < arm || y.abs() < arm,
    };
    let samples = along(y).flat_map(|y| along(x).map(move |x| (x, y)));
    samples.map(|(x, y)| u32::from(inside(x, y))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_have_the_right_area_and_touch_all_sides() {
        for (shape, area) in [
            (ObjectShape::Circle, std::f64::consts::FRAC_PI_4),
            (ObjectShape::Square, 1.0),
            (ObjectShape::Triangle, 0.5),
            (ObjectShape::Cross, 0.6),
        ] {
            for size in ObjectSize::ALL {
                let mask = Mask::new(shape, size);
                let side = f64::from(size.side_px());
                let found = f64::from(mask.coverage.iter().sum::<u32>()) / f64::from(FULL_COVERAGE) / (side * side);
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
