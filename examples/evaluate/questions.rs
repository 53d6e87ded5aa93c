//! Asks a model questions about scenes and evaluates its answers.

use anyhow::{Context, Result};
use image::RgbImage;
use lumina_core::ImageSize;
use lumina_examples::{ModelArgs, dataset_for};
use lumina_mgpt::{Answer, Conversation, Generation, InputImage, Lumina, Part, Request, Task};
use lumina_scenes::dataset::{GroundTruth, SceneRecord, SceneTask};
use lumina_scenes::evaluation::{AnswerEvaluation, evaluate_image};
use lumina_scenes::{Caption, Split, free_prompts};

use super::page::{Entry, Page};
use super::table::{Row, TaskResults};

/// Asks a model questions about scenes.
pub(crate) struct Evaluation<'a> {
    pub(crate) model: &'a Lumina,
    pub(crate) args: &'a ModelArgs,
    pub(crate) seed: u64,
    pub(crate) batch: usize,
}

/// A question, and what is known of its answer.
struct Question {
    /// For the page.
    text: String,
    /// The image that it is about, for the page.
    input: Option<RgbImage>,
    size: ImageSize,
    request: Request,
    expected: Expected,
}

/// What an answer is compared with.
enum Expected {
    GroundTruth(GroundTruth),
    /// An image of this.
    Image(Caption),
}

impl Evaluation<'_> {
    /// Asks `n` questions of a task, adds the answers to the page and returns the rows of the table.
    pub(crate) fn run(&self, task: SceneTask, split: Split, n: u64, page: &mut Page) -> Result<Vec<Row>> {
        let dataset = dataset_for(self.model, self.seed, split, task)?;
        let name = if split == Split::HeldOut { format!("{task}, held-out kinds") } else { task.to_string() };
        let questions = (0..n).map(|number| self.question(dataset.record(number), number));
        self.ask(TaskResults::new(name, task), questions, page)
    }

    /// Draws the prompts that people wrote, adds the images to the page and returns the rows of the table.
    pub(crate) fn free_prompts(&self, page: &mut Page) -> Result<Vec<Row>> {
        // A model is asked for what it has learnt.
        let sizes = self.model.image_sizes();
        let mut questions = Vec::new();
        for (number, prompt) in (0u64..).zip(free_prompts()) {
            let size = prompt.image_size()?;
            if sizes.contains(&size) {
                questions.push(Question {
                    text: prompt.text.to_owned(),
                    input: None,
                    size,
                    request: self.request(self.model.text_to_image(prompt.text, prompt.size), number)?,
                    expected: Expected::Image(prompt.expected()?),
                });
            }
        }
        let results = TaskResults::new("free wording".to_owned(), SceneTask::TextToImage);
        self.ask(results, questions.into_iter().map(Ok), page)
    }

    /// Asks all questions, a batch at a time.
    fn ask(
        &self,
        mut results: TaskResults,
        mut questions: impl Iterator<Item = Result<Question>>,
        page: &mut Page,
    ) -> Result<Vec<Row>> {
        loop {
            let batch = questions.by_ref().take(self.batch).collect::<Result<Vec<_>>>()?;
            if batch.is_empty() {
                return Ok(results.rows());
            }
            let requests: Vec<Request> = batch.iter().map(|question| question.request.clone()).collect();
            for (question, answer) in batch.into_iter().zip(self.model.run_batch(&requests)) {
                let answer = answer.with_context(|| question.text.clone())?;
                let image = answer.images.first();
                let evaluation = match &question.expected {
                    Expected::GroundTruth(truth) => AnswerEvaluation::new(truth, &answer.text, image)?,
                    Expected::Image(caption) => {
                        AnswerEvaluation::Image(image.map(|image| evaluate_image(caption, question.size, image)))
                    }
                };
                // The page shows the images themselves.
                let said = answer.text_without_images();
                let text = if said.is_empty() { String::new() } else { format!(" → {said}") };
                let entry = Entry {
                    question: question.text + &text,
                    images: question.input.into_iter().chain(answer.images).collect(),
                    is_correct: evaluation.is_correct(),
                    remark: evaluation.to_string(),
                };
                page.add(results.name(), entry)?;
                results.add(question.size, evaluation);
            }
        }
    }

    /// The question that a record asks.
    fn question(&self, record: SceneRecord, number: u64) -> Result<Question> {
        let SceneRecord { record, typed, ground_truth, .. } = record;
        let (task, scene, typed) = (ground_truth.task, &ground_truth.scene, typed.as_str());
        let picture = scene.image();
        let image = || InputImage::from(picture.clone());
        let (text, request) = match task {
            SceneTask::TextToImage => {
                let size = (scene.size().width_px(), scene.size().height_px());
                (format!("{}: {typed}", scene.size()), self.request(self.model.text_to_image(typed, size), number)?)
            }
            SceneTask::Captioning => (String::new(), self.request(self.model.caption(image()), number)?),
            SceneTask::DepthEstimation => {
                let map = self.model.edit(Task::DepthEstimation, image(), None);
                (String::new(), self.request(map, number)?)
            }
            SceneTask::SemanticSegmentation => {
                let map = self.model.edit(Task::SemanticSegmentation, image(), None);
                (String::new(), self.request(map, number)?)
            }
            SceneTask::Editing => {
                (typed.to_owned(), self.request(self.model.edit(Task::Editing, image(), typed), number)?)
            }
            SceneTask::Question => (typed.to_owned(), self.request(self.model.ask(typed, image()), number)?),
            // The first answer is given as the correct image, so that only the second is evaluated.
            SceneTask::ImageThenEdit | SceneTask::ImageThenCaption | SceneTask::ImageThenQuestion => {
                let codes = self.model.encode_image(&image())?;
                let mut asked = record.conversations.iter().step_by(2).filter_map(|turn| turn.value.as_deref());
                let (first, second) = (asked.next().unwrap_or_default(), asked.next().unwrap_or_default());
                let conversation = Conversation::new().human(first).assistant(Part::Image(codes)).human(second);
                (format!("{first}; then: {second}"), self.request(self.model.chat(conversation), number)?)
            }
        };
        let input = (task != SceneTask::TextToImage).then_some(picture);
        Ok(Question { text, input, size: scene.size(), request, expected: Expected::GroundTruth(ground_truth) })
    }

    /// A request with the checkpoint's settings and those that were given, and a seed of its own.
    fn request<T: Answer>(&self, generation: Generation<'_, T>, number: u64) -> Result<Request> {
        let mut request = self.args.apply_sampling(generation).request()?;
        let seed = &mut request.options.sampling.seed;
        *seed = seed.wrapping_add(number);
        Ok(request)
    }
}
