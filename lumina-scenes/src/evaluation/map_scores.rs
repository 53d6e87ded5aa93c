//! Compares maps and images pixel by pixel.

use image::{Rgb, RgbImage};

use crate::{BACKGROUND_CLASS_RGB, BACKGROUND_DEPTH, Error, ObjectShape, ObjectSize, Result};

/// The largest depth error of a correct pixel, where 0 is black and 1 is white.
pub const DEPTH_TOLERANCE: f64 = 0.1;
/// The depths of correct maps.
const DEPTHS: [u8; 3] = [BACKGROUND_DEPTH, ObjectSize::Small.depth(), ObjectSize::Large.depth()];
/// The number of segmentation classes: background and shapes.
const N_CLASSES: usize = ObjectShape::ALL.len() + 1;

/// Pairs of pixels of two images of one size.
fn pixels<'a>(
    first: &'a RgbImage,
    second: &'a RgbImage,
) -> Result<impl Iterator<Item = (&'a Rgb<u8>, &'a Rgb<u8>)> + 'a> {
    if first.dimensions() != second.dimensions() {
        return Err(Error::SizeMismatch { first: first.dimensions(), second: second.dimensions() });
    }
    Ok(first.pixels().zip(second.pixels()))
}

/// Intersection over union of segmentation maps, accumulated over a dataset.
///
/// ```
/// use lumina_scenes::evaluation::SegmentationScore;
/// use lumina_scenes::{Scenes, Split};
///
/// let scenes = Scenes::new(5, Split::Test, 256)?;
/// let mut score = SegmentationScore::default();
/// for scene in (0..4).map(|index| scenes.scene(index)) {
///     score.add(&scene.segmentation_map(), &scene.segmentation_map())?;
/// }
/// assert_eq!(score.mean_iou(), Some(1.0));
/// # Ok::<(), lumina_scenes::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SegmentationScore {
    intersections: [u64; N_CLASSES],
    unions: [u64; N_CLASSES],
    /// Pixels of the correct maps.
    expected: [u64; N_CLASSES],
}

impl SegmentationScore {
    /// Adds a predicted map and the correct one. A pixel belongs to the class with the nearest colour.
    ///
    /// # Errors
    /// [`Error::SizeMismatch`] if their sizes differ; nothing is added then.
    pub fn add(&mut self, predicted: &RgbImage, expected: &RgbImage) -> Result<()> {
        for (predicted, expected) in pixels(predicted, expected)? {
            let (predicted, expected) = (class(predicted), class(expected));
            self.expected[expected] += 1;
            self.unions[expected] += 1;
            if predicted == expected {
                self.intersections[expected] += 1;
            } else {
                self.unions[predicted] += 1;
            }
        }
        Ok(())
    }

    /// Adds the pixels of another score.
    pub fn merge(&mut self, other: &Self) {
        for index in 0..N_CLASSES {
            self.intersections[index] += other.intersections[index];
            self.unions[index] += other.unions[index];
            self.expected[index] += other.expected[index];
        }
    }

    /// Intersection over union of a class; the class `None` is the background. Returns `None` if no map contains it.
    pub fn iou(&self, class: Option<ObjectShape>) -> Option<f64> {
        let index = class.and_then(|class| ObjectShape::ALL.into_iter().position(|shape| shape == class));
        self.iou_at(index.map_or(0, |index| index + 1))
    }

    /// The mean over the classes that occur in any map; `None` if there are none.
    pub fn mean_iou(&self) -> Option<f64> {
        let ious: Vec<f64> = (0..N_CLASSES).filter_map(|index| self.iou_at(index)).collect();
        (!ious.is_empty()).then(|| ious.iter().sum::<f64>() / ious.len() as f64)
    }

    /// The least over the classes that occur in any correct map; `None` if there are none.
    pub fn min_iou(&self) -> Option<f64> {
        let ious = (0..N_CLASSES).filter(|&index| self.expected[index] > 0).filter_map(|index| self.iou_at(index));
        ious.min_by(f64::total_cmp)
    }

    fn iou_at(&self, index: usize) -> Option<f64> {
        (self.unions[index] > 0).then(|| self.intersections[index] as f64 / self.unions[index] as f64)
    }
}

/// The index of the class with the nearest colour; 0 is the background.
fn class(pixel: &Rgb<u8>) -> usize {
    let distance =
        |colour: &[u8; 3]| -> u32 { colour.iter().zip(pixel.0).map(|(&a, b)| u32::from(a.abs_diff(b)).pow(2)).sum() };
    let colours = std::iter::once(BACKGROUND_CLASS_RGB).chain(ObjectShape::ALL.into_iter().map(ObjectShape::class_rgb));
    colours.enumerate().min_by_key(|(_, colour)| distance(colour)).map_or(0, |(index, _)| index)
}

/// The error of depth maps, accumulated over a dataset.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct DepthScore {
    error_sum: f64,
    /// Of each of [`DEPTHS`], by the nearest to the correct depth.
    n_within_tolerance: [u64; DEPTHS.len()],
    n_pixels: [u64; DEPTHS.len()],
}

impl DepthScore {
    /// Adds a predicted map and the correct one. The depth of a pixel is the mean of its channels.
    ///
    /// # Errors
    /// [`Error::SizeMismatch`] if their sizes differ; nothing is added then.
    pub fn add(&mut self, predicted: &RgbImage, expected: &RgbImage) -> Result<()> {
        for (predicted, expected) in pixels(predicted, expected)? {
            let depth = |pixel: &Rgb<u8>| pixel.0.map(f64::from).iter().sum::<f64>() / (3.0 * 255.0);
            let error = (depth(predicted) - depth(expected)).abs();
            self.error_sum += error;
            let distance = |index: &usize| DEPTHS[*index].abs_diff(expected.0[0]);
            let nearest = (0..DEPTHS.len()).min_by_key(distance).unwrap_or(0);
            self.n_within_tolerance[nearest] += u64::from(error <= DEPTH_TOLERANCE);
            self.n_pixels[nearest] += 1;
        }
        Ok(())
    }

    /// Adds the pixels of another score.
    pub fn merge(&mut self, other: &Self) {
        self.error_sum += other.error_sum;
        for index in 0..DEPTHS.len() {
            self.n_within_tolerance[index] += other.n_within_tolerance[index];
            self.n_pixels[index] += other.n_pixels[index];
        }
    }

    /// The mean absolute error of a pixel, 0 to 1; `None` if there are no pixels.
    pub fn mean_absolute_error(&self) -> Option<f64> {
        let n_pixels: u64 = self.n_pixels.iter().sum();
        (n_pixels > 0).then(|| self.error_sum / n_pixels as f64)
    }

    /// The fraction of pixels within [`DEPTH_TOLERANCE`]; `None` if there are no pixels.
    pub fn fraction_within_tolerance(&self) -> Option<f64> {
        let [n_within, n_pixels]: [u64; 2] = [self.n_within_tolerance, self.n_pixels].map(|of| of.iter().sum());
        (n_pixels > 0).then(|| n_within as f64 / n_pixels as f64)
    }

    /// The least fraction within [`DEPTH_TOLERANCE`] of the background, of the small and of the large objects; `None`
    /// if there are no pixels. A map without an object has most pixels right, but hardly any of that object.
    pub fn min_fraction_within_tolerance(&self) -> Option<f64> {
        let depths = self.n_within_tolerance.into_iter().zip(self.n_pixels).filter(|&(_, n_pixels)| n_pixels > 0);
        depths.map(|(n_within, n_pixels)| n_within as f64 / n_pixels as f64).min_by(f64::total_cmp)
    }
}

/// Peak signal-to-noise ratio of two images in dB, over all channels; infinite if they are equal.
///
/// # Errors
/// [`Error::SizeMismatch`] if their sizes differ.
pub fn psnr(first: &RgbImage, second: &RgbImage) -> Result<f64> {
    let mut squares = 0u64;
    for (first, second) in pixels(first, second)? {
        squares += first.0.iter().zip(second.0).map(|(&a, b)| u64::from(a.abs_diff(b)).pow(2)).sum::<u64>();
    }
    let n_values = first.as_raw().len() as f64;
    Ok(if squares == 0 { f64::INFINITY } else { 10.0 * (255.0 * 255.0 * n_values / squares as f64).log10() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iou_is_computed_by_class() {
        let [background, circle, cross] =
            [BACKGROUND_CLASS_RGB, ObjectShape::Circle.class_rgb(), ObjectShape::Cross.class_rgb()];
        let row = |colours: [[u8; 3]; 4]| RgbImage::from_raw(4, 1, colours.concat()).unwrap();
        let mut score = SegmentationScore::default();
        assert_eq!(score.mean_iou(), None);
        score.add(&row([background, circle, circle, cross]), &row([background, background, circle, cross])).unwrap();
        assert_eq!(score.iou(None), Some(0.5));
        assert_eq!(score.iou(Some(ObjectShape::Circle)), Some(0.5));
        assert_eq!(score.iou(Some(ObjectShape::Cross)), Some(1.0));
        assert_eq!(score.iou(Some(ObjectShape::Square)), None);
        assert_eq!(score.mean_iou(), Some(2.0 / 3.0));
        // Pixels are accumulated over images; scores are not averaged.
        score.add(&row([cross; 4]), &row([circle; 4])).unwrap();
        assert_eq!(score.iou(Some(ObjectShape::Circle)), Some(1.0 / 6.0));
        assert_eq!(score.iou(Some(ObjectShape::Cross)), Some(1.0 / 5.0));
        // A class that is in no correct map counts as error of those that are.
        let square = ObjectShape::Square.class_rgb();
        let mut score = SegmentationScore::default();
        score.add(&row([background, circle, circle, square]), &row([background, circle, circle, circle])).unwrap();
        assert_eq!((score.iou(Some(ObjectShape::Square)), score.min_iou()), (Some(0.0), Some(2.0 / 3.0)));
        let other = RgbImage::new(4, 2);
        let message = score.add(&other, &row([cross; 4])).unwrap_err().to_string();
        assert!(message.contains("4x2 and 4x1"), "{message}");
    }

    #[test]
    fn depth_errors_are_relative_to_the_range() {
        let grey = |value: u8| RgbImage::from_pixel(2, 2, Rgb([value; 3]));
        let mut score = DepthScore::default();
        assert_eq!((score.mean_absolute_error(), score.fraction_within_tolerance()), (None, None));
        score.add(&grey(51), &grey(51)).unwrap();
        score.add(&grey(0), &grey(51)).unwrap();
        assert!((score.mean_absolute_error().unwrap() - 0.1).abs() < 1e-12);
        assert_eq!(score.fraction_within_tolerance(), Some(0.5));
        assert!(score.add(&grey(0), &RgbImage::new(1, 1)).is_err());
        // One pixel of five is of a small object, and missing.
        let row = |last: u8| RgbImage::from_raw(5, 1, [[DEPTHS[0]; 12].as_slice(), &[last; 3]].concat()).unwrap();
        let mut score = DepthScore::default();
        score.add(&row(DEPTHS[0]), &row(DEPTHS[1])).unwrap();
        assert_eq!((score.fraction_within_tolerance(), score.min_fraction_within_tolerance()), (Some(0.8), Some(0.0)));
    }

    #[test]
    fn psnr_equals_its_definition() {
        let grey = |value: u8| RgbImage::from_pixel(3, 2, Rgb([value; 3]));
        assert_eq!(psnr(&grey(9), &grey(9)).unwrap(), f64::INFINITY);
        assert!((psnr(&grey(0), &grey(255)).unwrap()).abs() < 1e-12);
        // 20 * log10(255 / 10)
        assert!((psnr(&grey(100), &grey(110)).unwrap() - 28.1308).abs() < 1e-4);
        assert!(psnr(&grey(0), &RgbImage::new(1, 1)).is_err());
    }
}
