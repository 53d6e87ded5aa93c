//! The errors of this crate: what, where, and what to do.

use lumina_core::ImageSize;

/// Shorthand for this crate's results.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong in `lumina-vq`.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be opened or read.
    #[error("{}: cannot be read; check that the path is right and the file is readable", file.display())]
    Read {
        /// The file.
        file: std::path::PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A vocabulary, an image size or a grid of codes.
    #[error(transparent)]
    Core(#[from] lumina_core::Error),
    /// A checkpoint could not be read or written.
    #[error(transparent)]
    Checkpoint(#[from] lumina_checkpoint::Error),
    /// Loading parameters, or computing with them.
    #[error(transparent)]
    Nn(#[from] lumina_nn::Error),
    /// A picture's bytes are damaged or cut off.
    #[error("{picture}: the {format} data cannot be decoded ({reason}); the file is damaged or cut off")]
    Decode {
        /// The file, or what was given in its place.
        picture: String,
        /// The format that the bytes claim.
        format: &'static str,
        /// What the decoder said.
        reason: String,
    },
    /// A picture is of a format or kind that is not read.
    #[error("{picture}: {reason}; convert it to PNG, JPEG, WebP, GIF, BMP or TIFF with 8 or 16 bits a channel")]
    UnsupportedPicture {
        /// The file, or what was given in its place.
        picture: String,
        /// What it is.
        reason: String,
    },
    /// A picture has more pixels than the limits allow.
    #[error(
        "{picture}: {width}x{height} pixels are more than the limit of {max_pixels}; make it smaller, or raise `Limits::max_pixels`"
    )]
    TooManyPixels {
        /// The file, or what was given in its place.
        picture: String,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// The limit.
        max_pixels: u64,
    },
    /// A picture has no pixels.
    #[error("{picture}: {width}x{height} pixels; both sides must be at least 1")]
    NoPixels {
        /// The file, or what was given in its place.
        picture: String,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// A picture is so long and narrow that scaling it to a size would overflow.
    #[error(
        "{picture}: {width}x{height} pixels scaled to cover {size} would be {scaled_px} pixels long; crop it to a ratio of the sides nearer to 1"
    )]
    TooNarrow {
        /// The file, or what was given in its place.
        picture: String,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// The size to be covered.
        size: ImageSize,
        /// The longer side after scaling.
        scaled_px: u64,
    },
    /// A crop that does not lie within the scaled picture.
    #[error(
        "{picture}: a crop at left {left}, top {top} leaves the scaled picture; left must be 0..={max_left}, top 0..={max_top}"
    )]
    Crop {
        /// The file, or what was given in its place.
        picture: String,
        /// Columns left of the crop.
        left: u32,
        /// Rows above the crop.
        top: u32,
        /// The most columns there can be.
        max_left: u32,
        /// The most rows there can be.
        max_top: u32,
    },
    /// Values that do not make an image.
    #[error("{found} values for an image of {width}x{height} pixels; needed are 3 for each pixel")]
    PixelValues {
        /// How many values were given.
        found: usize,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// A config is broken or asks for what is not supported.
    #[error("{}: {reason}", file.display())]
    Config {
        /// The file.
        file: std::path::PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// No file of weights in a folder.
    #[error("{}: holds no weights of an image tokenizer; one of {names} is needed", folder.display())]
    NoWeights {
        /// The folder.
        folder: std::path::PathBuf,
        /// What was looked for.
        names: String,
    },
    /// The checkpoint holds an encoder only.
    #[error(
        "this image tokenizer can only encode: Hugging Face folders hold no decoder; open Meta's `tokenizer/` folder with vqgan.ckpt instead"
    )]
    NoDecoder,
    /// A code that is not in the codebook.
    #[error("code {code} is not in the codebook of {n_codes}; do the codes come from another tokenizer?")]
    Code {
        /// The code.
        code: u32,
        /// Entries of the codebook.
        n_codes: usize,
    },
    /// Images or codes that do not form a batch.
    #[error("cannot be processed together: {reason}")]
    Batch {
        /// What does not fit.
        reason: String,
    },
    /// The encoder's output is not a number.
    #[error("the encoder gave values that are no numbers; are the weights intact and the compute type wide enough?")]
    NotFinite,
    /// The device failed.
    #[error("the device failed: {reason}; is its memory exhausted?")]
    Compute {
        /// What it said.
        reason: String,
    },
}
