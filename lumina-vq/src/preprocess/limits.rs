//! The size at which an image is refused.

use crate::{Error, Result};

/// The largest image that is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    max_pixels: u64,
}

impl Default for Limits {
    /// 178,956,970 pixels of at most 8 bytes: above it Pillow refuses a file as a decompression bomb.
    fn default() -> Self {
        Self { max_pixels: 178_956_970 }
    }
}

impl Limits {
    /// Refuses images of more than `max_pixels`. A pixel needs up to 8 bytes while it is decoded.
    pub fn max_pixels(mut self, max_pixels: u64) -> Self {
        self.max_pixels = max_pixels;
        self
    }

    /// The most bytes that a decoder may allocate for pixels.
    pub(super) fn max_bytes(self) -> u64 {
        self.max_pixels.saturating_mul(8)
    }

    /// Fails if an image has too many pixels or none. `name` is its name in error messages.
    pub(super) fn check(self, name: &str, (width, height): (u32, u32)) -> Result<()> {
        let image = || name.to_owned();
        if width == 0 || height == 0 {
            return Err(Error::NoPixels { image: image(), width, height });
        }
        if u64::from(width) * u64::from(height) > self.max_pixels {
            return Err(Error::TooManyPixels { image: image(), width, height, max_pixels: self.max_pixels });
        }
        Ok(())
    }
}
