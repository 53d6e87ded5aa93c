//! The builder that tasks return.

use std::marker::PhantomData;
use std::sync::Arc;

use lumina_core::ImageSize;
use lumina_sampling::{DrawRule, Modality, Sampler, SamplingOptions, Speculation};
use lumina_tokenizer::Malformed;

use super::lumina::Lumina;
use super::output::{Answer, Output};
use super::stream::Stream;
use crate::Result;
use crate::engine::{Cancel, GenerateOptions, Prompt, Request, Submission};

/// A request bound to a model, to be configured and then run.
///
/// `T` is what the answer is taken as: [`Output`] for all of it, an [`RgbImage`](image::RgbImage) or a [`String`] where
/// the task promises one.
#[must_use = "nothing is generated before `run` or `stream`"]
pub struct Generation<'m, T = Output> {
    model: &'m Lumina,
    /// An error of a task's image is reported when it runs.
    prompt: Result<Prompt>,
    options: GenerateOptions,
    submission: Submission,
    answer: PhantomData<fn() -> T>,
}

impl<'m, T: Answer> Generation<'m, T> {
    pub(crate) fn new(model: &'m Lumina, prompt: Result<Prompt>, options: GenerateOptions) -> Self {
        Self { model, prompt, options, submission: Submission::default(), answer: PhantomData }
    }

    fn change(self, change: impl FnOnce(GenerateOptions) -> GenerateOptions) -> Self {
        Self { options: change(self.options), ..self }
    }

    fn sampling(self, change: impl FnOnce(SamplingOptions) -> SamplingOptions) -> Self {
        self.change(|options| options.sampling(change))
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

    /// Sets how many tokens a pass may try. It changes the time that the answer takes, never its tokens.
    pub fn speculation(self, speculation: Speculation) -> Self {
        self.sampling(|sampling| sampling.speculation(speculation))
    }

    /// Fixes the size of the answer's image; without it the model states it.
    pub fn image_size(self, size: ImageSize) -> Self {
        self.sampling(|sampling| sampling.image_size(size))
    }

    /// Sets which of several answers to the same request this is; each has its own draws.
    pub fn branch(self, branch: u64) -> Self {
        self.sampling(|sampling| sampling.branch(branch))
    }

    /// Sets how seed and branch make the draws.
    pub fn draw(self, draw: DrawRule) -> Self {
        self.sampling(|sampling| sampling.draw(draw))
    }

    /// Sets what the answer is made of.
    pub fn modality(self, modality: Modality) -> Self {
        self.sampling(|sampling| sampling.modality(modality))
    }

    /// Makes tokens less likely that the text already contains; 1 is no less.
    pub fn repetition_penalty(self, penalty: f32) -> Self {
        self.sampling(|sampling| sampling.repetition_penalty(penalty))
    }

    /// Keeps the likeliest candidates that together have this probability, above 0 and up to 1.
    pub fn top_p(self, top_p: f32) -> Self {
        self.sampling(|sampling| sampling.top_p(top_p))
    }

    /// Keeps candidates with at least this fraction of the highest probability, 0 to 1.
    pub fn min_p(self, min_p: f32) -> Self {
        self.sampling(|sampling| sampling.min_p(min_p))
    }

    /// Sets the most tokens to generate.
    pub fn max_new_tokens(self, max_new_tokens: usize) -> Self {
        self.change(|options| options.max_new_tokens(max_new_tokens))
    }

    /// Ends the answer after this many images.
    pub fn max_images(self, max_images: usize) -> Self {
        self.change(|options| options.max_images(max_images))
    }

    /// Ends the answer after this many milliseconds, with what is there.
    pub fn deadline_ms(self, deadline_ms: u64) -> Self {
        self.change(|options| options.deadline_ms(deadline_ms))
    }

    /// Streams a partial image each time that this many rows are complete, but for the last ones.
    pub fn preview_every_rows(self, rows: u32) -> Self {
        self.change(|options| options.preview_every_rows(rows))
    }

    /// Sets what becomes of an image that is cut off or malformed.
    pub fn malformed(self, malformed: Malformed) -> Self {
        self.change(|options| options.malformed(malformed))
    }

    /// Lets another thread end the generation.
    pub fn cancel_with(self, cancel: &Cancel) -> Self {
        let submission = Submission { cancel: cancel.clone(), ..self.submission };
        Self { submission, ..self }
    }

    /// Changes the sampler that the options ask for: the place to add a [`Step`](lumina_sampling::Step) of one's own.
    pub fn sampler(self, adapt: impl Fn(Sampler) -> Sampler + Send + Sync + 'static) -> Self {
        let submission = Submission { sampler: Some(Arc::new(adapt)), ..self.submission };
        Self { submission, ..self }
    }

    /// The request as a value: to be kept, sent, batched with others, or asked again.
    ///
    /// A changed [sampler](Self::sampler) and a [cancel token](Self::cancel_with) are not values, and not part of it.
    ///
    /// # Errors
    /// What was wrong with the images that the task was given.
    pub fn request(self) -> Result<Request> {
        Ok(Request { prompt: self.prompt?, options: self.options })
    }

    /// Generates, and returns each event as it happens. Dropping the stream ends the generation.
    ///
    /// # Errors
    /// What is wrong with the request: nothing has been generated then.
    pub fn stream(self) -> Result<Stream> {
        let request = Request { prompt: self.prompt?, options: self.options };
        let mut stream = Stream::new(self.model);
        stream.submit(0, &request, self.submission)?;
        Ok(stream)
    }

    /// Generates to the end.
    ///
    /// # Errors
    /// What is wrong with the request, what fails on the way, and [`Error::Answer`](crate::Error::Answer) where
    /// the answer is not what the task promises.
    pub fn run(self) -> Result<T> {
        let mut output = Output::default();
        for event in self.stream()? {
            output.add(event?);
        }
        T::from_output(output)
    }
}
