//! Questions about scenes, and what the judge says of the answers.

use anyhow::{Context, Result};
use image::RgbImage;
use lumina_examples::ModelArgs;
use lumina_mgpt::{Conversation, Lumina, Output, Part, Request, Task, TaskInput};
use lumina_scenes::dataset::{Dataset, DatasetOptions, SceneTask, Truth};
use lumina_scenes::evaluation::{DepthScore, SegmentationScore, Verdict, caption_is_right, judge};
use lumina_scenes::{Description, Split};
use lumina_vq::preprocess::InputImage;

use super::page::{Entry, Page};

/// Asks a model about scenes.
pub(crate) struct Evaluation<'a> {
    pub(crate) model: &'a Lumina,
    pub(crate) args: &'a ModelArgs,
    pub(crate) seed: u64,
    pub(crate) batch: usize,
}

/// What was found of an answer.
struct Judged {
    right: bool,
    verdict: Option<Verdict>,
    size: String,
    says: String,
}

impl Evaluation<'_> {
    /// Asks `n` questions of a task; the lines of the table.
    pub(crate) fn run(&self, task: SceneTask, split: Split, n: u64, page: &mut Page) -> Result<Vec<(String, String)>> {
        let options = DatasetOptions { seed: self.seed, split, tasks: [(task, 1)].into(), ..DatasetOptions::default() };
        let dataset = Dataset::new(options)?;
        let name = if split == Split::HeldOut { format!("{task}, held-out kinds") } else { task.to_string() };
        let (mut judged, mut depth, mut segmentation) =
            (Vec::new(), DepthScore::default(), SegmentationScore::default());
        for first in (0..n).step_by(self.batch.max(1)) {
            let records: Vec<_> =
                (first..n.min(first + self.batch as u64)).map(|index| dataset.record(index)).collect();
            let (questions, requests): (Vec<String>, Vec<Request>) = (first..)
                .zip(&records)
                .map(|(index, record)| self.question(&record.truth, index))
                .collect::<Result<_>>()?;
            let answers = self.model.run_batch(&requests);
            for ((record, question), answer) in records.iter().zip(questions).zip(answers) {
                let answer = answer.with_context(|| question.clone())?;
                let entry = self.judge(&record.truth, &answer, &mut depth, &mut segmentation)?;
                let mut pictures = Vec::new();
                if !matches!(task, SceneTask::TextToImage) {
                    pictures.push(record.truth.scene.picture());
                }
                pictures.extend(answer.images.iter().cloned());
                let text = if answer.text.is_empty() { String::new() } else { format!(" → {}", answer.text) };
                page.add(
                    &name,
                    Entry { question: question + &text, pictures, right: entry.right, says: entry.says.clone() },
                )?;
                judged.push(entry);
            }
        }
        Ok(table(&name, task, &judged, &depth, &segmentation))
    }

    /// The question, in words and as a request.
    fn question(&self, truth: &Truth, seed: u64) -> Result<(String, Request)> {
        let scene = &truth.scene;
        let picture = || InputImage::from(scene.picture());
        let prompt = truth.prompt.as_ref().map(Description::to_string).unwrap_or_default();
        let edit = truth.edit.as_ref().map(ToString::to_string).unwrap_or_default();
        let size = (scene.size().width_px(), scene.size().height_px());
        macro_rules! request {
            ($generation:expr) => {
                self.args.refine($generation).seed(seed).request()?
            };
        }
        Ok(match truth.task {
            SceneTask::TextToImage => {
                let request = request!(self.model.text_to_image(&prompt, size));
                (format!("{}: {prompt}", scene.size()), request)
            }
            SceneTask::Captioning => (String::new(), request!(self.model.caption(picture()))),
            SceneTask::DepthEstimation => {
                (String::new(), request!(self.model.edit(Task::DepthEstimation, picture(), None)))
            }
            SceneTask::SemanticSegmentation => {
                (String::new(), request!(self.model.edit(Task::SemanticSegmentation, picture(), None)))
            }
            SceneTask::Editing => {
                let request = request!(self.model.edit(Task::Editing, picture(), edit.as_str()));
                (edit, request)
            }
            // The first answer is given as it should be, so that only the second is measured.
            SceneTask::ImageThenEdit | SceneTask::ImageThenCaption => {
                let input = TaskInput::new().text(prompt.as_str()).size(scene.size());
                let codes = self.model.encode_image(&picture())?;
                let caption = Task::Captioning.spec().template.replace("<|image|>", "");
                let second = if truth.edit.is_some() { edit } else { caption.trim_end().to_owned() };
                let conversation = Conversation::new()
                    .human(Task::TextToImage.prompt(input)?)
                    .assistant(Part::Image(codes))
                    .human(second.as_str());
                (format!("{prompt}; then: {second}"), request!(self.model.chat(conversation)))
            }
        })
    }

    fn judge(
        &self,
        truth: &Truth,
        answer: &Output,
        depth: &mut DepthScore,
        segmentation: &mut SegmentationScore,
    ) -> Result<Judged> {
        let scene = &truth.scene;
        let size = scene.size().to_string();
        let picture = |asked: &Description| match answer.images.first() {
            Some(image) => {
                let verdict = judge(asked, scene.size(), image);
                Judged { right: verdict.all(), verdict: Some(verdict), size: size.clone(), says: wrong_in(&verdict) }
            }
            None => Judged { right: false, verdict: None, size: size.clone(), says: "no picture".to_owned() },
        };
        // A map of another size counts as all background.
        let map = |truth: &RgbImage| match answer.images.first() {
            Some(image) if image.dimensions() == truth.dimensions() => image.clone(),
            _ => RgbImage::new(truth.width(), truth.height()),
        };
        Ok(match truth.task {
            SceneTask::TextToImage => picture(truth.prompt.as_ref().context("a prompt")?),
            SceneTask::Editing | SceneTask::ImageThenEdit => {
                picture(&truth.edit.as_ref().context("an edit")?.apply(scene)?.description())
            }
            SceneTask::Captioning | SceneTask::ImageThenCaption => {
                let right = caption_is_right(answer.text.trim(), scene);
                let says = if right { String::new() } else { format!("it is {}", scene.description()) };
                Judged { right, verdict: None, size, says }
            }
            SceneTask::DepthEstimation => {
                let (truth, map) = (scene.depth(), map(&scene.depth()));
                depth.add(&map, &truth)?;
                let mut own = DepthScore::default();
                own.add(&map, &truth)?;
                let within = own.share_within().unwrap_or(0.0);
                Judged { right: within > 0.95, verdict: None, size, says: format!("{:.1} % near", 100.0 * within) }
            }
            SceneTask::SemanticSegmentation => {
                let (truth, map) = (scene.segmentation(), map(&scene.segmentation()));
                segmentation.add(&map, &truth)?;
                let mut own = SegmentationScore::default();
                own.add(&map, &truth)?;
                let iou = own.mean_iou().unwrap_or(0.0);
                Judged { right: iou > 0.8, verdict: None, size, says: format!("mean IoU {iou:.2}") }
            }
        })
    }
}

/// What a verdict finds wrong, in words.
fn wrong_in(verdict: &Verdict) -> String {
    let parts = [
        (verdict.size_px, "picture size"),
        (verdict.count, "number of objects"),
        (verdict.shapes, "shape"),
        (verdict.colours, "colour"),
        (verdict.sizes, "size"),
        (verdict.positions, "place"),
        (verdict.relation, "relation"),
        (verdict.background, "background"),
    ];
    parts.into_iter().filter(|(right, _)| !right).map(|(_, name)| name).collect::<Vec<_>>().join(", ")
}

/// Whether a part of a picture is right.
type Has = fn(&Verdict) -> bool;

/// The lines of the table.
fn table(
    name: &str,
    task: SceneTask,
    judged: &[Judged],
    depth: &DepthScore,
    segmentation: &SegmentationScore,
) -> Vec<(String, String)> {
    let share = |right: usize, of: usize| format!("{:.1} % of {of}", 100.0 * right as f64 / of.max(1) as f64);
    let count =
        |part: fn(&Verdict) -> bool| judged.iter().filter(|judged| judged.verdict.as_ref().is_some_and(part)).count();
    let all = judged.iter().filter(|judged| judged.right).count();
    let mut rows = Vec::new();
    match task {
        SceneTask::DepthEstimation => {
            let (error, within) = (depth.mean_absolute_error().unwrap_or(1.0), depth.share_within().unwrap_or(0.0));
            rows.push((format!("{name}: mean error, 0 to 1"), format!("{error:.4}")));
            rows.push((format!("{name}: pixels within 0.1"), format!("{:.1} %", 100.0 * within)));
        }
        SceneTask::SemanticSegmentation => {
            rows.push((format!("{name}: mean IoU"), format!("{:.3}", segmentation.mean_iou().unwrap_or(0.0))));
        }
        _ => rows.push((format!("{name}: right"), share(all, judged.len()))),
    }
    if task == SceneTask::TextToImage {
        let parts: [(&str, Has); 7] = [
            ("shape, colour and place", |verdict| {
                verdict.count && verdict.shapes && verdict.colours && verdict.positions && verdict.relation
            }),
            ("shapes", |verdict| verdict.shapes),
            ("colours", |verdict| verdict.colours),
            ("places", |verdict| verdict.positions && verdict.relation),
            ("sizes", |verdict| verdict.sizes),
            ("number of objects", |verdict| verdict.count),
            ("background", |verdict| verdict.background),
        ];
        rows.extend(parts.map(|(part, of)| (format!("{name}: {part}"), share(count(of), judged.len()))));
        let mut sizes: Vec<&str> = judged.iter().map(|judged| judged.size.as_str()).collect();
        sizes.sort_unstable();
        sizes.dedup();
        for size in sizes {
            let of_size: Vec<_> = judged.iter().filter(|judged| judged.size == size).collect();
            let right = of_size.iter().filter(|judged| judged.right).count();
            rows.push((format!("{name}: right at {size}"), share(right, of_size.len())));
        }
    }
    rows
}
