//! Finds the backdrop of an image.

use image::RgbImage;

use super::distance::{ColourLine, squared_distance};
use crate::attributes::SHADE_HEIGHT_PX;
use crate::{Backdrop, Background, Colour};

/// Pixels further than this from the colour of their row do not belong to the backdrop; a Euclidean distance in 8-bit
/// RGB.
const MAX_DISTANCE: i32 = 60;
/// The smallest fraction of pixels that belong to the backdrop. The largest object leaves a quarter of the smallest
/// image.
const MIN_FRACTION: f64 = 0.1;
/// The largest distance of the mean of the backdrop's pixels from their rows' colours.
const MAX_MEAN_DISTANCE: f32 = 40.0;

/// How well a backdrop explains an image.
#[derive(Clone, Copy)]
struct Fit {
    backdrop: Backdrop,
    /// The squared distances of all pixels, each at most the square of [`MAX_DISTANCE`].
    loss: u64,
    n_pixels: u64,
    /// The sum of the differences of the pixels that belong to it.
    difference: [i64; 3],
}

impl Fit {
    fn new(image: &RgbImage, backdrop: Backdrop) -> Self {
        let mut fit = Self { backdrop, loss: 0, n_pixels: 0, difference: [0; 3] };
        for (y, row) in (0..).zip(image.rows()) {
            let behind = backdrop.rgb(y);
            for pixel in row {
                let squared = squared_distance(pixel.0, behind);
                if squared <= MAX_DISTANCE * MAX_DISTANCE {
                    fit.loss += u64::from(squared.unsigned_abs());
                    fit.n_pixels += 1;
                    for (sum, (channel, behind)) in fit.difference.iter_mut().zip(pixel.0.into_iter().zip(behind)) {
                        *sum += i64::from(channel) - i64::from(behind);
                    }
                } else {
                    fit.loss += u64::from((MAX_DISTANCE * MAX_DISTANCE).unsigned_abs());
                }
            }
        }
        fit
    }

    fn is_acceptable(&self, image: &RgbImage) -> bool {
        let all = f64::from(image.width()) * f64::from(image.height());
        let mean = self.difference.map(|sum| sum as f32 / self.n_pixels.max(1) as f32);
        self.n_pixels as f64 >= MIN_FRACTION * all
            && mean.iter().map(|channel| channel * channel).sum::<f32>() <= MAX_MEAN_DISTANCE * MAX_MEAN_DISTANCE
    }
}

/// The backdrop that explains most pixels; `None` if none explains enough.
pub(super) fn detect_backdrop(image: &RgbImage) -> Option<Backdrop> {
    if image.is_empty() {
        return None;
    }
    let best = Backdrop::all().map(|backdrop| Fit::new(image, backdrop)).min_by_key(|fit| fit.loss)?;
    let background = best.backdrop.background;
    let shaded = is_shaded(image, background).unwrap_or(best.backdrop.shaded);
    best.is_acceptable(image).then_some(Backdrop { background, shaded })
}

/// Whether the background changes from top to bottom as a shaded one does; `None` if the image shows too little of it.
///
/// An error that is the same in all rows makes no difference: noise at white makes an image darker than a shade that
/// has just begun.
fn is_shaded(image: &RgbImage, background: Background) -> Option<bool> {
    let [plain, shaded] = [false, true].map(|shaded| Backdrop { background, shaded });
    // From no shade, 0, to all of it, 1.
    let shade = ColourLine::new(plain.rgb(0), shaded.rgb(SHADE_HEIGHT_PX));

    let object_colours: Vec<[u8; 3]> = Colour::ALL.into_iter().flat_map(Colour::bright_and_dark_rgb).collect();
    // Of each row: its place, the median of its pixels, and their number.
    let mut rows: Vec<(f64, f64, f64)> = Vec::new();
    let mut shades: Vec<f32> = Vec::new();
    for (y, row) in (0..).zip(image.rows()) {
        let behind = [plain.rgb(y), shaded.rgb(y)];
        let belongs = |rgb: [u8; 3]| {
            let squared = behind.map(|at| squared_distance(rgb, at)).into_iter().min().unwrap_or(i32::MAX);
            // Dark stripes can be near a shaded black, and fill most of a row.
            squared <= MAX_DISTANCE * MAX_DISTANCE
                && object_colours.iter().all(|&at| squared_distance(rgb, at) > squared)
        };
        shades.clear();
        shades.extend(row.map(|pixel| pixel.0).filter(|&rgb| belongs(rgb)).map(|rgb| shade.along(rgb)));
        if shades.len() * 10 >= image.width() as usize {
            let middle = shades.len() / 2;
            let (_, median, _) = shades.select_nth_unstable_by(middle, f32::total_cmp);
            let place = f64::from(y.min(SHADE_HEIGHT_PX)) / f64::from(SHADE_HEIGHT_PX);
            rows.push((place, f64::from(*median), shades.len() as f64));
        }
    }

    // The slope of the line through the rows with the least squared error: 0 if plain, 1 if shaded.
    let total: f64 = rows.iter().map(|row| row.2).sum();
    let mean = |of: &dyn Fn(&(f64, f64, f64)) -> f64| rows.iter().map(|row| row.2 * of(row)).sum::<f64>() / total;
    let (place, shade) = (mean(&|row| row.0), mean(&|row| row.1));
    let variance = mean(&|row| (row.0 - place).powi(2));
    let slope = mean(&|row| (row.0 - place) * (row.1 - shade)) / variance;
    (variance > 0.0).then_some(slope > 0.5)
}
