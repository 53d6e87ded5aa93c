//! Sizes of images: in pixels, in 32-pixel cells (what the stream states) and in 16-pixel latents (one code each).

use crate::{Error, Result};

/// Pixels a side of a cell, the unit in which the stream states an image's size.
pub const CELL_PX: u32 = 32;
/// Pixels a side of the square that one code stands for.
pub const LATENT_PX: u32 = 16;

/// The size of an image in the stream: both sides are positive multiples of [`CELL_PX`].
///
/// ```
/// let size = lumina_core::ImageSize::new(768, 512)?;
/// assert_eq!((size.latent_rows(), size.latent_columns()), (32, 48));
/// assert_eq!(size.n_tokens(), 32 * 49 + 4);
/// # Ok::<(), lumina_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "(u32, u32)", into = "(u32, u32)")]
pub struct ImageSize {
    width_px: u32,
    height_px: u32,
}

impl ImageSize {
    /// The size of `width` × `height` pixels.
    ///
    /// # Errors
    /// [`Error::ImageSize`] where a side is zero or no multiple of [`CELL_PX`].
    pub fn new(width: u32, height: u32) -> Result<Self> {
        let usable = |side: u32| side > 0 && side.is_multiple_of(CELL_PX);
        if !usable(width) || !usable(height) {
            return Err(Error::ImageSize { width, height, multiple: CELL_PX });
        }
        Ok(Self { width_px: width, height_px: height })
    }

    /// The size of `columns` × `rows` cells of [`CELL_PX`] pixels.
    ///
    /// # Errors
    /// [`Error::ImageSize`] where a side is zero or overflows.
    pub fn from_cells(columns: u32, rows: u32) -> Result<Self> {
        Self::new(columns.saturating_mul(CELL_PX), rows.saturating_mul(CELL_PX))
    }

    /// Width in pixels.
    pub fn width_px(self) -> u32 {
        self.width_px
    }
    /// Height in pixels.
    pub fn height_px(self) -> u32 {
        self.height_px
    }
    /// Width in cells.
    pub fn width_cells(self) -> u32 {
        self.width_px / CELL_PX
    }
    /// Height in cells.
    pub fn height_cells(self) -> u32 {
        self.height_px / CELL_PX
    }
    /// Codes in a row.
    pub fn latent_columns(self) -> u32 {
        self.width_px / LATENT_PX
    }
    /// Rows of codes.
    pub fn latent_rows(self) -> u32 {
        self.height_px / LATENT_PX
    }
    /// Number of codes.
    pub fn n_codes(self) -> usize {
        self.latent_columns() as usize * self.latent_rows() as usize
    }
    /// Tokens that an image of this size takes: start, two sizes, the rows with their row-ends, end.
    pub fn n_tokens(self) -> usize {
        self.latent_rows() as usize * (self.latent_columns() as usize + 1) + 4
    }
}

impl TryFrom<(u32, u32)> for ImageSize {
    type Error = Error;
    fn try_from((width, height): (u32, u32)) -> Result<Self> {
        Self::new(width, height)
    }
}

impl From<ImageSize> for (u32, u32) {
    fn from(size: ImageSize) -> Self {
        (size.width_px, size.height_px)
    }
}

impl std::fmt::Display for ImageSize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}", self.width_px, self.height_px)
    }
}

/// An image as VQ codes, row by row.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct CodeGrid {
    rows: u32,
    columns: u32,
    codes: Vec<u32>,
}

impl CodeGrid {
    /// A grid from its codes, row-major.
    ///
    /// # Errors
    /// [`Error::CodeCount`] where `codes.len()` is not `rows * columns`, or a side is zero.
    pub fn new(rows: u32, columns: u32, codes: Vec<u32>) -> Result<Self> {
        if rows == 0 || columns == 0 || rows as u64 * columns as u64 != codes.len() as u64 {
            return Err(Error::CodeCount { rows, columns, found: codes.len() });
        }
        Ok(Self { rows, columns, codes })
    }
    /// Rows of codes.
    pub fn rows(&self) -> u32 {
        self.rows
    }
    /// Codes in a row.
    pub fn columns(&self) -> u32 {
        self.columns
    }
    /// The codes, row-major.
    pub fn codes(&self) -> &[u32] {
        &self.codes
    }
    /// Width in pixels of the image that these codes decode to.
    pub fn width_px(&self) -> u32 {
        self.columns * LATENT_PX
    }
    /// Height in pixels of the image that these codes decode to.
    pub fn height_px(&self) -> u32 {
        self.rows * LATENT_PX
    }
    /// The size in the stream.
    ///
    /// # Errors
    /// [`Error::ImageSize`] where a side is an odd number of latents, which the stream cannot state.
    pub fn size(&self) -> Result<ImageSize> {
        ImageSize::new(self.width_px(), self.height_px())
    }
}
