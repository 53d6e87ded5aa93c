//! The tasks: each is a prompt and defaults. All go through one engine.

use image::RgbImage;
use lumina_core::ImageSize;
use lumina_tokenizer::{Conversation, Task, TaskInput};
use lumina_vq::preprocess::InputImage;

use super::generation::Generation;
use super::lumina::Lumina;
use super::output::{Answer, Output};
use crate::engine::{GenerateOptions, Prompt, Request, RequestJson};
use crate::{Error, Result};

impl Lumina {
    /// Continues a conversation, in text and images as the model chooses, with the checkpoint's settings
    /// ([`Lumina::preset`]).
    pub fn chat(&self, conversation: Conversation) -> Generation<'_, Output> {
        Generation::new(self, Ok(conversation.into()), self.defaults(None))
    }

    /// Answers a request as it stands.
    pub fn generate(&self, request: Request) -> Generation<'_, Output> {
        Generation::new(self, Ok(request.prompt), request.options)
    }

    /// Reads a [`Request`] from JSON, with the checkpoint's settings ([`Lumina::preset`]) for the options that are left
    /// out, and as strict as reading a [`Request`] is.
    ///
    /// ```
    /// # use lumina_mgpt::{Compute, Lumina, Request};
    /// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../model");
    /// # let model = Lumina::from_pretrained(folder).compute(Compute::cpu()).load()?;
    /// let json = r#"{ "task": "text_to_image", "prompt": "a red circle", "size": [256, 256] }"#;
    /// let request = model.read_request(json)?;
    /// assert_eq!(Some(request.options.sampling.guidance_scale), model.preset().guidance_scale);
    /// # Ok::<(), lumina_mgpt::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Request`], which says where it is malformed, and what the checkpoint says it has not learnt.
    pub fn read_request(&self, json: &str) -> Result<Request> {
        let malformed = |reason| Error::Request { reason };
        let read: RequestJson = serde_json::from_str(json).map_err(|error| malformed(error.to_string()))?;
        let request = read.with_defaults(|task| self.defaults(task)).map_err(malformed)?;
        request.options.sampling.validate()?;
        if let Prompt::Task(task, input) = &request.prompt {
            self.preset().check_input(*task, input)?;
        }
        Ok(request)
    }

    /// Draws an image of `width` × `height` pixels, multiples of 32.
    ///
    /// Checkpoints draw best at the sizes that they were trained on: see
    /// [`crop_sizes`](lumina_core::crop_sizes) of 512, 768 or 1024.
    pub fn text_to_image(&self, prompt: &str, (width, height): (u32, u32)) -> Generation<'_, RgbImage> {
        let size = ImageSize::new(width, height).map_err(Error::from);
        self.task(Task::TextToImage, size.map(|size| TaskInput::new().text(prompt).size(size)))
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
        let options = self.defaults(Some((Task::Captioning, None)));
        Generation::new(self, conversation.map(Prompt::from), options)
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
        let size = input.as_ref().ok().and_then(|input| input.size);
        let options = self.defaults(Some((task, size)));
        let prompt =
            input.and_then(|input| self.preset().check_input(task, &input).map(|()| Prompt::Task(task, input)));
        Generation::new(self, prompt, options)
    }

    /// The settings for a task, or for a conversation: the original's, but for what the checkpoint states.
    fn defaults(&self, task: Option<(Task, Option<ImageSize>)>) -> GenerateOptions {
        GenerateOptions::of(task).sampling(|sampling| self.preset().apply(sampling, task.map(|(task, _)| task)))
    }
}
