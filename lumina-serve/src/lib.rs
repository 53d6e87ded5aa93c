//! An HTTP server for Lumina-mGPT that speaks OpenAI's protocol: images from texts and from images, and chat, streamed
//! or not, over an engine that all clients share.
//!
//! [`router`] is to be mounted in a program of one's own, [`serve`] is a whole server, and the program `lumina-serve`
//! is that with arguments. What they allow is [`Options`]; how many requests run and wait, the engine's
//! [`HandleOptions`](lumina_mgpt::HandleOptions).
//!
//! | address | what it does |
//! | --- | --- |
//! | `POST /v1/images/generations` | images from a text |
//! | `POST /v1/images/edits` | images from an image, by any task that draws one; a form or JSON |
//! | `POST /v1/chat/completions` | text and images in, text and images out |
//! | `GET /v1/models`, `GET /v1/models/{model}` | the model, its tasks, sizes and defaults, and the server's limits |
//! | `GET /health`, `GET /metrics` | whether it takes requests; what it has done, for Prometheus |
//! | `GET /` | a page to try it |
//!
//! The book's page on the server has the fields of requests.
//!
//! # In a program of one's own
//!
//! ```
//! use axum::Router;
//! use axum::routing::get;
//! use lumina_mgpt::{Compute, Handle, HandleOptions, Lumina};
//! use lumina_serve::{Options, router};
//!
//! # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../model");
//! let model = Lumina::from_pretrained(folder).compute(Compute::cpu()).load()?;
//! let handle = Handle::new(&model, HandleOptions::default().max_waiting(32))?;
//!
//! let app: Router = Router::new()
//!     .route("/about", get(|| async { "A program of one's own." }))
//!     .nest("/lumina", router(handle.clone(), Options::new().api_key("a-long-secret")?));
//!
//! // At its end, what runs is answered, and the rest is refused.
//! handle.shutdown(std::time::Duration::from_secs(30));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # A whole server
//!
//! ```no_run
//! # use lumina_mgpt::{Handle, HandleOptions, Lumina};
//! use lumina_serve::{Options, bind, serve_until_signal};
//!
//! # async fn program() -> Result<(), Box<dyn std::error::Error>> {
//! let model = Lumina::from_pretrained("Lumina-mGPT-7B-768").load()?;
//! let handle = Handle::new(&model, HandleOptions::default())?;
//! serve_until_signal(bind("127.0.0.1", 8080).await?, handle, Options::new()).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Untrusted input
//!
//! A request is read within limits of bytes and time, its images within limits of pixels, and what it asks for is
//! checked before anything is computed; the answer to what is wrong is JSON that says what, and never a panic. Nothing
//! is fetched and nothing stored. With keys ([`Options::api_key`]) all but the page and `/health` asks for one; pages
//! of other origins are refused unless they are listed. Logs and metrics have routes, numbers and times, and no texts.
//!
//! # Features
//!
//! `flex` (default), `cuda`, `wgpu`, `vulkan`, `metal`, `kernel-cache` and `hub` are those of `lumina-mgpt`. `program`
//! (default) is what the program needs and the library does not.
#![forbid(unsafe_code)]

mod answer;
mod app;
mod auth;
mod body;
mod book;
mod chat;
mod chat_answer;
mod connection;
mod drawing;
mod edits;
mod encode;
mod error;
mod images;
mod input;
mod list;
mod messages;
mod metrics;
mod models;
mod options;
mod params;
#[cfg(feature = "program")]
pub mod program;
mod router;
mod server;
mod sse;
mod studio;

pub use error::{Error, Result};
pub use options::Options;
pub use router::router;
pub use server::{bind, serve, serve_until_signal};
