//! Is an answer right? A detector written for the scenes, and measures of maps.

mod detection;
mod image_evaluation;
mod map_scores;
mod regions;

pub use detection::{Detection, Found, detect};
pub use image_evaluation::{Verdict, caption_is_right, judge};
pub use map_scores::{DEPTH_TOLERANCE, DepthScore, SegmentationScore, psnr};
