//! How well a tokenizer reconstructs images.

use image::RgbImage;
use lumina_vq::{Bands, ImageTokenizer};

use super::codebook::perplexity;
use crate::{Error, Result};

/// How well a tokenizer reconstructs images, and how it uses its codebook for them.
#[derive(Debug, Clone, PartialEq)]
pub struct VqReport {
    /// Number of images.
    pub images: usize,
    /// The mean of the images' peak signal-to-noise ratios of 8-bit values, in decibels. An image without any error
    /// counts with that of half a level, 54.2.
    pub mean_psnr_db: f64,
    /// The ratio of the mean squared error over all images, in decibels: bad images weigh more.
    pub psnr_db: f64,
    /// Codes that occurred.
    pub codes_used: usize,
    /// Entries of the codebook.
    pub n_codes: usize,
    /// The number of codes that, used evenly, would carry as much information.
    pub perplexity: f64,
}

/// Encodes and decodes images one after the other, for a caller that looks at the results.
#[derive(Debug)]
pub struct VqEvaluation<'a> {
    tokenizer: &'a ImageTokenizer,
    /// How often each code occurred.
    counts: Vec<f32>,
    images: usize,
    sum_psnr: f64,
    sum_mse: f64,
}

impl<'a> VqEvaluation<'a> {
    /// An evaluation of no image so far.
    pub fn new(tokenizer: &'a ImageTokenizer) -> Self {
        let counts = vec![0.0; tokenizer.config().n_codes()];
        Self { tokenizer, counts, images: 0, sum_psnr: 0.0, sum_mse: 0.0 }
    }

    /// Encodes and decodes an image, and returns what becomes of it.
    ///
    /// # Errors
    /// [`Error::Images`] where it cannot be encoded.
    pub fn reconstruct(&mut self, image: &RgbImage) -> Result<RgbImage> {
        let codes = self.tokenizer.encode(image)?;
        for &code in codes.codes() {
            self.counts[code as usize] += 1.0;
        }
        let decoded = self.tokenizer.decode(&codes, Bands::Whole)?;
        let squares = image.iter().zip(decoded.iter()).map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2));
        let mse = squares.sum::<f64>() / image.len() as f64;
        self.images += 1;
        self.sum_psnr += psnr_db(mse, 255.0);
        self.sum_mse += mse;
        Ok(decoded)
    }

    /// The report of the images so far.
    ///
    /// # Errors
    /// [`Error::NoImages`].
    pub fn report(&self) -> Result<VqReport> {
        if self.images == 0 {
            return Err(Error::NoImages);
        }
        let n = self.images as f64;
        Ok(VqReport {
            images: self.images,
            mean_psnr_db: self.sum_psnr / n,
            psnr_db: psnr_db(self.sum_mse / n, 255.0),
            codes_used: self.counts.iter().filter(|&&count| count > 0.0).count(),
            n_codes: self.counts.len(),
            perplexity: perplexity(&self.counts),
        })
    }
}

/// Encodes and decodes images, each on its own.
///
/// # Errors
/// [`Error::NoImages`], [`Error::Images`] where one cannot be encoded.
pub fn evaluate_vq(tokenizer: &ImageTokenizer, images: impl IntoIterator<Item = RgbImage>) -> Result<VqReport> {
    let mut evaluation = VqEvaluation::new(tokenizer);
    for image in images {
        evaluation.reconstruct(&image)?;
    }
    evaluation.report()
}

/// The peak signal-to-noise ratio in decibels of a mean squared error, of values with this range. Errors below half a
/// level of 8 bits count as half a level.
pub(super) fn psnr_db(mse: f64, range: f64) -> f64 {
    let smallest = (range / 255.0 / 2.0).powi(2);
    10.0 * (range * range / mse.max(smallest)).log10()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decibels_of_known_errors() {
        assert!((psnr_db(650.25, 255.0) - 20.0).abs() < 1e-9);
        // A tenth of the range, whatever the range is.
        assert!((psnr_db(0.04, 2.0) - 20.0).abs() < 1e-9);
        assert!((psnr_db(0.0, 255.0) - 54.151).abs() < 1e-3);
        assert!((psnr_db(0.0, 2.0) - psnr_db(0.0, 255.0)).abs() < 1e-9);
    }
}
