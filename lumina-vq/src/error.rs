//! The errors of this crate: what is wrong, where, and what to do.

use std::path::PathBuf;

use lumina_core::ImageSize;

/// Shorthand for this crate's results.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong in `lumina-vq`. The field `image` is the image's file, or "image in memory".
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An error of an image size or a grid of codes.
    #[error(transparent)]
    Core(#[from] lumina_core::Error),
    /// An error of a checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] lumina_checkpoint::Error),
    /// An error of the compute target, of loading parameters or of the device.
    #[error(transparent)]
    Nn(#[from] lumina_nn::Error),
    /// The bytes of an image are damaged or truncated.
    #[error("{image}: the {format} data cannot be decoded; the file is damaged or cut off")]
    Decode {
        /// The image.
        image: String,
        /// The format that the first bytes indicate.
        format: &'static str,
        /// The decoder's error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An image has a format, or a variant of a format, that is not supported.
    #[error("{image}: {reason}; convert it to PNG, JPEG, WebP, GIF, BMP or TIFF with 8 or 16 bits a channel")]
    UnsupportedImage {
        /// The image.
        image: String,
        /// What is not supported.
        reason: String,
        /// The decoder's error, if the decoder refused the file.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// No sizes that images could be resized to.
    #[error("no sizes that images could be resized to; give at least one")]
    NoSizes,
    /// An image has more pixels than the limits allow.
    #[error(
        "{image}: {width}x{height} pixels are more than the limit of {max_pixels}; \
         make the image smaller, or raise `Limits::max_pixels`"
    )]
    TooManyPixels {
        /// The image.
        image: String,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// The limit.
        max_pixels: u64,
    },
    /// Decoding an image takes more memory than the limits allow, or than there is.
    #[error(
        "{image}: decoding it takes {bytes} bytes of memory, and the limit is {limit}; \
         make the image smaller, or raise `Limits::image_bytes`"
    )]
    ImageMemory {
        /// The image.
        image: String,
        /// Bytes that decoding takes.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// An image has no pixels.
    #[error("{image}: {width}x{height} pixels; both sides must be at least 1")]
    NoPixels {
        /// The image.
        image: String,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// An image is so long and narrow that scaling it to a size would overflow.
    #[error(
        "{image}: {width}x{height} pixels scaled to cover {size} would be {scaled_px} pixels long; \
         crop it to an aspect ratio nearer to 1"
    )]
    TooNarrow {
        /// The image.
        image: String,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// The size to be covered.
        size: ImageSize,
        /// The longer side after scaling.
        scaled_px: u64,
    },
    /// A crop extends beyond the scaled image.
    #[error(
        "{image}: a crop at left {left}, top {top} extends beyond the scaled image; \
         left must be 0..={max_left}, top 0..={max_top}"
    )]
    Crop {
        /// The image.
        image: String,
        /// Columns to the left of the crop.
        left: u32,
        /// Rows above the crop.
        top: u32,
        /// The largest possible `left`.
        max_left: u32,
        /// The largest possible `top`.
        max_top: u32,
    },
    /// The number of values does not match the size of the image.
    #[error("{found} values for an image of {width}x{height} pixels; 3 for each pixel are needed")]
    PixelValues {
        /// Number of values.
        found: usize,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// A config file cannot be parsed, or lacks a key.
    #[error("{}: not a config of an image tokenizer; correct it, or download it again", file.display())]
    ParseConfig {
        /// The file.
        file: PathBuf,
        /// The parser's error, with the key or the position.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A config value is out of range or not supported.
    #[error("{}: {reason}", file.display())]
    Config {
        /// The file.
        file: PathBuf,
        /// The value, and what is expected.
        reason: String,
    },
    /// A folder contains no weights.
    #[error("{}: contains no weights of an image tokenizer; one of {names} is needed", folder.display())]
    NoWeights {
        /// The folder.
        folder: PathBuf,
        /// The file names that were looked for.
        names: String,
    },
    /// The checkpoint contains an encoder only.
    #[error(
        "this image tokenizer can only encode: Hugging Face folders contain no decoder; \
         open Meta's `tokenizer/` folder with vqgan.ckpt instead"
    )]
    NoDecoder,
    /// A code is not in the codebook.
    #[error("code {code} is not in the codebook of {n_codes}; do the codes come from another tokenizer?")]
    Code {
        /// The code.
        code: u32,
        /// Number of entries in the codebook.
        n_codes: usize,
    },
    /// Encoding or decoding would take more memory than the limit.
    #[error(
        "{what} of {columns}x{rows} codes would take {bytes} bytes, more than the limit of {limit}; {advice}, or raise \
         `Limits::vq_decode_bytes`"
    )]
    Memory {
        /// What was to be done.
        what: &'static str,
        /// Rows of codes of an image.
        rows: usize,
        /// Columns of codes of an image.
        columns: usize,
        /// Bytes that it would take.
        bytes: u64,
        /// The limit.
        limit: u64,
        /// What takes less.
        advice: String,
    },
    /// The sides of an image are not multiples of the network's factor.
    #[error("an image of {width}x{height} pixels cannot be encoded; both sides must be multiples of {factor}")]
    Sides {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// Pixels that one code covers along each side.
        factor: u32,
    },
    /// The images or codes of a batch differ in size, or their number is wrong.
    #[error("cannot be processed together: {reason}")]
    Batch {
        /// What does not match.
        reason: String,
    },
    /// A new codebook does not have the shape of the old one.
    #[error("the new codebook has shape {found:?}, expected {expected:?}")]
    CodebookShape {
        /// `[n_codes, embed_dim]` of the new codebook.
        found: [usize; 2],
        /// `[n_codes, embed_dim]` of the network.
        expected: [usize; 2],
    },
    /// The encoder's output contains NaN or infinity.
    #[error("the encoder's output contains NaN or infinity; are the weights intact and the compute type wide enough?")]
    NotFinite,
}
