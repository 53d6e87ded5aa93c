//! Scenes for a model, and an evaluation of its image tokenizer.

use anyhow::Result;
use lumina_mgpt::Lumina;
use lumina_scenes::dataset::{DatasetOptions, SceneDataset, SceneTask};
use lumina_scenes::evaluation::evaluate_image;
use lumina_scenes::{Scenes, Split};
use lumina_train::vq::VqEvaluation;

/// Scenes of a seed, of the sizes that a model draws.
///
/// # Errors
/// Those of [`Scenes::new`] and [`Scenes::with_sizes`].
pub fn scenes_for(model: &Lumina, seed: u64, split: Split) -> Result<Scenes> {
    let (scenes, drawn) = (Scenes::new(seed, split, model.target_size_px())?, model.image_sizes());
    let sizes = scenes.sizes().iter().filter(|size| drawn.contains(size)).copied().collect();
    Ok(scenes.with_sizes(sizes)?)
}

/// Records of one task on the scenes of [`scenes_for`].
///
/// # Errors
/// Those of [`scenes_for`] and [`SceneDataset::new`].
pub fn dataset_for(model: &Lumina, seed: u64, split: Split, task: SceneTask) -> Result<SceneDataset> {
    let (target_px, tasks) = (model.target_size_px(), [(task, 1)].into());
    let scenes = scenes_for(model, seed, split)?;
    let image_sizes = Some(scenes.sizes().iter().map(|size| (size.width_px(), size.height_px())).collect());
    let options = DatasetOptions { seed, split, tasks, target_px, image_sizes, ..DatasetOptions::default() };
    Ok(SceneDataset::new(options)?)
}

/// Encodes and decodes the first `n` scenes, and counts the results that still match their caption. A model with this
/// image tokenizer cannot draw a larger fraction correctly.
///
/// # Errors
/// Those of [`VqEvaluation::reconstruct`].
pub fn count_correct_reconstructions(evaluation: &mut VqEvaluation<'_>, scenes: &Scenes, n: u64) -> Result<u64> {
    let mut n_correct = 0;
    for scene in (0..n).map(|index| scenes.scene(index)) {
        let decoded = evaluation.reconstruct(&scene.image())?;
        n_correct += u64::from(evaluate_image(&scene.caption(), scene.size(), &decoded).is_correct());
    }
    Ok(n_correct)
}
