//! Decodes JPEG. Uses `zune-jpeg` directly, because `image` converts CMYK to RGB.
//!
//! Pillow uses libjpeg, which rounds differently in the inverse transform and the colour conversion: pixels can differ
//! by a few levels.

use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::encoded::EncodedImage;
use crate::Result;
use crate::preprocess::color_mode::ColorMode;
use crate::preprocess::input_image::InputImage;

/// Mirrors `JpegImagePlugin.py`.
pub(super) fn decode(encoded: &EncodedImage<'_>) -> Result<InputImage> {
    let damaged = |error| encoded.damaged("JPEG", error);
    let max_side = usize::from(u16::MAX);
    let options = DecoderOptions::default().set_strict_mode(false).set_max_width(max_side).set_max_height(max_side);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(encoded.bytes), options);
    decoder.decode_headers().map_err(damaged)?;
    let info = decoder.info().ok_or_else(|| encoded.damaged("JPEG", "it has no header"))?;
    let size = (u32::from(info.width), u32::from(info.height));
    encoded.check(size)?;
    let stored = decoder.input_colorspace().unwrap_or(ColorSpace::Unknown);
    let (mode, requested) = match (info.components, stored) {
        (1, _) => (ColorMode::Luma, ColorSpace::Luma),
        (3, _) => (ColorMode::Rgb, ColorSpace::RGB),
        (4, ColorSpace::YCCK) => (ColorMode::Cmyk, ColorSpace::YCCK),
        (4, _) => (ColorMode::Cmyk, ColorSpace::CMYK),
        (n, _) => return Err(encoded.unsupported(format!("a JPEG of {n} channels"))),
    };
    // Headers are parsed leniently, like in libjpeg. Missing pixels are an error.
    decoder.set_options(options.jpeg_set_out_colorspace(requested).set_strict_mode(true));
    let mut data = decoder.decode().map_err(damaged)?;
    let channels = usize::from(info.components);
    if data.len() != size.0 as usize * size.1 as usize * channels {
        return Err(encoded.damaged("JPEG", "the number of pixels differs from the header's"));
    }
    match requested {
        // Adobe stores CMYK inverted, and Pillow assumes that every CMYK file is Adobe's.
        ColorSpace::CMYK => data.iter_mut().for_each(|ink| *ink = 255 - *ink),
        ColorSpace::YCCK => data.as_chunks_mut::<4>().0.iter_mut().for_each(|pixel| *pixel = ycck_to_cmyk(*pixel)),
        _ => {}
    }
    Ok(InputImage::new(encoded.name, mode, size, channels, data).with_exif(decoder.exif().map(Vec::as_slice)))
}

/// CMYK from luma, chroma and inverted black. Mirrors libjpeg's `ycck_cmyk_convert`, followed by Pillow's inversion.
fn ycck_to_cmyk([luma, blue, red, black]: [u8; 4]) -> [u8; 4] {
    /// Fixed point with 16 fractional bits, rounded.
    const fn fixed(value: f64) -> i32 {
        (value * 65536.0 + 0.5) as i32
    }
    const HALF: i32 = 1 << 15;
    let (luma, blue, red) = (i32::from(luma), i32::from(blue) - 128, i32::from(red) - 128);
    let level = |value: i32| value.clamp(0, 255) as u8;
    [
        level(luma + ((fixed(1.402) * red + HALF) >> 16)),
        level(luma + ((-fixed(0.344_14) * blue - fixed(0.714_14) * red + HALF) >> 16)),
        level(luma + ((fixed(1.772) * blue + HALF) >> 16)),
        255 - black,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neutral_chroma_gives_neutral_inks() {
        for luma in 0..=255 {
            assert_eq!(ycck_to_cmyk([luma, 128, 128, 30]), [luma, luma, luma, 225]);
        }
        assert_eq!(ycck_to_cmyk([76, 85, 255, 255]), [254, 0, 0, 0]);
    }
}
