//! The errors of this crate.

use std::path::PathBuf;

use crate::{quoted, shown};

/// The results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong in `lumina-core`.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A token that the model's stream needs has no id.
    #[error(
        "the vocabulary has no token `{name}`, needed as {role}; is this the tokenizer of a Chameleon or \
         Lumina-mGPT model?"
    )]
    MissingToken {
        /// The token's name.
        name: String,
        /// What it is needed as.
        role: &'static str,
    },
    /// The image-token names do not cover the codes 0, 1, 2, … without a gap.
    #[error("the vocabulary has {found} image tokens, but none for code {missing}; the tokenizer file is incomplete")]
    CodeGap {
        /// The number of image tokens that were found.
        found: usize,
        /// The first code with no token.
        missing: u32,
    },
    /// Two tokens have one id.
    #[error(
        "the vocabulary gives id {id} to both {} and {}; each token needs an id of its own",
        quoted(first),
        quoted(second)
    )]
    DuplicateToken {
        /// The id in question.
        id: u32,
        /// One of the names.
        first: String,
        /// The other name.
        second: String,
    },
    /// An image size that size tokens cannot state.
    #[error(
        "image size {width}x{height} is not usable: both sides must be multiples of {multiple}, at least \
         {multiple}; the nearest usable size is {}x{}",
        nearest(*width, *multiple), nearest(*height, *multiple)
    )]
    ImageSize {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// What both sides must be multiples of.
        multiple: u32,
    },
    /// A target size for which there are no image sizes.
    #[error(
        "target size {target_px} is not usable: it must be from {min_px} to {max_px} pixels; the published models \
         use 512, 768 and 1024"
    )]
    TargetSize {
        /// The target in pixels.
        target_px: u32,
        /// The smallest target.
        min_px: u32,
        /// The largest target.
        max_px: u32,
    },
    /// A grid whose number of codes is not rows × columns.
    #[error("a grid of {rows} rows and {columns} columns needs {} codes, got {found}", *rows as u64 * *columns as u64)]
    CodeCount {
        /// Rows.
        rows: u32,
        /// Columns.
        columns: u32,
        /// The number of codes that were given.
        found: usize,
    },
    /// A file could not be opened or read.
    #[error("{}: cannot be read; check that the path is right and the file is readable", shown(file))]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A folder, a pipe, a socket or a device where a file is needed.
    #[error("{}: is not a regular file; give a file", shown(file))]
    NotAFile {
        /// Its path.
        file: PathBuf,
    },
    /// A file of more bytes than may be read.
    #[error("{}: has {bytes} bytes, more than the limit of {limit}; is it the right file?", shown(file))]
    FileTooLarge {
        /// The file.
        file: PathBuf,
        /// Its bytes, or as many of them as were read.
        bytes: u64,
        /// The most that may be read.
        limit: u64,
    },
    /// A JSON text that would take more memory than it may, once it is parsed.
    #[error(
        "{}: its JSON takes up to {bytes} bytes of memory, more than the limit of {limit}; is it the right file?",
        shown(file)
    )]
    JsonTooLarge {
        /// The file.
        file: PathBuf,
        /// An upper bound of what it takes.
        bytes: u64,
        /// The most that it may take.
        limit: u64,
    },
    /// A file that Git LFS has not fetched.
    #[error("{}: this is a Git LFS pointer; fetch the file itself with `git lfs pull`", shown(file))]
    LfsPointer {
        /// The file.
        file: PathBuf,
    },
    /// A text that is not UTF-8.
    #[error("{}: is not UTF-8 from byte {byte} on; save it as UTF-8", shown(file))]
    NotUtf8 {
        /// The file.
        file: PathBuf,
        /// The first byte that is not.
        byte: usize,
    },
    /// A path that leads out of the folder that it must stay in.
    #[error("{}: leads out of {}; name files inside that folder", shown(file), shown(root))]
    OutsideRoot {
        /// The path as it was given.
        file: PathBuf,
        /// The folder.
        root: PathBuf,
    },
}

fn nearest(side: u32, multiple: u32) -> u32 {
    (side.saturating_add(multiple / 2) / multiple * multiple).max(multiple)
}
