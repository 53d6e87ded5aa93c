//! Sizes of images: in pixels, in cells of 32 pixels (the unit of size tokens), and in latents of 16 pixels (one code
//! each).

use crate::{Error, Result};

/// Pixels per side of a cell, the unit of size tokens.
pub const CELL_PX: u32 = 32;
/// Pixels per side of the square that one code encodes.
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
#[derive(Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "UncheckedGrid")]
pub struct CodeGrid {
    rows: u32,
    columns: u32,
    codes: Vec<u32>,
}

/// A deserialised grid, not yet checked.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields, expecting = "the codes of an image: an object with `rows`, `columns` and `codes`")]
struct UncheckedGrid {
    rows: u32,
    columns: u32,
    codes: Vec<u32>,
}

impl TryFrom<UncheckedGrid> for CodeGrid {
    type Error = Error;
    fn try_from(UncheckedGrid { rows, columns, codes }: UncheckedGrid) -> Result<Self> {
        Self::new(rows, columns, codes)
    }
}

impl CodeGrid {
    /// A grid from its codes, row-major.
    ///
    /// # Errors
    /// [`Error::CodeCount`] where `codes.len()` is not `rows * columns`, or a side is zero.
    pub fn new(rows: u32, columns: u32, codes: Vec<u32>) -> Result<Self> {
        // A longer side would overflow in pixels.
        const MAX_SIDE: u32 = u32::MAX / LATENT_PX;
        let possible = 1..=MAX_SIDE;
        let fits = u64::from(rows) * u64::from(columns) == codes.len() as u64;
        if !fits || !possible.contains(&rows) || !possible.contains(&columns) {
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
    /// Width of the decoded image in pixels.
    pub fn width_px(&self) -> u32 {
        self.columns * LATENT_PX
    }
    /// Height of the decoded image in pixels.
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

/// The largest target size of [`crop_sizes`]. Up to it the published vocabularies have size tokens for every size.
pub const MAX_TARGET_PX: u32 = 1920;
/// The longer side is at most this many times the shorter one in [`crop_sizes`].
const MAX_RATIO: f64 = 4.0;

/// The sizes that images are resized and cropped to for a target: about `target_px`² pixels, with aspect ratios from
/// 4:1 to 1:4, widest first.
///
/// Mirrors the processor's `generate_crop_size_list((target_size // 32) ** 2, 32)`.
///
/// ```
/// let sizes = lumina_core::crop_sizes(512)?;
/// assert_eq!(sizes[0].to_string(), "1024x256");
/// # Ok::<(), lumina_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::TargetSize`] where `target_px` is below [`CELL_PX`] or above [`MAX_TARGET_PX`].
pub fn crop_sizes(target_px: u32) -> Result<Vec<ImageSize>> {
    if !(CELL_PX..=MAX_TARGET_PX).contains(&target_px) {
        return Err(Error::TargetSize { target_px, min_px: CELL_PX, max_px: MAX_TARGET_PX });
    }
    let side_cells = target_px / CELL_PX;
    let sizes = crop_size_list(side_cells * side_cells, CELL_PX, MAX_RATIO);
    sizes.into_iter().map(|(width, height)| ImageSize::new(width, height)).collect()
}

/// Sizes `(width, height)` in pixels of at most `n_patches` square patches of `patch_px`, with the longer side at most
/// `max_ratio` times the shorter one.
///
/// The list starts with one row of `n_patches`. The next size has a row more if the patches suffice, or else a column
/// less. Mirrors `generate_crop_size_list`. Sizes whose pixels do not fit into `u32` are left out.
pub fn crop_size_list(n_patches: u32, patch_px: u32, max_ratio: f64) -> Vec<(u32, u32)> {
    let (mut columns, mut rows) = (n_patches, 1u32);
    let mut sizes = Vec::new();
    while columns > 0 {
        let ratio = f64::from(columns.max(rows)) / f64::from(columns.min(rows));
        if ratio <= max_ratio
            && let (Some(width), Some(height)) = (columns.checked_mul(patch_px), rows.checked_mul(patch_px))
        {
            sizes.push((width, height));
        }
        if u64::from(columns) * (u64::from(rows) + 1) <= u64::from(n_patches) {
            rows += 1;
        } else {
            columns -= 1;
        }
    }
    sizes
}

/// Sorts sizes by how well they suit an image of `width` × `height` pixels, best first.
///
/// The score is the part of the image that is left after scaling and cropping, `min(cw/w, ch/h) / max(cw/w, ch/h)` in
/// `f64`; of equal scores the larger `(width, height)` comes first. Mirrors the sort in `var_center_crop`, from
/// whose first `random_top_k` sizes training draws. For an image without pixels all scores are equal.
pub fn rank_sizes(width: u32, height: u32, sizes: &[ImageSize]) -> Vec<ImageSize> {
    let mut scored: Vec<(f64, ImageSize)> = sizes.iter().map(|&size| (score(width, height, size), size)).collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)));
    scored.into_iter().map(|(_, size)| size).collect()
}

/// The size that suits an image of `width` × `height` pixels best, the first of [`rank_sizes`]; `None` if there is
/// none.
pub fn choose_size(width: u32, height: u32, sizes: &[ImageSize]) -> Option<ImageSize> {
    let score = |size: &ImageSize| score(width, height, *size);
    sizes.iter().max_by(|a, b| score(a).total_cmp(&score(b)).then(a.cmp(b))).copied()
}

fn score(width: u32, height: u32, size: ImageSize) -> f64 {
    if width == 0 || height == 0 {
        return 0.0;
    }
    let across = f64::from(size.width_px) / f64::from(width);
    let down = f64::from(size.height_px) / f64::from(height);
    across.min(down) / across.max(down)
}

impl std::fmt::Debug for CodeGrid {
    /// The size, without the codes.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CodeGrid").field("rows", &self.rows).field("columns", &self.columns).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_that_is_read_is_checked() {
        let read = |json: &str| serde_json::from_str::<CodeGrid>(json);
        let grid = CodeGrid::new(2, 1, vec![5, 6]).unwrap();
        assert_eq!(read(&serde_json::to_string(&grid).unwrap()).unwrap(), grid);
        for bad in [
            r#"{"rows": 2, "columns": 2, "codes": [5, 6]}"#,
            r#"{"rows": 0, "columns": 0, "codes": []}"#,
            r#"{"rows": 4294967295, "columns": 1, "codes": [5]}"#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert!(serde_json::from_str::<ImageSize>("[33, 32]").is_err());
    }

    #[test]
    fn every_target_gives_sizes_that_can_be_stated() {
        for target_px in (CELL_PX..=MAX_TARGET_PX).step_by(CELL_PX as usize) {
            let sizes = crop_sizes(target_px).unwrap();
            let square = ImageSize::new(target_px, target_px).unwrap();
            assert!(sizes.contains(&square));
            assert!(sizes.iter().all(|size| size.width_cells().max(size.height_cells()) <= 120));
        }
    }

    #[test]
    fn targets_out_of_range_are_errors() {
        for target_px in [0, 31, MAX_TARGET_PX + 1, u32::MAX] {
            let message = crop_sizes(target_px).unwrap_err().to_string();
            assert!(message.contains(&target_px.to_string()) && message.contains("1920"), "{message}");
        }
    }

    #[test]
    fn the_walk_ends_at_its_edges() {
        assert!(crop_size_list(0, 32, 4.0).is_empty());
        assert_eq!(crop_size_list(1, 32, 1.0), [(32, 32)]);
        assert!(crop_size_list(16, 32, f64::NAN).is_empty());
        assert!(crop_size_list(16, u32::MAX, 4.0).is_empty());
    }

    #[test]
    fn of_equal_scores_the_larger_size_wins() {
        let size = |width, height| ImageSize::new(width, height).unwrap();
        let sizes = [size(64, 128), size(128, 64), size(128, 128), size(64, 64)];
        assert_eq!(choose_size(50, 50, &sizes), Some(size(128, 128)));
        assert_eq!(rank_sizes(50, 50, &sizes), [size(128, 128), size(64, 64), size(128, 64), size(64, 128)]);
        assert_eq!(choose_size(50, 50, &[]), None);
    }

    #[test]
    fn an_image_without_pixels_does_not_upset_the_order() {
        let sizes = crop_sizes(256).unwrap();
        assert_eq!(rank_sizes(0, 10, &sizes).len(), sizes.len());
        assert!(choose_size(0, 0, &sizes).is_some());
    }
}
