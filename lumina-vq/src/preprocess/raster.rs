//! Decoded pixels, and applying an EXIF orientation to them.

use image::metadata::Orientation as ExifOrientation;

/// `width` × `height` pixels of `channels` samples: `[height, width, channels]`.
#[derive(Clone)]
pub(super) struct Raster<T> {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) channels: usize,
    pub(super) data: Vec<T>,
}

impl<T: Copy> Raster<T> {
    pub(super) fn new(width: usize, height: usize, channels: usize, data: Vec<T>) -> Self {
        debug_assert_eq!(data.len(), width * height * channels);
        Self { width, height, channels, data }
    }

    /// The samples of `width` pixels of row `y`, from column `left`.
    pub(super) fn row(&self, y: usize, left: usize, width: usize) -> &[T] {
        &self.data[(y * self.width + left) * self.channels..][..width * self.channels]
    }

    /// Rotates and mirrors the pixels as the orientation says, so that the image is upright.
    pub(super) fn oriented(&self, exif: ExifOrientation) -> Self {
        let (mirror_x, mirror_y, transposed) = match exif {
            ExifOrientation::NoTransforms => (false, false, false),
            ExifOrientation::FlipHorizontal => (true, false, false),
            ExifOrientation::Rotate180 => (true, true, false),
            ExifOrientation::FlipVertical => (false, true, false),
            ExifOrientation::Rotate90FlipH => (false, false, true),
            ExifOrientation::Rotate90 => (false, true, true),
            ExifOrientation::Rotate270FlipH => (true, true, true),
            ExifOrientation::Rotate270 => (true, false, true),
        };
        let (width, height) = if transposed { (self.height, self.width) } else { (self.width, self.height) };
        let mut data = Vec::with_capacity(self.data.len());
        for y in 0..height {
            for x in 0..width {
                let (x, y) = if transposed { (y, x) } else { (x, y) };
                let x = if mirror_x { self.width - 1 - x } else { x };
                let y = if mirror_y { self.height - 1 - y } else { y };
                data.extend_from_slice(self.row(y, x, 1));
            }
        }
        Self::new(width, height, self.channels, data)
    }
}

impl<T> std::fmt::Debug for Raster<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{} pixels of {} channels", self.width, self.height, self.channels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_orientation_equals_the_image_crates() {
        let pixels: Vec<u8> = (0..3 * 2 * 3).collect();
        let raster = Raster::new(3, 2, 3, pixels.clone());
        for value in 1..=8 {
            let exif = ExifOrientation::from_exif(value).unwrap();
            let mut expected = image::DynamicImage::from(image::RgbImage::from_raw(3, 2, pixels.clone()).unwrap());
            expected.apply_orientation(exif);
            let oriented = raster.oriented(exif);
            assert_eq!((oriented.width as u32, oriented.height as u32), (expected.width(), expected.height()));
            assert_eq!(oriented.data, expected.into_bytes(), "orientation {value}");
        }
    }
}
