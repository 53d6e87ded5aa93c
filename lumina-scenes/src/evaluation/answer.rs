//! Evaluates the answer to a record of a dataset.

use std::fmt;

use image::RgbImage;

use super::image_evaluation::{ImageEvaluation, evaluate_image};
use super::map_scores::{DepthScore, SegmentationScore};
use crate::dataset::{GroundTruth, SceneTask};
use crate::{Caption, Error, Result, Scene};

/// A depth map is correct if more than this fraction of the pixels of the background, of the small and of the large
/// objects is within the [tolerance](super::DEPTH_TOLERANCE): one object of four must not be missing.
pub const MIN_DEPTH_FRACTION: f64 = 0.8;
/// A segmentation map is correct if the intersection over union of each of its classes exceeds this.
pub const MIN_IOU: f64 = 0.8;

/// The evaluation of one answer. `Display` writes what is wrong with it, or the score of a map.
///
/// ```
/// use lumina_scenes::dataset::{DatasetOptions, SceneDataset};
/// use lumina_scenes::evaluation::AnswerEvaluation;
///
/// for record in SceneDataset::new(DatasetOptions { n_records: 20, ..Default::default() })?.records() {
///     // The last turn of the record is the correct answer, as no more questions are asked.
///     let text = record.record.conversations.last().and_then(|turn| turn.value.clone()).unwrap_or_default();
///     let evaluation = AnswerEvaluation::new(&record.ground_truth, &text, record.images.last())?;
///     assert!(evaluation.is_correct(), "{}: {evaluation}", record.ground_truth.task);
/// }
/// # Ok::<(), lumina_scenes::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub enum AnswerEvaluation {
    /// The answer should be the image of a scene: which properties are correct, or `None` if there is no image.
    Image(Option<ImageEvaluation>),
    /// The answer should be the canonical caption.
    Caption {
        /// Whether it is.
        is_correct: bool,
        /// The canonical caption.
        expected: Caption,
    },
    /// The answer should be that to a question.
    Answer {
        /// Whether it is, but for capitals and spaces around it.
        is_correct: bool,
        /// The correct answer.
        expected: String,
    },
    /// The answer should be a depth map.
    DepthMap(DepthScore),
    /// The answer should be a segmentation map.
    SegmentationMap(SegmentationScore),
}

impl AnswerEvaluation {
    /// Evaluates the last answer of a conversation: its text, and its first image if there is one. A missing map, or
    /// one of the wrong size, counts as a black one.
    ///
    /// # Errors
    /// [`Error::NoPrompt`], [`Error::Edit`] and [`Error::Scene`] if the ground truth was read from a file and is
    /// inconsistent.
    pub fn new(ground_truth: &GroundTruth, text: &str, image: Option<&RgbImage>) -> Result<Self> {
        let scene = &ground_truth.scene;
        let of_image = |caption: &Caption| Self::Image(image.map(|image| evaluate_image(caption, scene.size(), image)));
        let map_like = |expected: &RgbImage| match image {
            Some(image) if image.dimensions() == expected.dimensions() => image.clone(),
            _ => RgbImage::new(expected.width(), expected.height()),
        };
        Ok(match ground_truth.task {
            SceneTask::TextToImage => {
                of_image(ground_truth.prompt.as_ref().ok_or(Error::NoPrompt { task: ground_truth.task })?)
            }
            SceneTask::Editing | SceneTask::ImageThenEdit => {
                let edit = ground_truth.edit.ok_or(Error::NoPrompt { task: ground_truth.task })?;
                of_image(&edit.apply(scene)?.caption())
            }
            SceneTask::Captioning | SceneTask::ImageThenCaption => {
                Self::Caption { is_correct: caption_is_correct(text.trim(), scene), expected: scene.caption() }
            }
            SceneTask::Question | SceneTask::ImageThenQuestion => {
                let expected = ground_truth.answer.clone().ok_or(Error::NoPrompt { task: ground_truth.task })?;
                Self::Answer { is_correct: text.trim().to_lowercase() == expected, expected }
            }
            SceneTask::DepthEstimation => {
                let mut score = DepthScore::default();
                let expected = scene.depth_map();
                score.add(&map_like(&expected), &expected)?;
                Self::DepthMap(score)
            }
            SceneTask::SemanticSegmentation => {
                let mut score = SegmentationScore::default();
                let expected = scene.segmentation_map();
                score.add(&map_like(&expected), &expected)?;
                Self::SegmentationMap(score)
            }
        })
    }

    /// Whether the answer is correct. Maps are if they reach [`MIN_DEPTH_FRACTION`] or [`MIN_IOU`].
    pub fn is_correct(&self) -> bool {
        match self {
            Self::Image(image) => image.is_some_and(|image| image.is_correct()),
            Self::Caption { is_correct, .. } | Self::Answer { is_correct, .. } => *is_correct,
            Self::DepthMap(score) => {
                score.min_fraction_within_tolerance().is_some_and(|fraction| fraction > MIN_DEPTH_FRACTION)
            }
            Self::SegmentationMap(score) => score.min_iou().is_some_and(|iou| iou > MIN_IOU),
        }
    }
}

impl fmt::Display for AnswerEvaluation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image(None) => f.write_str("no image"),
            Self::Image(Some(image)) => f.write_str(&image.incorrect_properties().collect::<Vec<_>>().join(", ")),
            Self::Caption { is_correct: true, .. } | Self::Answer { is_correct: true, .. } => Ok(()),
            Self::Answer { is_correct: false, expected } => write!(f, "expected {expected}"),
            Self::Caption { is_correct: false, expected } => write!(f, "expected {expected}"),
            Self::DepthMap(score) => {
                let percent = |fraction: Option<f64>| 100.0 * fraction.unwrap_or(0.0);
                let (all, least) = (score.fraction_within_tolerance(), score.min_fraction_within_tolerance());
                write!(f, "{:.1} % within tolerance, {:.1} % of one depth", percent(all), percent(least))
            }
            Self::SegmentationMap(score) => write!(f, "IoU {:.2}", score.min_iou().unwrap_or(0.0)),
        }
    }
}

/// Whether a text is the caption of a scene: all objects with their positions, in any order, and the background.
pub fn caption_is_correct(text: &str, scene: &Scene) -> bool {
    text.parse::<Caption>().is_ok_and(|caption| caption.is_equivalent_to(&scene.caption()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::{DatasetOptions, SceneDataset};

    #[test]
    fn answers_to_other_records_are_wrong() {
        for task in SceneTask::ALL {
            let options = DatasetOptions { tasks: [(task, 1)].into(), n_records: 6, ..Default::default() };
            let records: Vec<_> = SceneDataset::new(options).unwrap().records().collect();
            for record in &records {
                for answer in &records {
                    let text = answer.record.conversations.last().unwrap().value.clone().unwrap();
                    let evaluation = AnswerEvaluation::new(&record.ground_truth, &text, answer.images.last()).unwrap();
                    let same = match &record.ground_truth.answer {
                        // Different questions can have the same answer.
                        Some(expected) => answer.ground_truth.answer.as_ref() == Some(expected),
                        None => answer.ground_truth == record.ground_truth,
                    };
                    assert_eq!(evaluation.is_correct(), same, "{task}: {evaluation}");
                }
                let nothing = AnswerEvaluation::new(&record.ground_truth, "", None).unwrap();
                assert!(!nothing.is_correct() && !nothing.to_string().is_empty(), "{task}: {nothing}");
            }
        }
    }

    #[test]
    fn ground_truth_without_prompt_is_an_error() {
        let options = DatasetOptions { tasks: [(SceneTask::TextToImage, 1)].into(), ..Default::default() };
        let record = SceneDataset::new(options).unwrap().record(0);
        for task in [SceneTask::TextToImage, SceneTask::Editing, SceneTask::Question] {
            let ground_truth = GroundTruth { task, prompt: None, ..record.ground_truth.clone() };
            let message = AnswerEvaluation::new(&ground_truth, "", None).unwrap_err().to_string();
            assert!(message.contains(task.name()), "{message}");
        }
    }
}
