//! From records of conversations and images to batches of tokens.
//!
//! 1. [`Pretokenizer`] turns [`Records`] into token shards, once: images and texts are encoded, labels are set. A
//!    scheduler spreads the work by giving each process a `rank` of `splits`. Each process can be ended at any point,
//!    and the next one continues its work. [`concatenate`] then joins the indexes of all ranks.
//! 2. [`Dataset`] opens the shards that a data config names, and the pickled items of the original.
//! 3. [`BatchSampler`] draws batches of similar length from it, the same on every rank, and [`Dataset::batch`] reads
//!    them.
//!
//! [`train_tokenizer`] makes a text tokenizer for a new model.
//!
//! # Files
//!
//! `<rank>-of-<splits>.tokens` is a shard:
//!
//! ```text
//! "LUMTOK", 0x00, 0x01                         8 bytes: magic and version
//! item, item, …                                without gaps
//!
//! item:
//!   id        u64                              the record's index in its file
//!   len       u32                              number of tokens
//!   checksum  u32                              CRC-32 of the item without these four bytes
//!   tokens    u32 × len
//!   learned   u32 × ceil(len / 32)             bit i of word w is token 32·w + i; the bits beyond `len` are 0
//! ```
//!
//! Everything is little-endian, and every item begins at a multiple of 4 bytes. The label of a token is the token
//! itself where its `learned` bit is set, and -100 where not: labels have no other values.
//!
//! `<rank>-of-<splits>-record.jsonl` is its index, a line an item in the order of the ids:
//! `{"file":"0-of-2.tokens","len":29,"id":0,"offset":8}`, where `offset` is the byte of the shard at which the item
//! begins. `record.json` is a list of such entries. The original's indexes, whose items are pickled files of their own,
//! are the same without `offset`.
//!
//! `<rank>-of-<splits>-skipped.jsonl` has a line `{"index":7,"reason":"…"}` for each bad record, and
//! `<rank>-of-<splits>-run.json` the settings: the shard is continued only with these.
//!
//! The first three only grow, a window of records at a time: first the tokens, which are flushed to the disk, then the
//! lines. A reader ignores an unfinished last line. A writer that continues cuts off everything after the last window
//! whose records all have their lines, and makes the rest again. So the files become those that one run would have
//! made, byte for byte: nothing is lost, and nothing is repeated.

mod collate;
mod concatenate;
mod dataset;
mod index;
mod items;
mod json_text;
mod pickled;
mod pretokenize;
mod random;
mod random_crop;
mod records;
mod sampler;
mod shard;
mod shard_writer;
mod tokenizer;

pub use collate::Batch;
pub use concatenate::{Concatenated, concatenate};
pub use dataset::{DataConfig, DataMeta, Dataset};
pub use index::{IndexEntry, LastLine};
pub use items::TokenItems;
pub use pickled::read_pickled;
pub use pretokenize::{PretokenizeEvent, PretokenizeOptions, PretokenizeProgress, Pretokenizer};
pub use random_crop::CropChoice;
pub use records::Records;
pub use sampler::{BatchSampler, ItemGroup, ItemOrder, SamplerOptions};
pub use shard::{Item, TokenShard};
pub use shard_writer::SkippedRecord;
pub use tokenizer::{TokenizerOptions, train_tokenizer};
