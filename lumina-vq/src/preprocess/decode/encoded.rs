//! The bytes of an image file, and the errors of its decoder.

use crate::preprocess::limits::Limits;
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
    /// Checks the size in the header against the limits.
    pub(super) fn check(&self, size: (u32, u32)) -> Result<()> {
        self.limits.check(self.name, size)
    }

    pub(super) fn damaged(&self, format: &'static str, cause: impl Into<Cause>) -> Error {
        Error::Decode { image: self.name.to_owned(), format, source: cause.into() }
    }

    pub(super) fn unsupported(&self, reason: impl Into<String>) -> Error {
        Error::UnsupportedImage { image: self.name.to_owned(), reason: reason.into(), source: None }
    }

    /// The error of a format whose decoder does not support this file.
    pub(super) fn unsupported_kind(&self, format: &'static str, cause: impl Into<Cause>) -> Error {
        let reason = format!("a {format} of an unsupported kind");
        Error::UnsupportedImage { image: self.name.to_owned(), reason, source: Some(cause.into()) }
    }
}
