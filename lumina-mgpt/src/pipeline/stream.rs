//! Answers as they come: the generation loop turned into an iterator of events.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use image::RgbImage;
use lumina_core::CodeGrid;
use lumina_sampling::{Modality, Sampler};
use lumina_tokenizer::{Malformed, StreamDecoder, StreamEvent as Decoded};
use lumina_vq::Bands;

use crate::engine::{Job, pass};
use crate::event::{Event, Output};
use crate::lumina::Lumina;
use crate::request::{Cancel, GenerateOptions, Request};
use crate::{Error, Result};

/// The events of one or more answers, generated as they are asked for: each `next` runs passes until there is one.
///
/// Dropping it ends the generation. Made by [`Generation::stream`](crate::Generation::stream) and
/// [`Lumina::stream_batch`].
pub struct Stream<'m> {
    model: &'m Lumina,
    jobs: Vec<Job>,
    tellers: Vec<Teller>,
    events: VecDeque<(usize, Result<Event>)>,
}

/// Changes the sampler that a request's options ask for.
pub(crate) type Adapt = Arc<dyn Fn(Sampler) -> Sampler + Send + Sync>;

/// Turns a job's tokens into events.
struct Teller {
    /// The request's place in the caller's batch.
    request: usize,
    decoder: StreamDecoder,
    options: GenerateOptions,
    /// How many of the answer's tokens have been told.
    told: usize,
    /// The rows of the image that is under way.
    rows: Vec<u32>,
    columns: u32,
    ended: bool,
}

impl<'m> Stream<'m> {
    pub(crate) fn new(model: &'m Lumina) -> Self {
        Self { model, jobs: Vec::new(), tellers: Vec::new(), events: VecDeque::new() }
    }

    /// Adds the request at `index` of the caller's batch.
    pub(crate) fn push(&mut self, index: usize, request: &Request, cancel: Cancel, adapt: Option<Adapt>) -> Result<()> {
        let sampling = &request.options.sampling;
        if sampling.modality == Modality::Image && !self.model.image_tokenizer()?.has_decoder() {
            // Said now, and not after all passes of an image that could not be shown.
            return Err(lumina_vq::Error::NoDecoder.into());
        }
        let unirep = self.model.tokenizer();
        let prompt = unirep.encode(&request.conversation)?.tokens;
        let sampler = Sampler::new(unirep.vocabulary(), sampling)?;
        let sampler = adapt.iter().fold(sampler, |sampler, adapt| adapt(sampler));
        let job = Job::new(self.model.transformer(), unirep.vocabulary(), prompt, sampler, &request.options, cancel)?;
        self.jobs.push(job);
        self.tellers.push(Teller {
            request: index,
            decoder: unirep.stream(),
            options: request.options.clone(),
            told: 0,
            rows: Vec::new(),
            columns: 0,
            ended: false,
        });
        Ok(())
    }

    /// The next event with the index of its request in the batch.
    fn advance(&mut self) -> Option<(usize, Result<Event>)> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            if self.tellers.iter().all(|teller| teller.ended) {
                return None;
            }
            // Tokens that are there without a pass, in the beginning, are told before the first one.
            self.tell();
            if !self.events.is_empty() {
                continue;
            }
            match pass(self.model.transformer(), &mut self.jobs) {
                Ok(failed) => {
                    for (index, error) in failed {
                        self.fail(index, error);
                    }
                }
                Err(error) => {
                    // The device failed under all of them; each hears of it.
                    let reason = error.to_string();
                    for index in 0..self.jobs.len() {
                        self.fail(index, Error::Compute { reason: reason.clone() });
                    }
                }
            }
        }
    }

    fn fail(&mut self, index: usize, error: Error) {
        if !std::mem::replace(&mut self.tellers[index].ended, true) {
            self.jobs[index].abandon();
            self.events.push_back((self.tellers[index].request, Err(error)));
        }
    }

    /// Tells what the jobs have generated since the last time.
    fn tell(&mut self) {
        for index in 0..self.jobs.len() {
            if self.tellers[index].ended {
                continue;
            }
            if let Err(error) = self.tell_job(index) {
                self.fail(index, error);
            }
        }
    }

    fn tell_job(&mut self, index: usize) -> Result<()> {
        let (job, teller) = (&mut self.jobs[index], &mut self.tellers[index]);
        let request = teller.request;
        let mut tell = |event| self.events.push_back((request, Ok(event)));
        let turn_end = self.model.tokenizer().vocabulary().turn_end();
        while let Some(&token) = job.answer().get(teller.told) {
            teller.told += 1;
            // The end of the turn says that there is no more; it is no part of the text.
            if job.is_done() && teller.told == job.answer().len() && token == turn_end {
                break;
            }
            if let Some(decoded) = teller.decoder.push(token) {
                teller.translate(decoded, self.model, job, &mut tell)?;
            }
        }
        if job.is_done() {
            if let Some(decoded) = teller.decoder.finish() {
                teller.translate(decoded, self.model, job, &mut tell)?;
            }
            teller.ended = true;
            tell(Event::Done { stats: job.stats(), tokens: job.answer().to_vec() });
        }
        Ok(())
    }
}

impl Teller {
    /// Turns what the tokenizer says into what the caller hears, with pictures where codes are complete.
    fn translate(
        &mut self,
        decoded: Decoded,
        model: &Lumina,
        job: &mut Job,
        tell: &mut dyn FnMut(Event),
    ) -> Result<()> {
        let mut picture = |codes: &CodeGrid| -> Result<RgbImage> {
            let started = Instant::now();
            let image = model.image_tokenizer()?.decode(codes, Bands::Whole)?;
            job.add_image_decode(started.elapsed());
            Ok(image)
        };
        match decoded {
            Decoded::Text(text) => tell(Event::Text(text)),
            Decoded::ImageStarted { size } => {
                self.rows.clear();
                self.columns = size.latent_columns();
                tell(Event::ImageStarted { size });
            }
            Decoded::Row { row, codes } => {
                let preview = self.options.preview_every_rows.is_some_and(|every| (row + 1).is_multiple_of(every));
                if self.options.preview_every_rows.is_some() {
                    self.rows.extend(&codes);
                }
                tell(Event::ImageRow { row, codes });
                if preview {
                    let so_far = CodeGrid::new(row + 1, self.columns, self.rows.clone())?;
                    tell(Event::Preview(picture(&so_far)?));
                }
            }
            Decoded::Image(codes) => tell(Event::Image { image: picture(&codes)?, codes }),
            Decoded::Malformed(malformed) => {
                if self.options.malformed == Malformed::Error {
                    return Err(Error::Malformed(malformed));
                }
                let partial = malformed.rows.as_ref().map(&mut picture).transpose()?;
                tell(Event::Malformed { malformed, partial });
            }
        }
        Ok(())
    }
}

impl Iterator for Stream<'_> {
    type Item = Result<Event>;

    fn next(&mut self) -> Option<Self::Item> {
        self.advance().map(|(_, event)| event)
    }
}

/// The events of several answers, each with the index of its request.
pub struct BatchStream<'m>(Stream<'m>);

impl Iterator for BatchStream<'_> {
    type Item = (usize, Result<Event>);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.advance()
    }
}

impl Lumina {
    /// Generates several answers in the same passes over the weights, and gives each event as it happens.
    ///
    /// A request that cannot be begun gives its error as its only event; the others are not affected.
    pub fn stream_batch(&self, requests: &[Request]) -> BatchStream<'_> {
        self.stream_batch_with(requests, &Cancel::new())
    }

    /// [`Lumina::stream_batch`] that another thread can end.
    pub fn stream_batch_with(&self, requests: &[Request], cancel: &Cancel) -> BatchStream<'_> {
        let mut stream = Stream::new(self);
        for (index, request) in requests.iter().enumerate() {
            if let Err(error) = stream.push(index, request, cancel.clone(), None) {
                stream.events.push_back((index, Err(error)));
            }
        }
        BatchStream(stream)
    }

    /// Generates several answers in the same passes over the weights, to the end; in the order of the requests.
    pub fn run_batch(&self, requests: &[Request]) -> Vec<Result<Output>> {
        let mut outputs: Vec<Result<Output>> = requests.iter().map(|_| Ok(Output::default())).collect();
        for (index, event) in self.stream_batch(requests) {
            match (&mut outputs[index], event) {
                (Ok(output), Ok(event)) => output.take(event),
                (slot, Err(error)) => *slot = Err(error),
                (Err(_), Ok(_)) => {}
            }
        }
        outputs
    }
}
