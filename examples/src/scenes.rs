//! Evaluates an image tokenizer on scenes.

use anyhow::Result;
use lumina_scenes::Scenes;
use lumina_scenes::evaluation::evaluate_image;
use lumina_vq::{Bands, ImageTokenizer};

/// Encodes and decodes the first `n` scenes, and counts the results that still match their caption. A model with this
/// image tokenizer cannot draw a larger fraction correctly.
///
/// # Errors
/// Those of [`ImageTokenizer::encode`] and [`ImageTokenizer::decode`].
pub fn count_correct_reconstructions(tokenizer: &ImageTokenizer, scenes: &Scenes, n: u64) -> Result<u64> {
    let mut n_correct = 0;
    for scene in (0..n).map(|index| scenes.scene(index)) {
        let decoded = tokenizer.decode(&tokenizer.encode(&scene.image())?, Bands::Whole)?;
        n_correct += u64::from(evaluate_image(&scene.caption(), scene.size(), &decoded).is_correct());
    }
    Ok(n_correct)
}
