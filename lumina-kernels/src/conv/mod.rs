//! Convolutions of images and their gradients.

pub mod conv3x3;
pub mod conv3x3_gradients;
pub mod upsample2x;
pub mod winograd;
