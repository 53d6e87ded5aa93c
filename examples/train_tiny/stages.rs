//! The stages, each of which leaves a folder that the next one reads.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Instant, SystemTime};

use anyhow::{Context, Result, bail};
use image::{RgbImage, imageops};
use lumina_checkpoint::Dtype;
use lumina_examples::{count_correct_reconstructions, save_image, say};
use lumina_nn::Compute;
use lumina_scenes::dataset::{DatasetOptions, SceneDataset};
use lumina_scenes::{GRID_PX, ObjectShape, Scene, Scenes, Split};
use lumina_tokenizer::UniRep;
use lumina_train::checkpoint::{average, latest};
use lumina_train::data::{
    CropChoice, PretokenizeEvent, PretokenizeOptions, Pretokenizer, Records, TokenizerOptions, concatenate,
    train_tokenizer,
};
use lumina_train::fine_tune::{self, Recipe};
use lumina_train::metrics::{JsonLines, Recorder, TensorBoard};
use lumina_train::vq::{CodebookUpdate, VqEvaluation, VqTrainer, evaluate_vq, init_vq, prune_codebook};
use lumina_train::{Ended, RunEvent};
use lumina_vq::preprocess::InputImage;
use lumina_vq::{ImageTokenizer, VqConfig};

use super::plan::{Part, Plan};

/// A part of the training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The image tokenizer.
    Vq,
    /// The text tokenizer, and a transformer with random weights.
    Tokenizer,
    /// Text to image.
    FpSft,
    /// All tasks.
    OmniSft,
    /// The folder that programs open.
    Model,
}

impl Stage {
    pub(crate) const ALL: [Self; 5] = [Self::Vq, Self::Tokenizer, Self::FpSft, Self::OmniSft, Self::Model];
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vq => "vq",
            Self::Tokenizer => "tokenizer",
            Self::FpSft => "fp-sft",
            Self::OmniSft => "omni-sft",
            Self::Model => "model",
        })
    }
}

impl FromStr for Stage {
    type Err = String;
    fn from_str(name: &str) -> Result<Self, String> {
        let stage = Self::ALL.into_iter().find(|stage| stage.to_string() == name);
        stage.ok_or_else(|| format!("expected one of {}", Self::ALL.map(|stage| stage.to_string()).join(", ")))
    }
}

/// The folder of the stages, their numbers, and where they compute.
pub(crate) struct Stages {
    pub(crate) folder: PathBuf,
    pub(crate) plan: Plan,
    pub(crate) compute: Compute,
}

impl Stages {
    /// Runs a stage, or the rest of it.
    pub(crate) fn run(&self, stage: Stage) -> Result<()> {
        match stage {
            Stage::Vq => self.vq(),
            Stage::Tokenizer => self.tokenizer(),
            Stage::FpSft => self.fine_tune(&self.fp_sft(), &self.plan.fp_sft),
            Stage::OmniSft => {
                let mut parts = self.omni_sft().into_iter().zip(&self.plan.omni_sft);
                parts.try_for_each(|(recipe, part)| self.fine_tune(&recipe, part))
            }
            Stage::Model => self.model(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Trains the image tokenizer, or resumes its training.
    fn vq(&self) -> Result<()> {
        let result = self.path("vq");
        // The last file that is written to a folder.
        let done = |folder: &Path| folder.join("vqgan.yaml").exists();
        if done(&result) {
            return Ok(());
        }
        let start = self.path("vq-start");
        if !done(&start) {
            init_vq(&VqConfig::new(self.plan.vq.clone())?, 0, &start, &self.compute)?;
        }
        let mut steps_before = 0;
        for (index, options) in self.plan.vq_training.iter().enumerate() {
            let run = self.path(&format!("vq-run-{index}"));
            let trainer = match (latest(&run)?, index.checked_sub(1)) {
                (Some(checkpoint), _) => VqTrainer::resume(checkpoint, options.clone(), &self.compute)?,
                (None, None) => VqTrainer::new(&start, options.clone(), &self.compute)?,
                (None, Some(before)) => {
                    let mut start = latest(&self.path(&format!("vq-run-{before}")))?.context("the run before ended")?;
                    if options.codebook == CodebookUpdate::Fixed {
                        start = self.pruned(&start)?;
                    }
                    VqTrainer::new(start, options.clone(), &self.compute)?
                }
            };
            let trainer = self.vq_run(trainer, &run, steps_before)?;
            steps_before += options.steps;
            if index + 1 == self.plan.vq_training.len() {
                trainer.export(&result, Dtype::F16)?;
            }
        }
        self.report_vq(&result)
    }

    /// The rest of a run. Its images are those after the ones of earlier runs.
    fn vq_run(&self, mut trainer: VqTrainer, run: &Path, steps_before: u64) -> Result<VqTrainer> {
        let mut recorder = Recorder::default().with(JsonLines::append(&run.with_extension("jsonl"))?);
        let begun = Instant::now();
        trainer.run(
            run,
            |step| Ok(self.crops(steps_before + step)),
            |event| {
                if let RunEvent::Step(step) = event
                    && step.step.is_multiple_of(20)
                {
                    say!("vq {step}, {:.0} s", begun.elapsed().as_secs_f64())?;
                }
                anyhow::Ok(recorder.record(&event, SystemTime::now())?)
            },
        )?;
        Ok(trainer)
    }

    /// An image tokenizer without the codes that hardly occur.
    fn pruned(&self, folder: &Path) -> Result<PathBuf> {
        let (pruned, (n, at_least)) = (self.path("vq-pruned"), self.plan.vq_pruning);
        let scenes = Scenes::new(5, Split::Train, self.plan.target_px)?;
        let left = prune_codebook(folder, &pruned, (0..n).map(|index| drawn(&scenes, index)), at_least, &self.compute)?;
        say!("{left} codes occur in {at_least} of {n} images or more")?;
        Ok(pruned)
    }

    fn report_vq(&self, folder: &Path) -> Result<()> {
        let tokenizer = ImageTokenizer::open(folder, &self.compute)?;
        let scenes = Scenes::new(99, Split::Test, self.plan.target_px)?;
        let n = self.plan.vq_test_scenes;
        let report = evaluate_vq(&tokenizer, (0..n).map(|index| drawn(&scenes, index)))?;
        // What counts for the model: whether a reconstruction still shows the scene.
        let right = count_correct_reconstructions(&mut VqEvaluation::new(&tokenizer), &scenes, n)?;
        say!("of {n} images it has not seen {right} are reconstructed right: {report:?}")?;
        Ok(())
    }

    /// The images of a step: parts of scenes around one of their objects, as there is most to learn from edges.
    fn crops(&self, step: u64) -> Vec<RgbImage> {
        let (n, side) = (self.plan.vq_batch as u64, self.plan.vq_crop_px);
        let scenes = Scenes::new(0, Split::Train, self.plan.target_px).expect("the target size is the scenes' own");
        let crop = |index: u64| {
            let (scene, image) = (scenes.scene(index), drawn(&scenes, index));
            // Whole patches, from one beside the object on one side to one beside it on the other.
            let objects = scene.objects();
            let object = objects[index as usize / 8 % objects.len()];
            let across = u64::from(object.kind.size.side_px() + GRID_PX + side) / u64::from(GRID_PX) - 1;
            let place = index.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
            let from = |at: u32, place: u64, length: u32| {
                let first = (at * GRID_PX + GRID_PX + (place % across) as u32 * GRID_PX).saturating_sub(side);
                first.min(length.saturating_sub(side))
            };
            let x = from(object.at.0, place, image.width());
            let y = from(object.at.1, place / across, image.height());
            imageops::crop_imm(&image, x, y, side, side).to_image()
        };
        (step * n..(step + 1) * n).map(crop).collect()
    }

    fn tokenizer(&self) -> Result<()> {
        let tokenizer = self.path("tokenizer");
        if !tokenizer.join("tokenizer.json").exists() {
            let n_codes = ImageTokenizer::open(self.path("vq"), &self.compute)?.config().n_codes();
            let parts = std::iter::once(&self.plan.fp_sft).chain(&self.plan.omni_sft);
            // The texts of the others are of the same kind.
            let data = parts.filter_map(|part| part.data.first());
            let texts = data.map(|data| texts(data, 10_000)).collect::<Result<Vec<_>>>()?;
            let options = TokenizerOptions { n_codes: n_codes as u32, max_cells: 16, max_merges: self.plan.merges };
            train_tokenizer(&tokenizer, texts.concat(), &options)?;
        }
        if !self.path("start").exists() {
            self.plan.model.create(&tokenizer, &self.path("start"), &self.compute)?;
        }
        Ok(())
    }

    /// The tokens of a part's records, which are made in memory.
    fn tokens(&self, Part { name, data, .. }: &Part) -> Result<()> {
        let tokens = self.path("tokens").join(name);
        let config = tokens.join("data.yaml");
        if config.exists() {
            return Ok(());
        }
        // More than the patches of which scenes are made, whatever the size of their images.
        let images = ImageTokenizer::open(self.path("vq"), &self.compute)?.with_known_patches(200_000);
        let unirep = UniRep::open(self.path("tokenizer"))?;
        let mut list = "META:\n".to_owned();
        for data in data {
            let folder = data.target_px.to_string();
            pretokenize(&tokens.join(&folder), data, &images, &unirep)?;
            list += &format!("  - path: {folder}/record.json\n");
        }
        fs::write(config, list).context("data.yaml")
    }

    fn fp_sft(&self) -> Recipe {
        Recipe::fp_sft(self.path("start"), vec![self.part(&self.plan.fp_sft)])
    }

    /// The runs on all tasks. Each begins with the model of the one before.
    fn omni_sft(&self) -> Vec<Recipe> {
        let mut recipes: Vec<Recipe> = Vec::new();
        for part in &self.plan.omni_sft {
            let start = recipes.last().unwrap_or(&self.fp_sft()).result(&self.path("runs"));
            recipes.push(Recipe::omni_sft(start, self.part(part)));
        }
        recipes
    }

    fn part(&self, part: &Part) -> fine_tune::Stage {
        let data = self.path("tokens").join(part.name).join("data.yaml");
        fine_tune::Stage { name: part.name.to_owned(), data, options: part.training.clone() }
    }

    fn fine_tune(&self, recipe: &Recipe, part: &Part) -> Result<()> {
        self.tokens(part)?;
        let runs = self.path("runs");
        fs::create_dir_all(&runs)?;
        let (mut recorder, mut begun, mut tokens) = (Recorder::default(), Instant::now(), 0);
        let ended = recipe.run(&runs, std::slice::from_ref(&self.compute), |name, event| {
            let now = SystemTime::now();
            if let RunEvent::Started { step, steps } = event {
                say!("{name}: from step {step} of {steps}")?;
                recorder = Recorder::default()
                    .with(JsonLines::append(&runs.join(format!("{name}.jsonl")))?)
                    .with(TensorBoard::create(&runs.join(name), now)?);
                (begun, tokens) = (Instant::now(), 0);
            }
            if let RunEvent::Step(step) = event {
                tokens += step.tokens;
                if step.step.is_multiple_of(20) {
                    say!(
                        "{name} step {}, epoch {:.2}: loss {:.3}, gradient {:.2}, {:.0} tokens/s",
                        step.step,
                        step.epoch,
                        step.cross_entropy,
                        step.gradient_norm,
                        tokens as f64 / begun.elapsed().as_secs_f64()
                    )?;
                }
            }
            anyhow::Ok(recorder.record(&event, now)?)
        })?;
        match ended {
            Ended::Finished => Ok(()),
            Ended::Stopped => bail!("stopped"),
        }
    }

    fn model(&self) -> Result<()> {
        let model = self.path("model");
        // Written last: the image that the examples ask about.
        let scene = model.join("scene.png");
        if scene.exists() {
            return Ok(());
        }
        if !model.exists() {
            let (parts, runs, weights) = (self.omni_sft(), self.path("runs"), &self.plan.mean_of_parts);
            let last = &parts[parts.len().saturating_sub(weights.len())..];
            let trained = last.iter().zip(weights).map(|(part, weight)| (part.result(&runs), *weight));
            average(&trained.collect::<Vec<_>>(), &model, Dtype::BF16)?;
        }
        for file in ["vqgan.yaml", "vqgan.safetensors"] {
            fs::copy(self.path("vq").join(file), model.join(file)).with_context(|| file.to_owned())?;
        }
        // Square, with two objects, one of which the texts of the book can name.
        let scenes = Scenes::new(2, Split::Test, self.plan.target_px)?;
        let is_plain = |scene: &Scene| {
            let circles = scene.objects().iter().filter(|object| object.kind.shape == ObjectShape::Circle);
            scene.size().width_px() == scene.size().height_px() && scene.objects().len() == 2 && circles.count() == 1
        };
        let shown = (0..1000).map(|index| scenes.scene(index)).find(is_plain).context("a scene with a circle")?;
        save_image(&shown.image(), &scene)?;
        say!("wrote {}: {:.1} MB", model.display(), size(&model)? as f64 / 1e6)?;
        Ok(())
    }
}

/// What the model is to draw: a scene, or in every fourth case one of its maps.
fn drawn(scenes: &Scenes, index: u64) -> RgbImage {
    let scene = scenes.scene(index);
    match index % 8 {
        3 => scene.depth_map(),
        7 => scene.segmentation_map(),
        _ => scene.image(),
    }
}

/// The texts of the first records of a data set.
fn texts(options: &DatasetOptions, n: u64) -> Result<Vec<String>> {
    let dataset = SceneDataset::new(options.clone())?;
    let turns = (0..n.min(options.n_records)).flat_map(|index| dataset.texts(index));
    Ok(turns.map(|text| text.replace("<|image|>", "")).collect())
}

/// Bytes of the files in a folder.
fn size(folder: &Path) -> Result<u64> {
    fs::read_dir(folder)?.map(|entry| Ok(entry?.metadata()?.len())).sum()
}

/// Writes the tokens of the records of a dataset.
fn pretokenize(tokens: &Path, data: &DatasetOptions, images: &ImageTokenizer, unirep: &UniRep) -> Result<()> {
    let dataset = SceneDataset::new(data.clone())?;
    let records = Records::made(data.n_records as usize, |index| {
        let record = dataset.record(index as u64);
        (record.record, record.images.into_iter().map(InputImage::from).collect())
    });
    // Images have allowed sizes already, so there is nothing to crop.
    let options = PretokenizeOptions {
        crop: CropChoice::Center,
        window: 256,
        images_per_pass: 64,
        ..PretokenizeOptions::new(data.target_px)
    };
    let begun = Instant::now();
    let mut first = None;
    Pretokenizer::new(images, unirep, options)?.run(&records, tokens, |event| match event {
        PretokenizeEvent::Skipped { index, reason } => say!("record {index} was skipped: {reason}"),
        PretokenizeEvent::Progress(progress) => {
            let first = *first.get_or_insert(progress.done);
            if progress.done % 4096 == 0 || progress.done == progress.total {
                let rate = (progress.done - first) as f64 / begun.elapsed().as_secs_f64();
                say!("{}: {} of {} records, {rate:.0} a second", tokens.display(), progress.done, progress.total)?;
            }
            Ok(())
        }
    })?;
    let joined = concatenate(tokens)?;
    say!("{}: {} items, {} tokens", tokens.display(), joined.items, joined.tokens)?;
    Ok(())
}
