//! Evaluates the answers of a model against the ground truth of scenes.
//!
//! [`AnswerEvaluation`] evaluates the answer to a record of a [dataset](crate::dataset). The parts can be used alone:
//! [`detect`] finds backdrop and objects of an image, [`evaluate_image`] compares an image with a caption,
//! [`caption_is_correct`] compares a caption with a scene, and [`DepthScore`], [`SegmentationScore`] and [`psnr`]
//! compare maps and images pixel by pixel.

mod answer;
mod backdrop;
mod detection;
mod distance;
mod identify;
mod image_evaluation;
mod map_scores;
mod regions;

pub use answer::{AnswerEvaluation, MIN_DEPTH_FRACTION, MIN_IOU, caption_is_correct};
pub use detection::{DetectedObject, Detection, detect};
pub use image_evaluation::{ImageEvaluation, evaluate_image};
pub use map_scores::{DEPTH_TOLERANCE, DepthScore, SegmentationScore, psnr};
