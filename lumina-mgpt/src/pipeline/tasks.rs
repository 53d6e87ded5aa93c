//! The tasks: each is a prompt and defaults. All go through one engine.

use image::RgbImage;
use lumina_core::ImageSize;
use lumina_sampling::{Modality, SamplingOptions};
use lumina_tokenizer::{Conversation, Task, TaskInput, TaskOutput};
use lumina_vq::preprocess::InputImage;

use super::generation::Generation;
use super::lumina::Lumina;
use super::output::{Answer, Output};
use crate::engine::{GenerateOptions, Request};
use crate::{Error, Result};

impl Lumina {
    /// Continues a conversation, in text and images as the model chooses, with the checkpoint's settings
    /// ([`Lumina::preset`]).
    pub fn chat(&self, conversation: Conversation) -> Generation<'_, Output> {
        let sampling = self.preset().apply(SamplingOptions::default());
        let options = GenerateOptions { sampling, ..GenerateOptions::default() };
        self.generate(Request { conversation, options })
    }

    /// Answers a request as it stands.
    pub fn generate(&self, request: Request) -> Generation<'_, Output> {
        Generation::new(self, Ok(request.conversation), request.options)
    }

    /// Draws an image of `width` × `height` pixels, multiples of 32.
    ///
    /// Checkpoints draw best at the sizes that they were trained on: see
    /// [`crop_sizes`](lumina_core::crop_sizes) of 512, 768 or 1024.
    pub fn text_to_image(&self, prompt: &str, (width, height): (u32, u32)) -> Generation<'_, RgbImage> {
        let size = ImageSize::new(width, height).map_err(Error::from);
        let size = size.and_then(|size| self.preset().check_size(size).map(|()| size));
        let fixed = size.as_ref().ok().copied();
        let input = size.map(|size| TaskInput::new().text(prompt).size(size));
        let generation = self.task(Task::TextToImage, input);
        match fixed {
            Some(size) => generation.image_size(size),
            None => generation,
        }
    }

    /// Describes an image.
    pub fn caption(&self, image: impl Into<InputImage>) -> Generation<'_, String> {
        let input = self.encode_image(&image.into()).map(|codes| TaskInput::new().image(codes));
        self.task(Task::Captioning, input)
    }

    /// Answers a question about an image.
    pub fn ask(&self, question: &str, image: impl Into<InputImage>) -> Generation<'_, String> {
        let conversation = self
            .encode_image(&image.into())
            .map(|codes| Conversation::new().human([codes.into(), " ".into(), question.into()]));
        Generation::new(self, conversation, self.options(Task::Captioning, Modality::Text))
    }

    /// Draws an image from an image: depth, segmentation, normals, pose, and with an `instruction` detection,
    /// editing and the other tasks that take one.
    pub fn edit<'i>(
        &self,
        task: Task,
        image: impl Into<InputImage>,
        instruction: impl Into<Option<&'i str>>,
    ) -> Generation<'_, RgbImage> {
        let input = self.encode_image(&image.into()).map(|codes| {
            let input = TaskInput::new().image(codes);
            instruction.into().into_iter().fold(input, TaskInput::text)
        });
        self.task(task, input)
    }

    /// Any task, with the checkpoint's settings ([`Lumina::preset`]), or else the original's for the task. One that the
    /// checkpoint says it has not learnt is an error when it runs.
    pub fn task<T: Answer>(&self, task: Task, input: Result<TaskInput>) -> Generation<'_, T> {
        let modality = match task.spec().output {
            TaskOutput::Text => Modality::Text,
            TaskOutput::Image => Modality::Image,
            TaskOutput::Any => Modality::Any,
        };
        let input = self.preset().check_task(task).and(input);
        let conversation = input.and_then(|input| Ok(Conversation::new().human(task.prompt(input)?)));
        Generation::new(self, conversation, self.options(task, modality))
    }

    /// The settings for a task: the original's, but for what the checkpoint states.
    fn options(&self, task: Task, modality: Modality) -> GenerateOptions {
        let defaults = task.spec().defaults;
        let sampling = SamplingOptions::default()
            .guidance_scale(defaults.guidance_scale)
            .image_top_k(defaults.image_top_k)
            .text_top_k(defaults.text_top_k)
            .temperature(defaults.temperature)
            .modality(modality);
        let sampling = self.preset().apply(sampling);
        GenerateOptions { sampling, max_new_tokens: defaults.max_new_tokens, ..GenerateOptions::default() }
    }
}
