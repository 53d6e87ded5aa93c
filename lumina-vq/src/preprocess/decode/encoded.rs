//! The bytes of an image file, and the errors of its decoder.

use lumina_core::Limits;

use crate::{Error, Result};

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// The bytes of an image file: the input of every decoder.
pub(super) struct EncodedImage<'a> {
    /// The name in error messages.
    pub(super) name: &'a str,
    pub(super) bytes: &'a [u8],
    pub(super) limits: Limits,
}

impl EncodedImage<'_> {
    /// Checks the size in the header against the limit of pixels.
    pub(super) fn check(&self, (width, height): (u32, u32)) -> Result<()> {
        check_sides(self.name, (width, height))?;
        if u64::from(width) * u64::from(height) > self.limits.image_pixels {
            let max_pixels = self.limits.image_pixels;
            return Err(Error::TooManyPixels { image: self.name.to_owned(), width, height, max_pixels });
        }
        Ok(())
    }

    /// Checks the bytes that decoding will take against the limit: everything that is held at one time.
    pub(super) fn check_bytes(&self, bytes: u64) -> Result<()> {
        let limit = self.limits.image_bytes;
        if bytes <= limit { Ok(()) } else { Err(Error::ImageMemory { image: self.name.to_owned(), bytes, limit }) }
    }

    /// `n` zeros, or an error where the system does not have the memory.
    pub(super) fn zeroed<T: Clone + Default>(&self, n: usize) -> Result<Vec<T>> {
        let mut zeros = Vec::new();
        let bytes = (n as u64).saturating_mul(size_of::<T>() as u64);
        let limit = self.limits.image_bytes;
        zeros.try_reserve_exact(n).map_err(|_| Error::ImageMemory { image: self.name.to_owned(), bytes, limit })?;
        zeros.resize(n, T::default());
        Ok(zeros)
    }

    pub(super) fn damaged(&self, format: &'static str, cause: impl Into<Cause>) -> Error {
        Error::Decode { image: self.name.to_owned(), format, source: cause.into() }
    }

    pub(super) fn unsupported(&self, reason: impl Into<String>) -> Error {
        Error::UnsupportedImage { image: self.name.to_owned(), reason: reason.into(), source: None }
    }
}

/// Fails if an image has no pixels.
pub(in crate::preprocess) fn check_sides(image: &str, (width, height): (u32, u32)) -> Result<()> {
    if width == 0 || height == 0 {
        return Err(Error::NoPixels { image: image.to_owned(), width, height });
    }
    Ok(())
}
