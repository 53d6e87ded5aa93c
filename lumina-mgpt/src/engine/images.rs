//! Decoding of images, handed out as work so that no other request waits for it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use image::RgbImage;
use lumina_core::CodeGrid;

use super::clock::{Clock, now};
use super::options::RequestId;
use crate::error::catch;
use crate::model::ModelParts;
use crate::trace::event;
use crate::{Error, Result};

/// An image to be decoded: done anywhere by [`DecodeWork::run`], and handed back to
/// [`Engine::complete`](super::Engine::complete).
#[must_use = "the request waits for it"]
pub struct DecodeWork {
    pub(super) id: u64,
    pub(super) request: RequestId,
    pub(super) codes: CodeGrid,
    pub(super) model: Arc<ModelParts>,
}

/// What became of a [`DecodeWork`].
#[must_use = "the request waits for it"]
pub struct DecodeResult {
    pub(super) id: u64,
    pub(super) request: RequestId,
    pub(super) image: Result<RgbImage>,
    pub(super) time: Duration,
}

impl DecodeWork {
    /// The request that the image belongs to.
    pub fn request(&self) -> RequestId {
        self.request
    }

    /// The codes of the image.
    pub fn codes(&self) -> &CodeGrid {
        &self.codes
    }

    /// Decodes the image; `clock` says how long it took. Whatever fails, a panic included, is an error of the request.
    pub fn run(self, clock: &dyn Clock) -> DecodeResult {
        let Self { id, request, codes, model } = self;
        let decode = || {
            let started = now(clock)?;
            let images = model.image_tokenizer()?;
            let bands = images.bands_within_limits([codes.rows(), codes.columns()].map(|side| side as usize))?;
            let image = catch("decoding an image", || images.decode(&codes, bands))??;
            Ok((image, now(clock)?.saturating_sub(started)))
        };
        let (image, time) = match decode() {
            Ok((image, time)) => (Ok(image), time),
            Err(error) => (Err(error), Duration::ZERO),
        };
        event!(DEBUG, request = request.0, is_ok = image.is_ok(), ?time, "image decoded");
        DecodeResult { id, request, image, time }
    }

    /// The result of work that nobody can do.
    fn lost(&self) -> DecodeResult {
        DecodeResult { id: self.id, request: self.request, image: Err(Error::DecoderLost), time: Duration::ZERO }
    }
}

impl fmt::Debug for DecodeWork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rows, columns) = (self.codes.rows(), self.codes.columns());
        f.debug_struct("DecodeWork").field("request", &self.request).field("codes", &[rows, columns]).finish()
    }
}

/// A thread that decodes images one after the other. It starts with the first one and ends with this.
pub struct ImageDecoder {
    clock: Arc<dyn Clock>,
    thread: Option<Worker>,
    /// What the thread has: if it ends early, these are lost.
    given: VecDeque<(u64, RequestId)>,
    /// Done on the caller's thread, where no other could be started.
    done: VecDeque<DecodeResult>,
}

struct Worker {
    work: Sender<DecodeWork>,
    results: Receiver<DecodeResult>,
    _thread: JoinHandle<()>,
}

impl ImageDecoder {
    /// A decoder that has done nothing yet.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, thread: None, given: VecDeque::new(), done: VecDeque::new() }
    }

    /// Takes on work. Where the system has no threads, it is done before this returns.
    pub fn submit(&mut self, work: DecodeWork) {
        if self.thread.is_none() {
            self.thread = Worker::start(self.clock.clone());
        }
        let place = (work.id, work.request);
        match &self.thread {
            Some(worker) => match worker.work.send(work) {
                Ok(()) => self.given.push_back(place),
                Err(unsent) => self.done.push_back(unsent.0.lost()),
            },
            None => self.done.push_back(work.run(&*self.clock)),
        }
    }

    /// Whether results are still to come.
    pub fn is_busy(&self) -> bool {
        !self.given.is_empty() || !self.done.is_empty()
    }

    /// A result, if there is one now.
    pub fn try_next(&mut self) -> Option<DecodeResult> {
        self.next_with(|results| results.try_recv().ok())
    }

    /// The next result, waiting for it; `None` where there is no work.
    pub fn wait(&mut self) -> Option<DecodeResult> {
        let result = self.next_with(|results| results.recv().ok());
        if result.is_some() {
            return result;
        }
        // The thread has ended without doing what it was given.
        let (id, request) = self.given.pop_front()?;
        Some(DecodeResult { id, request, image: Err(Error::DecoderLost), time: Duration::ZERO })
    }

    fn next_with(
        &mut self,
        receive: impl FnOnce(&Receiver<DecodeResult>) -> Option<DecodeResult>,
    ) -> Option<DecodeResult> {
        if let Some(done) = self.done.pop_front() {
            return Some(done);
        }
        self.given.front()?;
        let result = receive(&self.thread.as_ref()?.results)?;
        self.given.pop_front();
        Some(result)
    }
}

impl Worker {
    /// `None` where the system starts no thread.
    fn start(clock: Arc<dyn Clock>) -> Option<Self> {
        let (done, results) = channel();
        let (work, thread) = spawn(clock, move |result| done.send(result).is_ok()).ok()?;
        Some(Self { work, results, _thread: thread })
    }
}

/// Starts a thread that decodes what it is sent, one after the other, and gives each result to `done`. It ends with the
/// sender, or when `done` says that nobody wants more.
///
/// # Errors
/// Those of the system, where it starts no thread.
pub(crate) fn spawn(
    clock: Arc<dyn Clock>,
    done: impl Fn(DecodeResult) -> bool + Send + 'static,
) -> std::io::Result<(Sender<DecodeWork>, JoinHandle<()>)> {
    let (work, todo) = channel::<DecodeWork>();
    let run = move || {
        let _ = todo.into_iter().all(|work| done(work.run(&*clock)));
    };
    let thread = std::thread::Builder::new().name("lumina-images".to_owned()).spawn(run)?;
    Ok((work, thread))
}

impl fmt::Debug for ImageDecoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImageDecoder").field("pending", &self.given.len()).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for DecodeResult {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DecodeResult")
            .field("request", &self.request)
            .field("is_ok", &self.image.is_ok())
            .field("time", &self.time)
            .finish_non_exhaustive()
    }
}
