//! Asking for an answer: the builder that tasks return, and what comes of it.

use std::marker::PhantomData;
use std::sync::Arc;

use image::RgbImage;
use lumina_core::ImageSize;
use lumina_sampling::{Sampler, SamplingOptions};
use lumina_tokenizer::{Conversation, Malformed};

use crate::event::{Event, Output};
use crate::lumina::Lumina;
use crate::request::{Cancel, GenerateOptions, Request};
use crate::stream::{Adapt, Stream};
use crate::{Error, Result};

/// A request bound to a model, to be refined and then run.
///
/// `T` is what the answer is taken as: [`Output`] for all of it, an [`RgbImage`] or a [`String`] where the task
/// promises one.
#[must_use = "nothing is generated before `run` or `stream`"]
pub struct Generation<'m, T = Output> {
    model: &'m Lumina,
    /// A task's picture may have been refused; that is reported when it runs.
    conversation: Result<Conversation>,
    options: GenerateOptions,
    cancel: Cancel,
    adapt: Option<Adapt>,
    answer: PhantomData<fn() -> T>,
}

/// What an answer can be taken as.
pub trait Answer: Sized {
    /// Takes it from the whole output.
    ///
    /// # Errors
    /// [`Error::Answer`] where the output does not hold it.
    fn from_output(output: Output) -> Result<Self>;
}

impl Answer for Output {
    fn from_output(output: Output) -> Result<Self> {
        Ok(output)
    }
}

impl Answer for String {
    fn from_output(output: Output) -> Result<Self> {
        Ok(output.text)
    }
}

impl Answer for RgbImage {
    /// The first complete image.
    fn from_output(output: Output) -> Result<Self> {
        let Output { images, text, malformed, .. } = output;
        match (images.into_iter().next(), malformed.into_iter().next()) {
            (Some(image), _) => Ok(image),
            (None, Some((malformed, _))) => Err(Error::Malformed(Box::new(malformed))),
            (None, None) => Err(Error::Answer { expected: "image", found: text }),
        }
    }
}

impl<'m, T: Answer> Generation<'m, T> {
    pub(crate) fn new(model: &'m Lumina, conversation: Result<Conversation>, options: GenerateOptions) -> Self {
        Self { model, conversation, options, cancel: Cancel::new(), adapt: None, answer: PhantomData }
    }

    fn sampling(self, set: impl FnOnce(SamplingOptions) -> SamplingOptions) -> Self {
        let options = GenerateOptions { sampling: set(self.options.sampling), ..self.options };
        Self { options, ..self }
    }

    /// Sets all options.
    pub fn options(self, options: GenerateOptions) -> Self {
        Self { options, ..self }
    }

    /// Sets the seed: the same seed gives the same answer.
    pub fn seed(self, seed: u64) -> Self {
        self.sampling(|sampling| sampling.seed(seed))
    }

    /// Sets how strongly images follow the prompt; 1 is without guidance, and twice as fast where compute is the limit.
    pub fn guidance(self, scale: f32) -> Self {
        self.sampling(|sampling| sampling.guidance_scale(scale))
    }

    /// Sets how many of the likeliest image tokens are drawn from.
    pub fn image_top_k(self, k: usize) -> Self {
        self.sampling(|sampling| sampling.image_top_k(k))
    }

    /// Sets how many of the likeliest text tokens are drawn from.
    pub fn text_top_k(self, k: usize) -> Self {
        self.sampling(|sampling| sampling.text_top_k(k))
    }

    /// Sets the temperature.
    pub fn temperature(self, temperature: f32) -> Self {
        self.sampling(|sampling| sampling.temperature(temperature))
    }

    /// Takes the most likely token at each position, with no draw.
    pub fn greedy(self) -> Self {
        self.sampling(SamplingOptions::greedy)
    }

    /// Fixes the size of the answer's image; without it the model states it.
    pub fn image_size(self, size: ImageSize) -> Self {
        self.sampling(|sampling| sampling.image_size(size))
    }

    /// Sets the most tokens to generate.
    pub fn max_new_tokens(mut self, max_new_tokens: usize) -> Self {
        self.options.max_new_tokens = max_new_tokens;
        self
    }

    /// Ends the answer after this many images.
    pub fn max_images(mut self, max_images: usize) -> Self {
        self.options.max_images = Some(max_images);
        self
    }

    /// Ends the answer after this many milliseconds, with what is there.
    pub fn deadline_ms(mut self, deadline_ms: u64) -> Self {
        self.options.deadline_ms = Some(deadline_ms);
        self
    }

    /// Streams a partial picture each time that this many rows have come.
    pub fn preview_every_rows(mut self, rows: u32) -> Self {
        self.options.preview_every_rows = Some(rows);
        self
    }

    /// Sets what becomes of an image that is cut off or malformed.
    pub fn malformed(mut self, malformed: Malformed) -> Self {
        self.options.malformed = malformed;
        self
    }

    /// Lets another thread end the generation.
    pub fn cancel_with(self, cancel: &Cancel) -> Self {
        Self { cancel: cancel.clone(), ..self }
    }

    /// Changes the sampler that the options ask for: the place to add a [`Step`](lumina_sampling::Step) of one's own.
    pub fn sampler(self, adapt: impl Fn(Sampler) -> Sampler + Send + Sync + 'static) -> Self {
        Self { adapt: Some(Arc::new(adapt)), ..self }
    }

    /// The request as a value: to be kept, sent, batched with others, or asked again.
    ///
    /// A changed [sampler](Self::sampler) and a [cancel token](Self::cancel_with) are no values, and no part of it.
    ///
    /// # Errors
    /// What was wrong with the pictures that the task was given.
    pub fn request(self) -> Result<Request> {
        Ok(Request { conversation: self.conversation?, options: self.options })
    }

    /// Generates, and gives each event as it happens. Dropping the stream ends the generation.
    ///
    /// # Errors
    /// What is wrong with the request: nothing has been generated then.
    pub fn stream(self) -> Result<Stream<'m>> {
        let request = Request { conversation: self.conversation?, options: self.options };
        let mut stream = Stream::new(self.model);
        stream.push(0, &request, self.cancel, self.adapt)?;
        Ok(stream)
    }

    /// Generates to the end.
    ///
    /// # Errors
    /// What is wrong with the request, what fails on the way, and [`Error::Answer`] where the answer is not what the
    /// task promises.
    pub fn run(self) -> Result<T> {
        let mut output = Output::default();
        for event in self.stream()? {
            output.take(event?);
        }
        T::from_output(output)
    }
}

impl Output {
    /// Takes up what an event adds.
    pub(crate) fn take(&mut self, event: Event) {
        match event {
            Event::Text(text) => self.text.push_str(&text),
            Event::Image { image, codes } => {
                self.text.push_str(lumina_core::Vocabulary::PLACEHOLDER);
                self.images.push(image);
                self.codes.push(codes);
            }
            Event::Malformed { malformed, partial } => self.malformed.push((*malformed, partial)),
            Event::Done { stats, tokens } => {
                self.stats = stats;
                self.tokens = tokens;
            }
            Event::ImageStarted { .. } | Event::ImageRow { .. } | Event::Preview(_) => {}
        }
    }
}
