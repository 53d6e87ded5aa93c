//! FP-SFT and Omni-SFT: stages, each of which begins with the model of the one before.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use lumina_checkpoint::Dtype;
use lumina_nn::Compute;
use lumina_tokenizer::TextTokenizer;

use super::run::run;
use super::{Ended, FineTuneOptions, RunEvent, Trainer};
use crate::Result;
use crate::data::Dataset;

/// What happens to the head's rows of image tokens before the first step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageRows {
    /// They stay as they are.
    Keep,
    /// They become zero: the starting point of FP-SFT, whose language model was never asked for image tokens.
    Zero,
}

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
    /// `model`; `observe` is told the stage's name with each event, and may break off.
    ///
    /// # Errors
    /// Those of [`run`](super::run()).
    pub fn run(
        &self,
        folder: &Path,
        devices: &[Compute],
        observe: &mut dyn FnMut(&str, RunEvent<'_>) -> ControlFlow<()>,
    ) -> Result<Ended> {
        let mut model = self.model.clone();
        for (index, stage) in self.stages.iter().enumerate() {
            let stage_folder = folder.join(&stage.name);
            let result = stage_folder.join(MODEL);
            if !result.exists() {
                let data = Dataset::open(&stage.data)?;
                let zero = index == 0 && self.image_rows == ImageRows::Zero;
                let start = || {
                    let trainer = Trainer::new(&model, stage.options.clone(), devices)?;
                    if !zero {
                        return Ok(trainer);
                    }
                    let vocabulary = TextTokenizer::open(&model)?.vocabulary()?;
                    Ok(trainer.zero_head_rows(vocabulary.image_tokens()))
                };
                let mut observe = |event: RunEvent<'_>| observe(&stage.name, event);
                let (trainer, ended) = run(&data, &stage_folder, &stage.options, devices, start, &mut observe)?;
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
