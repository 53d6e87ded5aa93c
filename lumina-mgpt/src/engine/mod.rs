//! The engine: any number of requests in the same passes over the weights.
//!
//! [`Engine::submit`] adds a request, [`Engine::step`] makes a pass and returns what has happened, [`Engine::cancel`]
//! ends a request. Requests join and leave between passes. To read it in order:
//!
//! 1. `request`, `options`, `event`: what goes in, and what comes out.
//! 2. `sequence`: a request in progress, with its branches and their KV caches.
//! 3. `scheduler`: who runs in a pass, within the budget for keys and values.
//! 4. `step`: the pass.
//! 5. `event_decoder`, `images`: tokens to events, with images decoded elsewhere.
//! 6. `batching`: the [`Engine`], which calls them in turn.

mod batching;
mod branch;
mod clock;
mod entry;
mod event;
mod event_decoder;
mod images;
mod options;
mod prepared;
mod request;
mod request_json;
mod scheduler;
mod sequence;
mod step;
mod windows;

pub use batching::Engine;
pub use clock::Clock;
pub use event::{Event, Stats};
pub(crate) use images::spawn as spawn_image_decoder;
pub use images::{DecodeResult, DecodeWork, ImageDecoder};
pub use options::{AdaptSampler, EngineOptions, RequestId, Submission};
pub(crate) use prepared::Prepared;
pub use request::{Cancel, GenerateOptions, Prompt, Request};
pub(crate) use request_json::RequestJson;
