//! The kinds of JPEG that cameras and programs write, decoded by `zune-jpeg`.

use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::super::encoded::EncodedImage;
use super::frame::Frame;
use super::segments::Segments;
use super::{Colors, MAX_SCANS};

/// The pixels of a file that `zune-jpeg` decodes right, up to rounding; `None` for others. `scan` is the header of the
/// first scan.
pub(super) fn decode(encoded: &EncodedImage<'_>, frame: &Frame, colors: Colors, scan: &[u8]) -> Option<Vec<u8>> {
    let n = frame.components.len();
    let one_scan = scan.first().is_some_and(|&in_scan| usize::from(in_scan) == n);
    let usual = match &frame.components[..] {
        [grey] => (grey.h, grey.v) == (1, 1),
        [luma, chroma @ ..] if n == 3 => {
            luma.h <= 2 && luma.v <= 2 && chroma.iter().all(|component| (component.h, component.v) == (1, 1))
        }
        _ => false,
    };
    // libjpeg treats narrow components in its own way.
    let wide = frame.components.iter().all(|component| component.width > 2 && component.height > 2);
    if !usual || !wide || (!frame.progressive && !one_scan) || n_scans(encoded, frame) > MAX_SCANS {
        return None;
    }
    let planes: usize = frame.components.iter().map(|component| 64 * component.n_blocks()).sum();
    let n_samples = frame.width * frame.height * n;
    let coefficients = if frame.progressive { 2 * planes } else { 0 };
    encoded.check_bytes((coefficients + n_samples) as u64).ok()?;

    let (stored, requested) = match colors {
        Colors::Grey => (ColorSpace::Luma, ColorSpace::Luma),
        Colors::YCbCr => (ColorSpace::YCbCr, ColorSpace::RGB),
        _ => return None,
    };
    let max_side = usize::from(u16::MAX);
    let options = DecoderOptions::default().set_strict_mode(false).set_max_width(max_side).set_max_height(max_side);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(encoded.bytes), options);
    decoder.decode_headers().ok()?;
    if decoder.input_colorspace() != Some(stored) {
        return None;
    }
    // Headers are parsed leniently, like in libjpeg. Missing pixels are an error.
    decoder.set_options(options.jpeg_set_out_colorspace(requested).set_strict_mode(true));
    decoder.decode().ok().filter(|pixels| pixels.len() == n_samples)
}

/// The number of scans of a progressive file. Files of one scan are not searched.
fn n_scans(encoded: &EncodedImage<'_>, frame: &Frame) -> usize {
    if !frame.progressive {
        return 1;
    }
    let mut segments = Segments::new(encoded.bytes);
    std::iter::from_fn(|| segments.next().ok().flatten()).filter(|(marker, _)| *marker == 0xDA).count()
}
