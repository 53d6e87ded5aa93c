//! Alpha around resizing, and the conversion to RGB, by Pillow's rules (`libImaging/Convert.c`).

use super::color_mode::ColorMode;
use super::raster::Raster;
use super::resample::Sample;

/// `a * b / 255`, rounded: Pillow's `MULDIV255`.
fn multiply(a: u8, b: u8) -> u8 {
    let product = u32::from(a) * u32::from(b) + 128;
    (((product >> 8) + product) >> 8) as u8
}

/// Multiplies colours by alpha, the last channel: RGBA → RGBa, LA → La.
pub(super) fn premultiply(source: &Raster<u8>) -> Raster<u8> {
    let mut raster = source.clone();
    for pixel in raster.data.chunks_exact_mut(raster.channels) {
        if let Some((&mut alpha, colors)) = pixel.split_last_mut() {
            colors.iter_mut().for_each(|color| *color = multiply(*color, alpha));
        }
    }
    raster
}

/// Divides colours by alpha, the last channel: RGBa → RGBA, La → LA.
pub(super) fn unpremultiply(raster: &mut Raster<u8>) {
    for pixel in raster.data.chunks_exact_mut(raster.channels) {
        if let Some((&mut alpha, colors)) = pixel.split_last_mut()
            && !matches!(alpha, 0 | 255)
        {
            let divide = |color: u8| (255 * u32::from(color) / u32::from(alpha)).min(255) as u8;
            colors.iter_mut().for_each(|color| *color = divide(*color));
        }
    }
}

/// Converts 16 or 32 bits to 8 like Pillow: values are clamped to 0..=255, not scaled.
pub(super) fn clamp_to_u8<T: Sample>(raster: &Raster<T>) -> Raster<u8> {
    let data = raster.data.iter().map(|value| value.clamp_to_u8()).collect();
    Raster::new(raster.width, raster.height, raster.channels, data)
}

/// Converts to RGB and blends transparent pixels with white. Mirrors `_whiten_transparency`.
///
/// `transparent` is the grey value that the file declares transparent.
pub(super) fn to_rgb(raster: Raster<u8>, mode: ColorMode, transparent: Option<u8>) -> Vec<u8> {
    let pixels = raster.data.chunks_exact(raster.channels);
    match (mode, raster.channels) {
        (ColorMode::Cmyk, _) => pixels.flat_map(cmyk_to_rgb).collect(),
        (_, 1) => pixels.flat_map(|grey| if transparent == Some(grey[0]) { [255; 3] } else { [grey[0]; 3] }).collect(),
        (_, 2) => pixels.flat_map(|pixel| [on_white(pixel[0], pixel[1]); 3]).collect(),
        (_, 4) => pixels.flat_map(|pixel| [0, 1, 2].map(|channel| on_white(pixel[channel], pixel[3]))).collect(),
        _ => raster.data,
    }
}

/// Blends a colour with white in `f64` and truncates to 8 bits, like NumPy in the original. Opaque colours are
/// unchanged.
fn on_white(color: u8, alpha: u8) -> u8 {
    let alpha = f64::from(alpha) / 255.0;
    ((1.0 - alpha) * 255.0 + alpha * f64::from(color)) as u8
}

/// CMYK to RGB without a colour profile.
fn cmyk_to_rgb(pixel: &[u8]) -> [u8; 3] {
    let light = 255 - pixel[3];
    [0, 1, 2].map(|channel| light - multiply(pixel[channel], light))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opaque_and_transparent_pixels_are_exact() {
        for color in 0..=255 {
            assert_eq!(on_white(color, 255), color);
            assert_eq!(on_white(color, 0), 255);
            let mut raster = premultiply(&Raster::new(1, 1, 2, vec![color, 255]));
            unpremultiply(&mut raster);
            assert_eq!(raster.data, [color, 255]);
        }
    }

    #[test]
    fn cmyk_is_converted_to_rgb() {
        assert_eq!(cmyk_to_rgb(&[0, 0, 0, 0]), [255; 3]);
        assert_eq!(cmyk_to_rgb(&[255, 0, 0, 0]), [0, 255, 255]);
        assert_eq!(cmyk_to_rgb(&[9, 9, 9, 255]), [0; 3]);
    }

    #[test]
    fn the_transparent_grey_becomes_white() {
        let rgb = to_rgb(Raster::new(2, 1, 1, vec![7, 8]), ColorMode::Luma, Some(7));
        assert_eq!(rgb, [255, 255, 255, 8, 8, 8]);
    }
}
