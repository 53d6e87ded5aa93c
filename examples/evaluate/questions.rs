//! Asks a model questions about scenes and evaluates its answers.

use anyhow::{Context, Result};
use lumina_examples::{ModelArgs, scenes_for};
use lumina_mgpt::{Conversation, InputImage, Lumina, Part, Request, Task};
use lumina_scenes::dataset::{DatasetOptions, SceneDataset, SceneRecord, SceneTask};
use lumina_scenes::evaluation::{AnswerEvaluation, evaluate_image};
use lumina_scenes::{FreePrompt, Split, free_prompts};

use super::page::{Entry, Page};
use super::table::{Row, TaskResults};

/// Asks a model questions about scenes.
pub(crate) struct Evaluation<'a> {
    pub(crate) model: &'a Lumina,
    pub(crate) args: &'a ModelArgs,
    pub(crate) seed: u64,
    pub(crate) batch: usize,
}

/// A question as text, for the page, and as a request.
struct Question {
    text: String,
    request: Request,
}

impl Evaluation<'_> {
    /// Asks `n` questions of a task, adds the answers to the page and returns the rows of the table.
    pub(crate) fn run(&self, task: SceneTask, split: Split, n: u64, page: &mut Page) -> Result<Vec<Row>> {
        let target_px = self.model.target_size_px();
        let tasks = [(task, 1)].into();
        let scenes = scenes_for(self.model, self.seed, split)?;
        let image_sizes = Some(scenes.sizes().iter().map(|size| (size.width_px(), size.height_px())).collect());
        let options =
            DatasetOptions { seed: self.seed, split, tasks, target_px, image_sizes, ..DatasetOptions::default() };
        let dataset = SceneDataset::new(options)?;
        let name = if split == Split::HeldOut { format!("{task}, held-out kinds") } else { task.to_string() };
        let mut results = TaskResults::new(name.clone(), task);
        for first in (0..n).step_by(self.batch) {
            let indices = first..n.min(first.saturating_add(self.batch as u64));
            let records: Vec<_> = indices.map(|index| dataset.record(index)).collect();
            let questions: Vec<Question> =
                (first..).zip(&records).map(|(number, record)| self.question(record, number)).collect::<Result<_>>()?;
            let requests: Vec<Request> = questions.iter().map(|question| question.request.clone()).collect();
            let answers = self.model.run_batch(&requests);
            for ((record, question), answer) in records.iter().zip(questions).zip(answers) {
                let answer = answer.with_context(|| question.text.clone())?;
                let scene = &record.ground_truth.scene;
                let evaluation = AnswerEvaluation::new(&record.ground_truth, &answer.text, answer.images.first())?;
                let input = (task != SceneTask::TextToImage).then(|| scene.image());
                let text = if answer.text.is_empty() { String::new() } else { format!(" → {}", answer.text) };
                let entry = Entry {
                    question: question.text + &text,
                    images: input.into_iter().chain(answer.images).collect(),
                    is_correct: evaluation.is_correct(),
                    remark: evaluation.to_string(),
                };
                page.add(&name, entry)?;
                results.add(scene.size(), evaluation);
            }
        }
        Ok(results.rows())
    }

    /// The question with this number, asked with the checkpoint's settings and those that were given.
    fn question(&self, record: &SceneRecord, number: u64) -> Result<Question> {
        let scene = &record.ground_truth.scene;
        let image = || InputImage::from(scene.image());
        let typed = record.typed.as_str();
        // A macro, because the types of generations differ.
        macro_rules! request {
            ($generation:expr) => {
                self.args.apply_sampling($generation).request()?
            };
        }
        let (text, mut request) = match record.ground_truth.task {
            SceneTask::TextToImage => {
                let size = (scene.size().width_px(), scene.size().height_px());
                (format!("{}: {typed}", scene.size()), request!(self.model.text_to_image(typed, size)))
            }
            SceneTask::Captioning => (String::new(), request!(self.model.caption(image()))),
            SceneTask::DepthEstimation => {
                (String::new(), request!(self.model.edit(Task::DepthEstimation, image(), None)))
            }
            SceneTask::SemanticSegmentation => {
                (String::new(), request!(self.model.edit(Task::SemanticSegmentation, image(), None)))
            }
            SceneTask::Editing => (typed.to_owned(), request!(self.model.edit(Task::Editing, image(), typed))),
            SceneTask::Question => (typed.to_owned(), request!(self.model.ask(typed, image()))),
            // The first answer is given as the correct image, so that only the second is evaluated.
            SceneTask::ImageThenEdit | SceneTask::ImageThenCaption | SceneTask::ImageThenQuestion => {
                let codes = self.model.encode_image(&image())?;
                let mut asked = record.record.conversations.iter().step_by(2).filter_map(|turn| turn.value.as_deref());
                let (first, second) = (asked.next().unwrap_or_default(), asked.next().unwrap_or_default());
                let conversation = Conversation::new().human(first).assistant(Part::Image(codes)).human(second);
                (format!("{first}; then: {second}"), request!(self.model.chat(conversation)))
            }
        };
        let seed = &mut request.options.sampling.seed;
        *seed = seed.wrapping_add(number);
        Ok(Question { text, request })
    }

    /// Draws the prompts that people wrote, adds the images to the page and returns the rows of the table.
    pub(crate) fn free_prompts(&self, page: &mut Page) -> Result<Vec<Row>> {
        let name = "free wording";
        let mut results = TaskResults::new(name.to_owned(), SceneTask::TextToImage);
        // A model is asked for what it has learnt.
        let sizes = self.model.image_sizes();
        let mut numbered = Vec::new();
        for (number, prompt) in (0u64..).zip(free_prompts()) {
            if sizes.contains(&prompt.image_size()?) {
                numbered.push((number, prompt));
            }
        }
        for prompts in numbered.chunks(self.batch) {
            let request = |(number, prompt): &(u64, &FreePrompt)| {
                let mut request =
                    self.args.apply_sampling(self.model.text_to_image(prompt.text, prompt.size)).request()?;
                let seed = &mut request.options.sampling.seed;
                *seed = seed.wrapping_add(*number);
                anyhow::Ok(request)
            };
            let requests = prompts.iter().map(request).collect::<Result<Vec<_>>>()?;
            for ((_, prompt), answer) in prompts.iter().zip(self.model.run_batch(&requests)) {
                let answer = answer.with_context(|| prompt.text.to_owned())?;
                let size = prompt.image_size()?;
                let expected = prompt.expected()?;
                let image = answer.images.first().map(|image| evaluate_image(&expected, size, image));
                let evaluation = AnswerEvaluation::Image(image);
                page.add(
                    name,
                    Entry {
                        question: prompt.text.to_owned(),
                        images: answer.images,
                        is_correct: evaluation.is_correct(),
                        remark: evaluation.to_string(),
                    },
                )?;
                results.add(size, evaluation);
            }
        }
        Ok(results.rows())
    }
}
