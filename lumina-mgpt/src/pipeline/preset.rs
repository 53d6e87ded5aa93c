//! What a checkpoint says of how it is used: the section `lumina` of its `generation_config.json`.

use std::path::Path;

use lumina_checkpoint::Checkpoint;
use lumina_core::ImageSize;
use lumina_sampling::SamplingOptions;
use lumina_tokenizer::Task;
use serde::{Deserialize, Serialize};

use crate::document::folder;
use crate::{Error, Result};

/// The sampling, sizes and tasks that a model was made for, which are the defaults of [`Lumina`](super::Lumina). What
/// is not stated is as for the published models.
///
/// The section `lumina` of `generation_config.json`, an addition of this library: other programs pass it over.
///
/// ```
/// let preset: lumina_mgpt::Preset = serde_json::from_str(
///     r#"{ "target_size_px": 96, "guidance_scale": 1.5, "image_top_k": 5, "tasks": ["text_to_image", "captioning"]
/// }"#, )?;
/// assert_eq!(preset.target_size_px, Some(96));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Preset {
    /// The size that input images are resized to, about so many pixels a side.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_size_px: Option<u32>,
    /// How strongly images follow the prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guidance_scale: Option<f32>,
    /// Candidates kept in an image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_top_k: Option<usize>,
    /// Candidates kept in text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text_top_k: Option<usize>,
    /// The temperature.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
    /// The tasks that the model has learnt; others are refused. Without it, all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tasks: Option<Vec<Task>>,
    /// Width and height in pixels of the images that the model has learnt to draw; others are refused. Without it, all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_sizes: Option<Vec<(u32, u32)>>,
}

/// The part of `generation_config.json` that is read.
#[derive(Default, Deserialize)]
#[serde(default)]
struct GenerationConfig {
    lumina: Preset,
}

impl Preset {
    /// That of a checkpoint. GGUF files have none, but for the `generation_config.json` beside them.
    ///
    /// # Errors
    /// [`Error::GenerationConfig`] where the section is malformed, [`Error::PresetOption`] where a value is out of
    /// range.
    pub(super) fn of_checkpoint(checkpoint: &Checkpoint) -> Result<Self> {
        let file = folder(checkpoint).join("generation_config.json");
        let Some(bytes) = checkpoint.document("generation_config.json")? else { return Ok(Self::default()) };
        Self::from_json(&bytes, &file)
    }

    fn from_json(bytes: &[u8], file: &Path) -> Result<Self> {
        let config: GenerationConfig = serde_json::from_slice(bytes)
            .map_err(|source| Error::GenerationConfig { file: file.to_owned(), source })?;
        let options = config.lumina.apply(SamplingOptions::default());
        options.validate().map_err(|source| Error::PresetOption { file: file.to_owned(), source })?;
        Ok(config.lumina)
    }

    /// A task's sampling with what is stated here.
    pub(super) fn apply(&self, sampling: SamplingOptions) -> SamplingOptions {
        let mut sampling = sampling;
        if let Some(scale) = self.guidance_scale {
            sampling.guidance_scale = scale;
        }
        if let Some(k) = self.image_top_k {
            sampling.image_top_k = k;
        }
        if let Some(k) = self.text_top_k {
            sampling.text_top_k = k;
        }
        if let Some(temperature) = self.temperature {
            sampling.temperature = temperature;
        }
        sampling
    }

    /// Checks that the model has learnt a task.
    pub(super) fn check_task(&self, task: Task) -> Result<()> {
        match &self.tasks {
            Some(tasks) if !tasks.contains(&task) => Err(Error::UnknownTask {
                task: task.spec().name,
                known: tasks.iter().map(|task| task.spec().name).collect::<Vec<_>>().join(", "),
            }),
            _ => Ok(()),
        }
    }

    /// Checks that the model has learnt to draw images of a size.
    pub(super) fn check_size(&self, size: ImageSize) -> Result<()> {
        match &self.image_sizes {
            Some(sizes) if !sizes.contains(&(size.width_px(), size.height_px())) => {
                let names: Vec<String> = sizes.iter().map(|(width, height)| format!("{width}x{height}")).collect();
                Err(Error::UnknownSize { size, known: names.join(", ") })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preset(json: &str) -> Result<Preset> {
        Preset::from_json(json.as_bytes(), "generation_config.json".as_ref())
    }

    #[test]
    fn what_other_programs_write_states_nothing() {
        let json = r#"{ "_from_model_config": true, "eos_token_id": [2, 8710], "temperature": 0.7, "top_k": 50 }"#;
        assert_eq!(preset(json).unwrap(), Preset::default());
        let sampling = SamplingOptions::default().seed(3);
        assert_eq!(Preset::default().apply(sampling.clone()), sampling);
    }

    #[test]
    fn tasks_and_sizes_that_are_not_stated_are_refused() {
        let json = r#"{ "lumina": { "tasks": ["depth_estimation"], "image_sizes": [[96, 96], [64, 128]] } }"#;
        let preset = preset(json).unwrap();
        assert!(preset.check_task(Task::DepthEstimation).is_ok());
        let message = preset.check_task(Task::Editing).unwrap_err().to_string();
        assert!(message.contains("`editing`") && message.contains("depth_estimation"), "{message}");
        assert!(preset.check_size(ImageSize::new(64, 128).unwrap()).is_ok());
        let message = preset.check_size(ImageSize::new(128, 64).unwrap()).unwrap_err().to_string();
        assert!(message.contains("128x64") && message.contains("96x96, 64x128"), "{message}");
    }

    #[test]
    fn a_malformed_section_names_the_file() {
        let error = preset(r#"{ "lumina": { "image_top_k": "many" } }"#).unwrap_err().to_string();
        assert!(error.contains("generation_config.json") && error.contains("many"), "{error}");
        let error = preset(r#"{ "lumina": { "temperature": -1 } }"#).unwrap_err().to_string();
        assert!(error.contains("generation_config.json") && error.contains("-1"), "{error}");
    }
}
