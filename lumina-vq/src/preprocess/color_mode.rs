//! How an image stores its colours.

use std::fmt;

/// How an image stores its colours. The mode decides how the image is resized. `Display` writes Pillow's name of it.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ColorMode {
    /// `1`: black and white. Resized by the nearest pixel.
    Bilevel,
    /// `P`: indices of a palette, which may have alpha. Resized by the nearest pixel.
    Palette,
    /// `L`: grey.
    Luma,
    /// `LA`: grey and alpha.
    LumaAlpha,
    /// `I;16`: 16-bit grey. Values above 255 all become white.
    Luma16,
    /// `I`: grey of signed 16 bits or of 32 bits, clamped to 0..=255 after resizing.
    Integer,
    /// `F`: grey of 32-bit floats, clamped to 0..=255 after resizing.
    Float,
    /// `RGB`.
    Rgb,
    /// `RGBA`.
    Rgba,
    /// `CMYK`.
    Cmyk,
}

impl ColorMode {
    /// Whether resizing uses the nearest pixel instead of a filter.
    pub(super) fn is_nearest(self) -> bool {
        matches!(self, Self::Bilevel | Self::Palette)
    }

    /// Whether colours are multiplied by alpha before resizing, and divided by it afterwards.
    pub(super) fn is_premultiplied(self) -> bool {
        matches!(self, Self::LumaAlpha | Self::Rgba)
    }
}

impl fmt::Display for ColorMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bilevel => "1",
            Self::Palette => "P",
            Self::Luma => "L",
            Self::LumaAlpha => "LA",
            Self::Luma16 => "I;16",
            Self::Integer => "I",
            Self::Float => "F",
            Self::Rgb => "RGB",
            Self::Rgba => "RGBA",
            Self::Cmyk => "CMYK",
        })
    }
}
