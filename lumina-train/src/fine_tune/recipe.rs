//! FP-SFT and Omni-SFT: stages, each of which begins with the model of the one before.

use std::path::{Path, PathBuf};

use lumina_checkpoint::Dtype;

use super::{Devices, FineTune, FineTuneOptions, ImageRows, StepReport};
use crate::data::Dataset;
use crate::{Ended, ObserverResult, Result, RunEvent};

/// A part of the training with data of its own: a resolution, or a mix of tasks.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Stage {
    /// Its name, and that of its folder.
    pub name: String,
    /// A data config ([`Dataset::open`]).
    pub data: PathBuf,
    /// How it is trained.
    pub options: FineTuneOptions,
}

/// A list of stages (arXiv 2408.02657 §3.2: FP-SFT at 512, 768 and 1024 pixels, then Omni-SFT).
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Recipe {
    /// The Hugging Face folder of the model to begin with.
    pub model: PathBuf,
    /// What happens to the head before the first stage.
    pub image_rows: ImageRows,
    /// The stages, in their order.
    pub stages: Vec<Stage>,
}

impl Recipe {
    /// Flexible progressive fine-tuning: from a language model to images, at rising resolutions.
    pub fn fp_sft(model: impl Into<PathBuf>, stages: Vec<Stage>) -> Self {
        Self { model: model.into(), image_rows: ImageRows::Zero, stages }
    }

    /// Omnipotent fine-tuning: all tasks together, on a model that FP-SFT made.
    pub fn omni_sft(model: impl Into<PathBuf>, stage: Stage) -> Self {
        Self { model: model.into(), image_rows: ImageRows::Keep, stages: vec![stage] }
    }

    /// The folder of the model that the stages make, once they are done.
    pub fn result(&self, folder: &Path) -> PathBuf {
        self.stages.last().map_or(self.model.clone(), |stage| folder.join(&stage.name).join(MODEL))
    }

    /// Runs the stages that are not done yet. Each has a folder in `folder`, with its checkpoints, and its result in
    /// `model`. `observe` gets the stage's name with each event, and may stop the run.
    ///
    /// # Errors
    /// Those of [`FineTune::run`]; [`Error::DifferentOptions`](crate::Error::DifferentOptions) also where a stage that
    /// is done had other options or began with another model.
    pub fn run<O: ObserverResult>(
        &self,
        folder: &Path,
        devices: impl Into<Devices>,
        mut observe: impl FnMut(&str, RunEvent<'_, StepReport>) -> O,
    ) -> Result<Ended, O::Error> {
        let (devices, mut model) = (devices.into(), self.model.clone());
        for (index, stage) in self.stages.iter().enumerate() {
            let stage_folder = folder.join(&stage.name);
            let result = stage_folder.join(MODEL);
            let image_rows = if index == 0 { self.image_rows } else { ImageRows::Keep };
            let run = FineTune::new(&model, stage.options.clone(), &devices).image_rows(image_rows);
            if result.exists() {
                run.check_finished(&stage_folder)?;
            } else {
                let data = Dataset::open(&stage.data)?;
                let (trainer, ended) = run.run(&data, &stage_folder, |event| observe(&stage.name, event))?;
                if ended == Ended::Stopped {
                    return Ok(Ended::Stopped);
                }
                trainer.export(&result, Dtype::F32)?;
            }
            model = result;
        }
        Ok(Ended::Finished)
    }
}

/// The folder of a stage's result.
const MODEL: &str = "model";
