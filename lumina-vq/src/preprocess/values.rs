//! Converts between 8-bit images and the values of the VQGAN.

use image::RgbImage;

use crate::{Error, Result};

/// The VQ encoder's input for an image, `[3, height, width]`: `value / 255 * 2 - 1`, computed in `f64` and rounded to
/// `f32`.
///
/// Mirrors `ImageTokenizer._vqgan_input_from`.
pub fn to_tensor_values(image: &RgbImage) -> Vec<f32> {
    let table: [f32; 256] = std::array::from_fn(|value| (value as f64 / 255.0 * 2.0 - 1.0) as f32);
    let mut values = Vec::with_capacity(image.as_raw().len());
    for channel in 0..3 {
        values.extend(image.pixels().map(|pixel| table[usize::from(pixel.0[channel])]));
    }
    values
}

/// The image of a VQ decoder's output, `[3, height, width]`: values are clamped to -1..=1, mapped to
/// `(value + 1) / 2 * 255` and truncated (not rounded) to 8 bits. NaN becomes 0.
///
/// Mirrors `ImageTokenizer._pil_from_chw_tensor`.
///
/// # Errors
/// [`Error::PixelValues`] if there are not 3 values for each pixel.
pub fn to_image(values: &[f32], width: u32, height: u32) -> Result<RgbImage> {
    let wrong = || Error::PixelValues { found: values.len(), width, height };
    let n_pixels = u64::from(width) * u64::from(height);
    if n_pixels.checked_mul(3) != Some(values.len() as u64) {
        return Err(wrong());
    }
    let (red, rest) = values.split_at(values.len() / 3);
    let (green, blue) = rest.split_at(red.len());
    let byte = |value: f32| ((value.clamp(-1.0, 1.0) + 1.0) / 2.0 * 255.0) as u8;
    let pixels = red.iter().zip(green).zip(blue).flat_map(|((&r, &g), &b)| [byte(r), byte(g), byte(b)]).collect();
    RgbImage::from_raw(width, height, pixels).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_trip_loses_at_most_the_truncation() {
        let image = RgbImage::from_fn(256, 1, |x, _| image::Rgb([x as u8, 255 - x as u8, 7]));
        let values = to_tensor_values(&image);
        assert_eq!((values[0], values[255], values[256]), (-1.0, 1.0, 1.0));
        let back = to_image(&values, 256, 1).unwrap();
        assert!(image.iter().zip(back.iter()).all(|(a, b)| a.abs_diff(*b) <= 1));
    }

    #[test]
    fn values_out_of_range_are_clamped() {
        let back = to_image(&[2.0, f32::NEG_INFINITY, f32::NAN], 1, 1).unwrap();
        assert_eq!(back.as_raw(), &[255, 0, 0]);
    }

    #[test]
    fn a_wrong_number_of_values_is_an_error() {
        for (n, width, height) in [(2, 1, 1), (3, 0, 1), (0, u32::MAX, u32::MAX)] {
            let message = to_image(&vec![0.0; n], width, height).unwrap_err().to_string();
            assert!(message.contains(&format!("{n} values")), "{message}");
        }
        assert!(to_image(&[], 0, 7).is_ok_and(|image| image.dimensions() == (0, 7)));
    }
}
