//! Asks a model questions about scenes and evaluates its answers.

use anyhow::{Context, Result};
use lumina_examples::ModelArgs;
use lumina_mgpt::{Conversation, InputImage, Lumina, Part, Request, Task, TaskInput};
use lumina_scenes::Split;
use lumina_scenes::dataset::{DatasetOptions, GroundTruth, SceneDataset, SceneTask};
use lumina_scenes::evaluation::AnswerEvaluation;

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
        let options = DatasetOptions { seed: self.seed, split, tasks: [(task, 1)].into(), ..DatasetOptions::default() };
        let dataset = SceneDataset::new(options)?;
        let name = if split == Split::HeldOut { format!("{task}, held-out kinds") } else { task.to_string() };
        let mut results = TaskResults::new(name.clone(), task);
        for first in (0..n).step_by(self.batch.max(1)) {
            let indices = first..n.min(first + self.batch as u64);
            let records: Vec<_> = indices.map(|index| dataset.record(index)).collect();
            let questions: Vec<Question> = (first..)
                .zip(&records)
                .map(|(number, record)| self.question(&record.ground_truth, number))
                .collect::<Result<_>>()?;
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
    fn question(&self, ground_truth: &GroundTruth, number: u64) -> Result<Question> {
        let scene = &ground_truth.scene;
        let image = || InputImage::from(scene.image());
        let prompt = ground_truth.prompt.as_ref().map(ToString::to_string).unwrap_or_default();
        let edit = ground_truth.edit.as_ref().map(ToString::to_string).unwrap_or_default();
        // A macro, because the types of generations differ.
        macro_rules! request {
            ($generation:expr) => {
                self.args.apply_sampling($generation).request()?
            };
        }
        let (text, mut request) = match ground_truth.task {
            SceneTask::TextToImage => {
                let size = (scene.size().width_px(), scene.size().height_px());
                (format!("{}: {prompt}", scene.size()), request!(self.model.text_to_image(&prompt, size)))
            }
            SceneTask::Captioning => (String::new(), request!(self.model.caption(image()))),
            SceneTask::DepthEstimation => {
                (String::new(), request!(self.model.edit(Task::DepthEstimation, image(), None)))
            }
            SceneTask::SemanticSegmentation => {
                (String::new(), request!(self.model.edit(Task::SemanticSegmentation, image(), None)))
            }
            SceneTask::Editing => {
                let request = request!(self.model.edit(Task::Editing, image(), edit.as_str()));
                (edit, request)
            }
            // The first answer is given as the correct image, so that only the second is evaluated.
            SceneTask::ImageThenEdit | SceneTask::ImageThenCaption => {
                let input = TaskInput::new().text(prompt.as_str()).size(scene.size());
                let codes = self.model.encode_image(&image())?;
                let caption = Task::Captioning.spec().template.replace("<|image|>", "");
                let second = if ground_truth.edit.is_some() { edit } else { caption.trim_end().to_owned() };
                let conversation = Conversation::new()
                    .human(Task::TextToImage.prompt(input)?)
                    .assistant(Part::Image(codes))
                    .human(second.as_str());
                (format!("{prompt}; then: {second}"), request!(self.model.chat(conversation)))
            }
        };
        let seed = &mut request.options.sampling.seed;
        *seed = seed.wrapping_add(number);
        Ok(Question { text, request })
    }
}
