//! A run: begun on a model or on a new adapter, or resumed from its folder.

use std::path::{Path, PathBuf};

use lumina_tokenizer::TextTokenizer;

use super::start::Start;
use super::trainer::{check_same_run, check_same_start};
use super::{Devices, FineTuneOptions, LoraOptions, StepReport, Trainer};
use crate::checkpoint::FolderLock;
use crate::collective::{lead, tell};
use crate::data::Dataset;
use crate::{Ended, ObserverResult, Result, RunEvent, checkpoint};

/// What happens to the head's rows of image tokens before the first step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageRows {
    /// They stay as they are.
    Keep,
    /// They become zero: the starting point of FP-SFT, whose language model has never predicted image tokens.
    Zero,
}

/// A run of fine-tuning: of a model, or of a LoRA adapter on it.
///
/// ```no_run
/// use std::path::Path;
/// use lumina_mgpt::{Compute, Dtype};
/// use lumina_train::data::Dataset;
/// use lumina_train::fine_tune::{FineTune, FineTuneOptions, LoraOptions};
///
/// let run = FineTune::new("Lumina-mGPT-7B-768", FineTuneOptions::default(), &[Compute::cpu()])
///     .lora(LoraOptions::with_rank(16));
/// let data = Dataset::open("data.yaml")?;
/// // The same call resumes the run, or does nothing once it is finished.
/// let (trainer, ended) = run.run(&data, Path::new("run"), |event| println!("{event:?}"))?;
/// trainer.export(Path::new("run/result"), Dtype::BF16)?;
/// # Ok::<(), lumina_train::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct FineTune {
    model: PathBuf,
    options: FineTuneOptions,
    devices: Devices,
    lora: Option<LoraOptions>,
    image_rows: ImageRows,
}

impl FineTune {
    /// Trains all weights of the model in a Hugging Face folder. Passes are spread over all devices.
    pub fn new(model: impl Into<PathBuf>, options: FineTuneOptions, devices: impl Into<Devices>) -> Self {
        let (model, devices) = (model.into(), devices.into());
        Self { model, options, devices, lora: None, image_rows: ImageRows::Keep }
    }

    /// Trains a LoRA adapter instead, if options are given. A new one is made in the folder `adapter` of the run,
    /// unless there is one.
    #[must_use]
    pub fn lora(self, lora: impl Into<Option<LoraOptions>>) -> Self {
        Self { lora: lora.into(), ..self }
    }

    /// What happens to the head before the first step. Default: nothing.
    #[must_use]
    pub fn image_rows(self, image_rows: ImageRows) -> Self {
        Self { image_rows, ..self }
    }

    /// The trainer of the run in a folder: resumed from the newest checkpoint, or new where there is none.
    ///
    /// # Errors
    /// Those of [`Trainer::resume`], or of [`Trainer::new`], [`LoraOptions::create`] and [`Trainer::with_adapter`];
    /// [`Error::DifferentOptions`](crate::Error::DifferentOptions) where the run, or the adapter in its folder, was
    /// begun with other LoRA options, with or without an adapter, on another model, or with other rows of the head;
    /// [`Error::Tokenizer`](crate::Error::Tokenizer) where rows of the head become zero.
    pub fn open(&self, folder: &Path) -> Result<Trainer> {
        let (options, devices) = (self.options.clone(), &self.devices);
        let start = self.start()?;
        if let Some(checkpoint) = checkpoint::latest(folder)? {
            check_same_start(&checkpoint, &start)?;
            let mut trainer = Trainer::resume(&checkpoint, options, devices)?;
            // The state of an older run does not say it.
            trainer.start.get_or_insert(start);
            return Ok(trainer);
        }
        let mut trainer = match &self.lora {
            None => Trainer::new(&self.model, options, devices)?,
            Some(lora) => {
                let adapter = folder.join("adapter");
                start.check_adapter(&adapter)?;
                options.check()?;
                let device = devices.check()?;
                lead(&*devices.processes, || match adapter.exists() {
                    true => Ok(()),
                    false => lora.create(&self.model, &adapter, device),
                })?;
                Trainer::with_adapter(&self.model, &adapter, options, devices)?
            }
        };
        trainer.start = Some(start);
        Ok(match self.image_rows {
            ImageRows::Keep => trainer,
            ImageRows::Zero => {
                let vocabulary = TextTokenizer::open(&self.model)?.vocabulary()?;
                trainer.zero_head_rows(vocabulary.image_tokens())
            }
        })
    }

    fn start(&self) -> Result<Start> {
        Start::new(&self.model, self.lora.as_ref(), self.image_rows)
    }

    /// An error where the finished run in a folder is not this one, as far as its checkpoints tell.
    pub(super) fn check_finished(&self, folder: &Path) -> Result<()> {
        match checkpoint::latest(folder)? {
            Some(checkpoint) => check_same_run(&checkpoint, &self.start()?, &self.options, self.devices.count()),
            None => Ok(()),
        }
    }

    /// Opens the run in a folder and trains until all epochs are done or `observe` stops it. Returns the trainer as
    /// well, which [exports](Trainer::export) the result.
    ///
    /// # Errors
    /// Those of [`FineTune::open`] and [`Trainer::run`]; [`Error::FolderBusy`](crate::Error::FolderBusy) at once where
    /// another process has the run.
    pub fn run<O: ObserverResult>(
        &self,
        data: &Dataset,
        folder: &Path,
        observe: impl FnMut(RunEvent<'_, StepReport>) -> O,
    ) -> Result<(Trainer, Ended), O::Error> {
        // Before the model is opened, which takes long. The loop has a lock of its own.
        let lock = lead(&*self.devices.processes, || FolderLock::new(folder).map(Some))?;
        let mut trainer = self.open(folder).inspect_err(|error| tell(&*self.devices.processes, error))?;
        drop(lock);
        let ended = trainer.run(data, folder, observe)?;
        Ok((trainer, ended))
    }
}
