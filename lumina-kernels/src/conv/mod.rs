//! Convolutions of images, `[batch, channels, height, width]`, and their gradients.

pub mod conv3x3;
pub mod conv3x3_gradients;
pub mod im2col;
mod output;
pub mod upsample2x;
mod winograd;
