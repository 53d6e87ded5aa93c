//! What callers hold of an engine that runs on a thread of its own.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use super::events::{self, Events, Wake};
use super::metrics::Metrics;
use super::shared::{HandleOptions, Shared};
use super::worker::{Command, Worker};
use crate::engine::{Prepared, Request, Submission};
use crate::pipeline::Lumina;
use crate::{Error, Result};

/// An [`Engine`](crate::Engine) on a thread of its own. A clone is a handle to the same engine.
///
/// Requests of all callers share passes, in the order of their submission: up to
/// [`EngineOptions::max_sequences`](crate::EngineOptions) at once, others wait. The thread ends when the last handle
/// and the last [`Events`] are dropped, or with [`Handle::shutdown`].
///
/// ```
/// use lumina_mgpt::{Compute, Event, Handle, HandleOptions, Lumina};
///
/// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../model");
/// let model = Lumina::from_pretrained(folder).compute(Compute::cpu()).load()?;
/// let handle = Handle::new(&model, HandleOptions::default())?;
///
/// // From any thread, as often as you like.
/// let request = model.text_to_image("a small red circle on a white background", (256, 256)).seed(7).request()?;
/// for event in handle.submit(&request)? {
///     match event? {
///         Event::ImageRow { row, .. } => println!("row {row}"),
///         Event::Image { image, .. } => assert_eq!(image.dimensions(), (256, 256)),
///         _ => {}
///     }
/// }
/// assert_eq!(handle.metrics().completed, 1);
/// # Ok::<(), lumina_mgpt::Error>(())
/// ```
#[derive(Clone)]
pub struct Handle {
    line: Arc<Line>,
}

/// The way to the engine's thread, which ends when the last handle and the last [`Events`] have dropped it.
struct Line {
    commands: Sender<Command>,
    shared: Arc<Shared>,
}

impl Wake for Line {
    fn wake(&self) {
        // An engine that has ended has nothing to look at.
        let _ = self.commands.send(Command::Wake);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let _ = self.commands.send(Command::Close { end: Some(Instant::now()) });
    }
}

impl Handle {
    /// Starts an engine for a model on a thread of its own.
    ///
    /// # Errors
    /// [`Error::Thread`] where the system starts no thread.
    pub fn new(model: &Lumina, options: HandleOptions) -> Result<Self> {
        let (commands, received) = channel();
        let shared = Arc::new(Shared::new(model, options));
        Worker::start(shared.clone(), received, commands.clone())?;
        Ok(Self { line: Arc::new(Line { commands, shared }) })
    }

    /// The model.
    pub fn model(&self) -> &Lumina {
        &self.shared().model
    }

    /// Adds a request: its prompt becomes tokens here, the engine's thread does the rest.
    ///
    /// # Errors
    /// What is wrong with the request, [`Error::QueueFull`] where too many wait, and [`Error::Stopped`] after
    /// [`Handle::shutdown`].
    pub fn submit(&self, request: &Request) -> Result<Events> {
        self.submit_with(request, Submission::default())
    }

    /// [`Handle::submit`] with what is no value.
    ///
    /// # Errors
    /// As [`Handle::submit`].
    pub fn submit_with(&self, request: &Request, submission: Submission) -> Result<Events> {
        let shared = self.shared();
        if shared.is_closing() {
            return Err(Error::Stopped);
        }
        let engine = &shared.options.engine;
        let prepared = Prepared::new(shared.model.parts(), engine, request, submission, &*shared.clock)?;
        shared.take_place()?;
        let (feed, events) = events::channel(shared.options.event_buffer, self.line.clone());
        let command = Command::Submit { prepared: Box::new(prepared), feed };
        self.line.commands.send(command).map_err(|_| Error::Stopped)?;
        Ok(events)
    }

    /// What the engine does now, and has done so far.
    pub fn metrics(&self) -> Metrics {
        self.shared().snapshot()
    }

    /// Ends the engine: takes no further requests, waits until those that it has are answered, at most as long as
    /// `grace`, and cancels the rest, whose events end with [`Event::Done`](crate::Event::Done).
    ///
    /// It returns when the engine's thread has ended: after the pass that runs, and the image that is decoded. So it
    /// must not be called from a sampling step, and a thread that holds unread [`Events`] gives a `grace` that ends.
    pub fn shutdown(&self, grace: Duration) {
        let shared = self.shared();
        shared.close();
        let _ = self.line.commands.send(Command::Close { end: Instant::now().checked_add(grace) });
        shared.wait_for_end();
    }

    /// Whether the engine takes no further requests.
    pub fn is_shut_down(&self) -> bool {
        self.shared().is_closing()
    }

    fn shared(&self) -> &Shared {
        &self.line.shared
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("options", &self.shared().options)
            .field("metrics", &self.metrics())
            .finish_non_exhaustive()
    }
}
