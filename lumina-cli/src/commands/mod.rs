//! The commands, a file each: arguments, and what is done with them.

pub mod caption;
pub mod chat;
pub mod doctor;
#[cfg(feature = "hub")]
pub mod download;
pub mod edit;
pub mod generate;
pub mod generate_many;
pub mod quantize;
#[cfg(feature = "serve")]
pub mod serve;
