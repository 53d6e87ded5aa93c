//! Scenes through an image tokenizer.

use anyhow::Result;
use lumina_scenes::Scenes;
use lumina_scenes::evaluation::judge;
use lumina_vq::{Bands, ImageTokenizer};

/// How many of the first `n` scenes an image tokenizer gives back so that the judge finds all of them in the picture: what no
/// picture of a model with this tokenizer can exceed.
///
/// # Errors
/// Those of [`ImageTokenizer::encode`] and [`ImageTokenizer::decode`].
pub fn given_back_right(tokenizer: &ImageTokenizer, scenes: &Scenes, n: u64) -> Result<u64> {
    let mut right = 0;
    for scene in (0..n).map(|index| scenes.scene(index)) {
        let back = tokenizer.decode(&tokenizer.encode(&scene.picture())?, Bands::Whole)?;
        right += u64::from(judge(&scene.description(), scene.size(), &back).all());
    }
    Ok(right)
}
