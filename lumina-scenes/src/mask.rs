//! The pixels that a shape covers, and which of them a fill darkens.

use std::sync::LazyLock;

use crate::{Fill, ObjectKind, ObjectShape, ObjectSize};

/// Samples per pixel along each axis.
const SAMPLES: u32 = 4;
/// The coverage of a pixel that is completely inside.
pub(crate) const FULL_COVERAGE: u32 = SAMPLES * SAMPLES;
/// Stripes and dots repeat after this many pixels.
const PERIOD_PX: f32 = 16.0;

/// How much of each pixel a shape covers, on the bounding square of the shape.
pub(crate) struct Mask {
    side: u32,
    /// `0..=FULL_COVERAGE`, `[side, side]`.
    coverage: Vec<u32>,
}

/// A mask of each shape and size, as they are drawn again and again.
static MASKS: LazyLock<Vec<[Mask; ObjectSize::ALL.len()]>> =
    LazyLock::new(|| ObjectShape::ALL.map(|shape| ObjectSize::ALL.map(|size| Mask::new(shape, size))).into());

impl Mask {
    pub(crate) fn of(shape: ObjectShape, size: ObjectSize) -> &'static Self {
        &MASKS[shape as usize][size as usize]
    }

    fn new(shape: ObjectShape, size: ObjectSize) -> Self {
        let side = size.side_px();
        // From −1 to 1 over the bounding square; y points down.
        let unit = |at: f32| 2.0 * at / side as f32 - 1.0;
        let coverage =
            (0..side * side).map(|pixel| samples(pixel % side, pixel / side, |x, y| inside(shape, unit(x), unit(y))));
        Self { side, coverage: coverage.collect() }
    }

    /// Width and height, in pixels.
    pub(crate) fn side(&self) -> i32 {
        self.side.cast_signed()
    }

    /// The coverage of the pixel at `(x, y)` from the top left corner of the bounding square; 0 outside.
    pub(crate) fn coverage(&self, (x, y): (i32, i32)) -> u32 {
        match (u32::try_from(x), u32::try_from(y)) {
            (Ok(x), Ok(y)) if x < self.side && y < self.side => self.coverage[(y * self.side + x) as usize],
            _ => 0,
        }
    }

    /// Whether the shape covers at least half of the pixel.
    pub(crate) fn covers(&self, at: (i32, i32)) -> bool {
        2 * self.coverage(at) >= FULL_COVERAGE
    }

    /// The pixels of the bounding square.
    pub(crate) fn pixels(&self) -> impl Iterator<Item = (i32, i32)> + use<> {
        let side = self.side();
        (0..side).flat_map(move |y| (0..side).map(move |x| (x, y)))
    }
}

/// The part of each pixel that a fill darkens, of [`FULL_COVERAGE`], over one period.
static DARK_PARTS: LazyLock<Vec<Vec<u32>>> = LazyLock::new(|| {
    let period = PERIOD_PX as u32;
    let part = |fill, at| samples(at % period, at / period, |x, y| is_dark(fill, x, y));
    Fill::ALL.map(|fill| (0..period * period).map(|at| part(fill, at)).collect()).into()
});

fn is_dark(fill: Fill, x: f32, y: f32) -> bool {
    match fill {
        Fill::Plain => false,
        // A bright stripe first.
        Fill::Striped => y >= PERIOD_PX / 2.0,
        Fill::Dotted => (x - PERIOD_PX / 2.0).hypot(y - PERIOD_PX / 2.0) < 0.3 * PERIOD_PX,
    }
}

impl ObjectKind {
    /// The colour of the pixel at `(x, y)` from the top left corner of the bounding square, as if the shape covered it.
    pub(crate) fn rgb_at(self, (x, y): (i32, i32)) -> [u8; 3] {
        let period = PERIOD_PX as i32;
        let at = y.rem_euclid(period) * period + x.rem_euclid(period);
        mix(self.colour.rgb(), self.colour.dark_rgb(), DARK_PARTS[self.fill as usize][at as usize])
    }
}

/// Part of `over` in a pixel, of [`FULL_COVERAGE`], on `under`.
pub(crate) fn mix(under: [u8; 3], over: [u8; 3], part: u32) -> [u8; 3] {
    let channel = |channel: usize| {
        let mixed = u32::from(under[channel]) * (FULL_COVERAGE - part) + u32::from(over[channel]) * part;
        ((mixed + FULL_COVERAGE / 2) / FULL_COVERAGE) as u8
    };
    std::array::from_fn(channel)
}

/// The number of samples of a pixel that are inside.
fn samples(x: u32, y: u32, inside: impl Fn(f32, f32) -> bool) -> u32 {
    let along = |pixel: u32| (0..SAMPLES).map(move |sample| pixel as f32 + (sample as f32 + 0.5) / SAMPLES as f32);
    along(y).flat_map(|y| along(x).map(move |x| (x, y))).map(|(x, y)| u32::from(inside(x, y))).sum()
}

/// Whether a point is inside a shape that fills the square from −1 to 1; y points down.
fn inside(shape: ObjectShape, x: f32, y: f32) -> bool {
    let disc = |x: f32, y: f32, radius: f32| x * x + y * y <= radius * radius;
    match shape {
        ObjectShape::Circle => disc(x, y, 1.0),
        ObjectShape::Square => true,
        ObjectShape::Triangle => 2.0 * x.abs() <= y + 1.0,
        ObjectShape::Cross => x.abs() < 1.0 / 3.0 || y.abs() < 1.0 / 3.0,
        ObjectShape::Star => star(x, y),
        ObjectShape::Heart => {
            // Two discs above, and a triangle below that touches them.
            let lobe = disc(x.abs() - 0.5, y + 0.5, 0.5);
            let tip = y > -0.5 && x.abs() <= 1.0 - 0.7 * (y + 0.45).max(0.0) - (y - 0.97).max(0.0);
            lobe || tip && x.abs() < 1.0
        }
        ObjectShape::Ring => disc(x, y, 1.0) && !disc(x, y, 0.5),
        ObjectShape::Moon => disc(x, y, 1.0) && !disc(x - 0.6, y, 0.85),
        ObjectShape::Arrow => {
            let shaft = x < 0.05 && y.abs() < 0.34;
            let head = x >= 0.0 && y.abs() <= 1.0 - x;
            shaft || head
        }
    }
}

/// A five-pointed star whose width and height fill the square.
fn star(x: f32, y: f32) -> bool {
    use std::f32::consts::PI;
    // Of radius 1 around its centre it reaches from −1 to cos 36°, and ±sin 72° to the sides.
    let (half_width, height) = ((0.4 * PI).sin(), 1.0 + (0.2 * PI).cos());
    let (x, y) = (x * half_width, (y + 1.0) / 2.0 * height - 1.0);
    let inner = (0.1 * PI).sin() / (0.3 * PI).sin();
    // The angle from the nearest point's direction, 0 to 36 degrees.
    let angle = x.atan2(-y).rem_euclid(0.4 * PI);
    let angle = angle.min(0.4 * PI - angle);
    let radius = x.hypot(y);
    // Between a point at (1, 0°) and the inner corner at (inner, 36°).
    let (sin, cos) = (0.2 * PI).sin_cos();
    let corner = (inner * cos, inner * sin);
    let (px, py) = (radius * angle.cos(), radius * angle.sin());
    (px - 1.0) * corner.1 - py * (corner.0 - 1.0) <= 0.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Colour;

    #[test]
    fn masks_have_the_right_area_and_touch_all_sides() {
        for (shape, area) in [
            (ObjectShape::Circle, std::f64::consts::FRAC_PI_4),
            (ObjectShape::Square, 1.0),
            (ObjectShape::Triangle, 0.5),
            (ObjectShape::Cross, 5.0 / 9.0),
            (ObjectShape::Star, 0.326),
            (ObjectShape::Heart, 0.59),
            (ObjectShape::Ring, 0.75 * std::f64::consts::FRAC_PI_4),
            (ObjectShape::Moon, 0.40),
            (ObjectShape::Arrow, 0.43),
        ] {
            for size in ObjectSize::ALL {
                let mask = Mask::new(shape, size);
                let side = f64::from(size.side_px());
                let found = f64::from(mask.coverage.iter().sum::<u32>()) / f64::from(FULL_COVERAGE) / (side * side);
                assert!((found - area).abs() < 0.03, "{size} {shape}: {found}");
                let touches =
                    |edge: &dyn Fn((i32, i32)) -> bool| mask.pixels().any(|at| edge(at) && mask.coverage(at) > 0);
                let last = mask.side() - 1;
                assert!(touches(&|at| at.1 <= 1) && touches(&|at| at.1 >= last - 1), "{size} {shape}");
                assert!(
                    touches(&|at| at.0 <= 1) && (shape == ObjectShape::Moon || touches(&|at| at.0 >= last - 1)),
                    "{size} {shape}"
                );
                assert_eq!((mask.coverage((mask.side(), 0)), mask.coverage((0, -1))), (0, 0));
            }
        }
    }

    #[test]
    fn shapes_differ() {
        for size in ObjectSize::ALL {
            for (index, a) in ObjectShape::ALL.into_iter().enumerate() {
                for b in ObjectShape::ALL.into_iter().take(index) {
                    let (first, second) = (Mask::new(a, size), Mask::new(b, size));
                    let count = |of: &dyn Fn((i32, i32)) -> bool| first.pixels().filter(|&at| of(at)).count() as f64;
                    let both = count(&|at| first.covers(at) && second.covers(at));
                    let either = count(&|at| first.covers(at) || second.covers(at));
                    assert!(both / either < 0.86, "{size} {a} and {b}: {}", both / either);
                }
            }
        }
    }

    #[test]
    fn fills_repeat_with_the_patches_of_an_image_tokenizer() {
        let kind = |fill| ObjectKind::new(ObjectSize::Large, fill, Colour::Red, ObjectShape::Square);
        for fill in Fill::ALL {
            let count = |rgb: [u8; 3]| (0..256).filter(|at| kind(fill).rgb_at((at % 16, at / 16)) == rgb).count();
            let dark = count(Colour::Red.dark_rgb());
            match fill {
                Fill::Plain => assert_eq!(dark, 0),
                Fill::Striped => assert_eq!((dark, count(Colour::Red.rgb())), (128, 128)),
                Fill::Dotted => assert!((50..75).contains(&dark), "{dark}"),
            }
            for at in 0..256 {
                let at = (at % 16, at / 16);
                assert_eq!(kind(fill).rgb_at(at), kind(fill).rgb_at((at.0 + 32, at.1 + 16)));
            }
        }
    }
}
