//! Is an answer right? A detector written for the scenes, and measures of maps.

mod detect;
mod maps;
mod regions;
mod verdict;

pub use detect::{Detection, Found, detect};
pub use maps::{DEPTH_TOLERANCE, DepthScore, SegmentationScore, psnr};
pub use verdict::{Verdict, caption_is_right, judge};
