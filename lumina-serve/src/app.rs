//! What all requests share: the engine, the options, and bounds on work at one time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;
use lumina_mgpt::{Handle, Lumina};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::answer::now;
use crate::error::{ApiError, ApiResult};
use crate::options::Options;
use crate::studio::Studio;

/// Bodies of requests that may be in memory at one time, in multiples of [`Options::max_body_bytes`].
const LARGEST_BODIES: usize = 8;
/// The unit in which these bytes are counted.
const BLOCK_BYTES: usize = 1024;

/// What the handlers of a router share.
pub(crate) struct App {
    pub(crate) handle: Handle,
    pub(crate) options: Options,
    pub(crate) studio: Studio,
    /// When the server began, in seconds since 1970.
    pub(crate) created: u64,
    /// Answers by route and status.
    answers: Mutex<BTreeMap<(String, u16), Answers>>,
    /// How much may block at one time: tokenizing, and decoding and encoding of images.
    blocking: Arc<Semaphore>,
    bodies: Arc<Semaphore>,
}

/// A place in memory for the body of a request, as long as this is there. It grows with what has come, so that clients
/// that send slowly do not keep others out.
pub(crate) struct Room(OwnedSemaphorePermit);

impl Room {
    /// Makes it as large as so many bytes.
    pub(crate) fn grow(&mut self, app: &App, bytes: usize) -> ApiResult<()> {
        let more = bytes.div_ceil(BLOCK_BYTES).saturating_sub(self.0.num_permits());
        if more > 0 {
            self.0.merge(app.permits(more)?);
        }
        Ok(())
    }
}

/// Answers that were alike.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Answers {
    pub(crate) count: u64,
    /// Time until they began, all together.
    pub(crate) time: Duration,
}

impl App {
    pub(crate) fn new(handle: Handle, options: Options) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let blocks = (LARGEST_BODIES * options.max_body_bytes).div_ceil(BLOCK_BYTES);
        Self {
            handle,
            studio: Studio::new(),
            created: now(),
            answers: Mutex::default(),
            blocking: Arc::new(Semaphore::new(threads)),
            bodies: Arc::new(Semaphore::new(blocks.min(Semaphore::MAX_PERMITS))),
            options,
        }
    }

    pub(crate) fn model(&self) -> &Lumina {
        self.handle.model()
    }

    /// Runs what takes a while on a thread for such work, as many at one time as there are processors.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> ApiResult<T> + Send + 'static,
    ) -> ApiResult<T> {
        let permit = self.blocking.clone().acquire_owned().await.map_err(|closed| ApiError::failed(&closed))?;
        let span = tracing::Span::current();
        let work = move || {
            let _permit = permit;
            span.in_scope(work)
        };
        tokio::task::spawn_blocking(work).await.map_err(|panic| ApiError::failed(&panic))?
    }

    /// Room for a body of which nothing has come yet.
    pub(crate) fn room(&self) -> ApiResult<Room> {
        Ok(Room(self.permits(1)?))
    }

    fn permits(&self, blocks: usize) -> ApiResult<OwnedSemaphorePermit> {
        let blocks = u32::try_from(blocks).unwrap_or(u32::MAX);
        self.bodies.clone().try_acquire_many_owned(blocks).map_err(|_| {
            let message = "too many requests are being received; try again after the time in `Retry-After`";
            ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too_many_bodies", message).retry_after(1)
        })
    }

    /// Checks the name of a model, if a request gives one.
    pub(crate) fn check_model(&self, model: Option<&str>) -> ApiResult<()> {
        match model {
            Some(model) if model != self.options.model_id => Err(self.no_such_model(model)),
            _ => Ok(()),
        }
    }

    pub(crate) fn no_such_model(&self, model: &str) -> ApiError {
        let message =
            format!("there is no model `{}`; this server has `{}`", model.escape_debug(), self.options.model_id);
        ApiError::new(StatusCode::NOT_FOUND, "model_not_found", message)
    }

    /// Counts an answer.
    pub(crate) fn count(&self, route: &str, status: u16, time: Duration) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let alike = answers.entry((route.to_owned(), status)).or_default();
        alike.count += 1;
        alike.time += time;
    }

    /// Answers so far, by route and status.
    pub(crate) fn answers(&self) -> BTreeMap<(String, u16), Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
