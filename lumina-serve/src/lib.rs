//! An HTTP server for Lumina-mGPT that speaks OpenAI's protocol.
#![forbid(unsafe_code)]

mod answer;
mod app;
mod auth;
mod body;
mod drawing;
mod edits;
mod encode;
mod error;
mod images;
mod input;
mod metrics;
mod models;
mod options;
mod params;
mod router;
mod server;
mod sse;
mod studio;

pub use error::{Error, Result};
pub use options::Options;
pub use router::router;
pub use server::{bind, serve, serve_until_signal};
