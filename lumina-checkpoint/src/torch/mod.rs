//! Files saved by torch: storages of elements, and a pickle that describes tensors as views of them.

mod legacy;
mod pickle;
mod state_dict;
mod zip_file;

pub use pickle::{Integers, read_integers};

use crate::format::FileFormat;

pub(crate) const FORMAT: FileFormat = FileFormat {
    name: "saved by torch",
    folder_file: None,
    matches: |_, bytes| bytes.starts_with(ZIP_MAGIC) || bytes.starts_with(PICKLE_MAGIC),
    read: |file, bytes| {
        let read = if bytes.starts_with(ZIP_MAGIC) { zip_file::read_zip } else { legacy::read_legacy };
        read(file, bytes).map(Into::into)
    },
};

/// The first bytes of a zip archive with at least one file.
const ZIP_MAGIC: &[u8] = b"PK\x03\x04";

/// The opcode with which pickles of protocol 2 and later begin.
const PICKLE_MAGIC: &[u8] = b"\x80";
