//! The table of results.

use std::collections::BTreeMap;

use lumina_core::ImageSize;
use lumina_scenes::dataset::SceneTask;
use lumina_scenes::evaluation::{AnswerEvaluation, DepthScore, ImageEvaluation, SegmentationScore};

/// A row of the table: name and value.
pub(crate) type Row = (String, String);

/// The evaluated answers of one task.
pub(crate) struct TaskResults {
    name: String,
    task: SceneTask,
    answers: Vec<(ImageSize, AnswerEvaluation)>,
}

/// Whether a property of an image is correct.
type Property = fn(&ImageEvaluation) -> bool;

const PROPERTIES: [(&str, Property); 8] = [
    ("shape, colour and position", |image| {
        image.count && image.shapes && image.colours && image.positions && image.relation
    }),
    ("shapes", |image| image.shapes),
    ("colours", |image| image.colours),
    ("fills", |image| image.fills),
    ("positions", |image| image.positions && image.relation),
    ("sizes", |image| image.sizes),
    ("number of objects", |image| image.count),
    ("background", |image| image.background),
];

impl TaskResults {
    pub(crate) fn new(name: String, task: SceneTask) -> Self {
        Self { name, task, answers: Vec::new() }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn add(&mut self, size: ImageSize, evaluation: AnswerEvaluation) {
        self.answers.push((size, evaluation));
    }

    /// The rows of the table. Text to image has one for each property and image size.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let (mut depth, mut segmentation) = (DepthScore::default(), SegmentationScore::default());
        for (_, answer) in &self.answers {
            match answer {
                AnswerEvaluation::DepthMap(score) => depth.merge(score),
                AnswerEvaluation::SegmentationMap(score) => segmentation.merge(score),
                AnswerEvaluation::Image(_) | AnswerEvaluation::Caption { .. } | AnswerEvaluation::Answer { .. } => {}
            }
        }
        let row = |column: &str, value: String| (format!("{}: {column}", self.name), value);
        let n_correct = self.answers.iter().filter(|(_, answer)| answer.is_correct()).count();
        let mut rows = match self.task {
            SceneTask::DepthEstimation => vec![
                row("mean error, 0 to 1", format!("{:.4}", depth.mean_absolute_error().unwrap_or(1.0))),
                row("pixels within 0.1", format!("{:.1} %", 100.0 * depth.fraction_within_tolerance().unwrap_or(0.0))),
            ],
            SceneTask::SemanticSegmentation => {
                vec![row("mean IoU", format!("{:.3}", segmentation.mean_iou().unwrap_or(0.0)))]
            }
            _ => vec![row("correct", percent(n_correct, self.answers.len()))],
        };
        if self.task == SceneTask::TextToImage {
            rows.extend(PROPERTIES.map(|(column, property)| row(column, self.percent_with(property))));
            let mut by_size = BTreeMap::<String, (usize, usize)>::new();
            for (size, answer) in &self.answers {
                let (n_correct, n) = by_size.entry(size.to_string()).or_default();
                *n_correct += usize::from(answer.is_correct());
                *n += 1;
            }
            let sizes =
                by_size.iter().map(|(size, &(n_correct, n))| (format!("correct at {size}"), percent(n_correct, n)));
            rows.extend(sizes.map(|(column, value)| row(&column, value)));
        }
        rows
    }

    fn percent_with(&self, property: Property) -> String {
        let has = |answer: &AnswerEvaluation| match answer {
            AnswerEvaluation::Image(Some(image)) => property(image),
            _ => false,
        };
        percent(self.answers.iter().filter(|(_, answer)| has(answer)).count(), self.answers.len())
    }
}

fn percent(part: usize, all: usize) -> String {
    format!("{:.1} % of {all}", 100.0 * part as f64 / all.max(1) as f64)
}
