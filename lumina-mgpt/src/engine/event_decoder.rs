//! From a sequence's tokens to events, in order, with images that are decoded elsewhere meanwhile.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use image::RgbImage;
use lumina_core::CodeGrid;
use lumina_tokenizer::{Malformed, MalformedImage, StreamDecoder, StreamEvent};

use super::event::Event;
use super::images::{DecodeResult, DecodeWork};
use super::options::RequestId;
use super::request::GenerateOptions;
use super::sequence::Sequence;
use crate::model::ModelParts;
use crate::stop_reason::StopReason;
use crate::{Error, Result};

/// Turns the tokens of one request into events.
pub(super) struct EventDecoder {
    request: RequestId,
    model: Arc<ModelParts>,
    decoder: StreamDecoder,
    options: GenerateOptions,
    /// How many of the answer's tokens have been decoded.
    n_decoded: usize,
    /// The rows of the image in progress, where previews are wanted.
    rows: Vec<u32>,
    columns: u32,
    n_rows: u32,
    /// Events in their order. Those behind an image wait for it.
    queue: VecDeque<Queued>,
    next_work: u64,
    image_decode: Duration,
    is_finished: bool,
    /// Nobody reads the events: no image is worth decoding.
    is_abandoned: bool,
}

/// An event that is ready, or waits for an image.
enum Queued {
    Ready(Event),
    Waiting { work: u64, then: AfterImage },
}

/// What an image is decoded for.
enum AfterImage {
    Preview,
    Image(CodeGrid),
    Malformed(Box<MalformedImage>),
}

impl EventDecoder {
    pub(super) fn new(request: RequestId, model: Arc<ModelParts>, options: GenerateOptions) -> Self {
        let decoder = model.unirep.stream();
        Self {
            request,
            model,
            decoder,
            options,
            n_decoded: 0,
            rows: Vec::new(),
            columns: 0,
            n_rows: 0,
            queue: VecDeque::new(),
            next_work: 0,
            image_decode: Duration::ZERO,
            is_finished: false,
            is_abandoned: false,
        }
    }

    /// Decodes the tokens that are new since the last time; images go to `work`.
    ///
    /// # Errors
    /// [`Error::Malformed`] where the request wants whole images alone.
    pub(super) fn decode(&mut self, sequence: &Sequence, work: &mut VecDeque<DecodeWork>) -> Result<()> {
        let turn_end = self.model.unirep.vocabulary().turn_end();
        while let Some(&token) = sequence.answer().get(self.n_decoded) {
            self.n_decoded += 1;
            // The end of the turn is no part of the text.
            if sequence.is_done() && self.n_decoded == sequence.answer().len() && token == turn_end {
                break;
            }
            if let Some(event) = self.decoder.push(token) {
                self.queue_event(event, None, work)?;
            }
        }
        if sequence.is_done() && !self.is_finished {
            self.is_finished = true;
            if let Some(event) = self.decoder.finish() {
                self.queue_event(event, Some(sequence.stats().stop), work)?;
            }
            let done = Event::Done { stats: sequence.stats(), tokens: sequence.answer().to_vec() };
            self.queue.push_back(Queued::Ready(done));
        }
        Ok(())
    }

    /// Queues an event; `stop` is why the sequence has ended, if it has.
    fn queue_event(
        &mut self,
        event: StreamEvent,
        stop: Option<StopReason>,
        work: &mut VecDeque<DecodeWork>,
    ) -> Result<()> {
        match event {
            StreamEvent::Text(text) => self.ready(Event::Text(text)),
            StreamEvent::Special(name) => self.ready(Event::Special(name)),
            StreamEvent::ImageStarted { size } => {
                self.rows.clear();
                (self.columns, self.n_rows) = (size.latent_columns(), size.latent_rows());
                self.ready(Event::ImageStarted { size });
            }
            StreamEvent::Row { row, codes } => {
                let every = self.options.preview_every_rows;
                if every.is_some() {
                    self.rows.extend(&codes);
                }
                self.ready(Event::ImageRow { row, codes });
                // After the last row comes the image itself.
                if every.is_some_and(|every| (row + 1).is_multiple_of(every)) && row + 1 < self.n_rows {
                    let so_far = CodeGrid::new(row + 1, self.columns, self.rows.clone())?;
                    self.after_image(so_far, AfterImage::Preview, work);
                }
            }
            StreamEvent::Image(codes) => self.after_image(codes.clone(), AfterImage::Image(codes), work),
            StreamEvent::Malformed(_) if self.is_abandoned => {}
            StreamEvent::Malformed(malformed) => {
                if self.options.malformed == Malformed::Error {
                    return Err(Error::Malformed { malformed, stop });
                }
                match malformed.rows.clone() {
                    Some(rows) => self.after_image(rows, AfterImage::Malformed(malformed), work),
                    None => self.ready(Event::Malformed { malformed, partial: None }),
                }
            }
        }
        Ok(())
    }

    fn ready(&mut self, event: Event) {
        self.queue.push_back(Queued::Ready(event));
    }

    fn after_image(&mut self, codes: CodeGrid, then: AfterImage, work: &mut VecDeque<DecodeWork>) {
        if self.is_abandoned {
            return;
        }
        let id = self.next_work;
        self.next_work += 1;
        self.queue.push_back(Queued::Waiting { work: id, then });
        work.push_back(DecodeWork { id, request: self.request, codes, model: self.model.clone() });
    }

    /// Leaves out all images from now on, as nobody reads the events.
    pub(super) fn abandon(&mut self) {
        self.is_abandoned = true;
        self.queue.retain(|queued| matches!(queued, Queued::Ready(_)));
    }

    /// Takes a decoded image.
    ///
    /// # Errors
    /// Those of decoding.
    pub(super) fn complete(&mut self, result: DecodeResult) -> Result<()> {
        let DecodeResult { id, image, time, .. } = result;
        self.image_decode += time;
        let waits = |queued: &&mut Queued| matches!(queued, Queued::Waiting { work, .. } if *work == id);
        let Some(queued) = self.queue.iter_mut().find(waits) else { return Ok(()) };
        let image = image?;
        *queued = Queued::Ready(match std::mem::replace(queued, Queued::Ready(Event::Text(String::new()))) {
            Queued::Waiting { then, .. } => then.event(image),
            Queued::Ready(event) => event,
        });
        Ok(())
    }

    /// The next event in order, if it does not wait for an image.
    pub(super) fn next(&mut self) -> Option<Event> {
        let ready = self.queue.pop_front_if(|queued| matches!(queued, Queued::Ready(_)))?;
        let Queued::Ready(mut event) = ready else { return None };
        if let Event::Done { stats, .. } = &mut event {
            stats.image_decode = self.image_decode;
        }
        Some(event)
    }

    /// Whether all events have been taken.
    pub(super) fn is_drained(&self) -> bool {
        self.is_finished && self.queue.is_empty()
    }
}

impl AfterImage {
    fn event(self, image: RgbImage) -> Event {
        match self {
            Self::Preview => Event::Preview(image),
            Self::Image(codes) => Event::Image { image, codes },
            Self::Malformed(malformed) => Event::Malformed { malformed, partial: Some(image) },
        }
    }
}
