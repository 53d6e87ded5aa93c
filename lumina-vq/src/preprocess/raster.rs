//! Pixels in memory, and turning them as EXIF says.

use image::metadata::Orientation as Exif;

/// `width` × `height` pixels of `channels` samples, row by row, the channels of a pixel side by side.
#[derive(Debug, Clone)]
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

    /// The samples from column `left`, `width` pixels long, of row `y`.
    pub(super) fn row(&self, y: usize, left: usize, width: usize) -> &[T] {
        &self.data[(y * self.width + left) * self.channels..][..width * self.channels]
    }

    /// The pixels turned and mirrored so that the picture stands upright.
    pub(super) fn turned(&self, exif: Exif) -> Self {
        let (mirrored_x, mirrored_y, transposed) = match exif {
            Exif::NoTransforms => (false, false, false),
            Exif::FlipHorizontal => (true, false, false),
            Exif::Rotate180 => (true, true, false),
            Exif::FlipVertical => (false, true, false),
            Exif::Rotate90FlipH => (false, false, true),
            Exif::Rotate90 => (false, true, true),
            Exif::Rotate270FlipH => (true, true, true),
            Exif::Rotate270 => (true, false, true),
        };
        let (width, height) = if transposed { (self.height, self.width) } else { (self.width, self.height) };
        let mut data = Vec::with_capacity(self.data.len());
        for y in 0..height {
            for x in 0..width {
                let (x, y) = if transposed { (y, x) } else { (x, y) };
                let x = if mirrored_x { self.width - 1 - x } else { x };
                let y = if mirrored_y { self.height - 1 - y } else { y };
                data.extend_from_slice(self.row(y, x, 1));
            }
        }
        Self::new(width, height, self.channels, data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_turn_is_that_of_the_image_crate() {
        let pixels: Vec<u8> = (0..3 * 2 * 3).collect();
        let raster = Raster::new(3, 2, 3, pixels.clone());
        for value in 1..=8 {
            let exif = Exif::from_exif(value).unwrap();
            let mut expected = image::DynamicImage::from(image::RgbImage::from_raw(3, 2, pixels.clone()).unwrap());
            expected.apply_orientation(exif);
            let turned = raster.turned(exif);
            assert_eq!((turned.width as u32, turned.height as u32), (expected.width(), expected.height()));
            assert_eq!(turned.data, expected.into_bytes(), "orientation {value}");
        }
    }
}
