//! The stages, each of which leaves a folder that the next one reads.

use std::fmt;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Instant, SystemTime};

use anyhow::{Context, Result, bail};
use image::{RgbImage, imageops};
use lumina_checkpoint::Dtype;
use lumina_core::{CELL_PX, LATENT_PX};
use lumina_examples::{count_correct_reconstructions, save_png};
use lumina_nn::Compute;
use lumina_scenes::dataset::{DatasetOptions, SceneDataset, write_dataset};
use lumina_scenes::{Scene, Scenes, Split};
use lumina_tokenizer::UniRep;
use lumina_train::data::{
    CropChoice, PretokenizeEvent, PretokenizeOptions, Pretokenizer, Records, TokenizerOptions, concatenate,
    train_tokenizer,
};
use lumina_train::fine_tune::{self as recipe, Ended, Recipe, RunEvent};
use lumina_train::metrics::{JsonLines, TensorBoard};
use lumina_train::vq::{PatchSorts, VqTrainer, VqTrainingOptions, codes_from_patches, evaluate_vq, init_vq};
use lumina_vq::{ImageTokenizer, VqConfig};

use super::plan::{Part, Pictures, Plan, VqPart};

/// A part of the training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The image tokenizer.
    Vq,
    /// The text tokenizer, the data, and their tokens.
    Tokens,
    /// Text to image.
    FpSft,
    /// All tasks.
    OmniSft,
    /// The folder that programs open.
    Model,
}

impl Stage {
    pub(crate) const ALL: [Self; 5] = [Self::Vq, Self::Tokens, Self::FpSft, Self::OmniSft, Self::Model];
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vq => "vq",
            Self::Tokens => "tokens",
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

/// Where the stages work, and with what numbers.
pub(crate) struct Stages {
    pub(crate) folder: PathBuf,
    pub(crate) plan: Plan,
    pub(crate) compute: Compute,
}

impl Stages {
    /// Runs a stage, or what is left of it.
    pub(crate) fn run(&self, stage: Stage) -> Result<()> {
        match stage {
            Stage::Vq => self.vq(),
            Stage::Tokens => self.tokens(),
            Stage::FpSft => self.fine_tune(&self.fp_sft()),
            Stage::OmniSft => self.omni_sft().iter().try_for_each(|recipe| self.fine_tune(recipe)),
            Stage::Model => self.model(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Trains the image tokenizer, part by part.
    fn vq(&self) -> Result<()> {
        let result = self.path("vq");
        // Written last of what is in a folder.
        let done = |folder: &Path| folder.join("vqgan.yaml").exists();
        if done(&result) {
            return Ok(());
        }
        let mut trained = self.path("vq-start");
        if !done(&trained) {
            init_vq(&VqConfig::new(self.plan.vq.clone())?, 0, &trained, &self.compute)?;
        }
        let of_sorts = || (0..self.plan.code_pictures).flat_map(|step| self.whole_pictures(0, step));
        let sorts = PatchSorts::of(of_sorts(), LATENT_PX, self.plan.sorts)?;
        println!("{} sorts of patches", sorts.len());
        for (number, VqPart { codes, pictures, options }) in (1..).zip(&self.plan.vq_parts) {
            if *codes {
                let coded = self.path(&format!("vq-{number}-codes"));
                if !done(&coded) {
                    codes_from_patches(&trained, &coded, of_sorts(), &sorts, &self.compute)?;
                }
                trained = coded;
            }
            let to = self.path(&format!("vq-{number}"));
            if !done(&to) {
                let pictures = |step: u64| match pictures {
                    Pictures::Cells => self.cells(number, step),
                    Pictures::Mixed if step.is_multiple_of(2) => self.cells(number, step),
                    Pictures::Mixed | Pictures::Whole => self.whole_pictures(number, step),
                };
                self.train_vq(&format!("vq-{number}-run"), &trained, options, codes.then(|| sorts.clone()), &pictures)?
                    .save(&to, Dtype::F32)?;
                self.report_vq(&to)?;
            }
            trained = to;
        }
        VqTrainer::open(&trained, VqTrainingOptions::default(), &self.compute)?.save(&result, Dtype::F16)?;
        Ok(())
    }

    /// Trains the image tokenizer in `start`, or goes on with it.
    fn train_vq(
        &self,
        name: &str,
        start: &Path,
        options: &VqTrainingOptions,
        sorts: Option<PatchSorts>,
        pictures: &dyn Fn(u64) -> Vec<RgbImage>,
    ) -> Result<VqTrainer> {
        let run = self.path(name);
        let mut trainer = if run.exists() {
            VqTrainer::resume(&run, &self.compute)?
        } else {
            VqTrainer::open(start, options.clone(), &self.compute)?
        };
        if let Some(sorts) = sorts {
            trainer = trainer.assign(sorts)?;
        }
        let mut lines = JsonLines::append(&self.path(&format!("{name}.jsonl")))?.resume_at(trainer.step())?;
        let begun = Instant::now();
        let mut failed = None;
        trainer.run(
            &run,
            |step| Ok(pictures(step)),
            |step| {
                failed = failed.take().or(lines.write(step).err());
                if step.step.is_multiple_of(20) {
                    println!(
                        "{name} step {}: {:.2} dB, {} codes in use, perplexity {:.0}, {:.0} s",
                        step.step,
                        step.psnr_db,
                        step.codes_used,
                        step.perplexity,
                        begun.elapsed().as_secs_f64()
                    );
                }
            },
        )?;
        failed.map_or(Ok(trainer), |error| Err(error.into()))
    }

    fn report_vq(&self, folder: &Path) -> Result<()> {
        let tokenizer = ImageTokenizer::open(folder, &self.compute)?;
        let scenes = Scenes::new(99, Split::Test, self.plan.target_px)?;
        let n = self.plan.code_pictures;
        let report = evaluate_vq(&tokenizer, (0..n).map(|index| scenes.scene(index).image()))?;
        // What counts for the model: whether what comes back shows the scene still.
        let right = count_correct_reconstructions(&tokenizer, &scenes, n)?;
        println!("of {n} pictures it has not seen {right} come back right: {report:?}");
        Ok(())
    }

    /// Single cells with an object in them, four times as many as a step has pictures: what is in a patch is learnt from
    /// them as well, at a fraction of the work, and objects weigh more beside the background.
    fn cells(&self, seed: u64, step: u64) -> Vec<RgbImage> {
        let cell = |(scene, picture): (Scene, RgbImage)| {
            let (column, row) = scene.objects().first().map_or((0, 0), |object| object.cell);
            imageops::crop_imm(&picture, column * CELL_PX, row * CELL_PX, CELL_PX, CELL_PX).to_image()
        };
        pictures(seed, step, self.plan.target_px * 2 / 3).take(4 * self.plan.vq_batch).map(cell).collect()
    }

    /// As many pictures as a step has, all of one size.
    fn whole_pictures(&self, seed: u64, step: u64) -> Vec<RgbImage> {
        let mut of_size: Vec<Vec<RgbImage>> = Vec::new();
        for (_, picture) in pictures(seed, step, self.plan.target_px) {
            let same = of_size.iter().position(|pictures| pictures[0].dimensions() == picture.dimensions());
            let place = same.unwrap_or_else(|| {
                of_size.push(Vec::new());
                of_size.len() - 1
            });
            of_size[place].push(picture);
            if of_size[place].len() == self.plan.vq_batch {
                return of_size.swap_remove(place);
            }
        }
        Vec::new()
    }

    fn tokens(&self) -> Result<()> {
        let tokenizer = self.path("tokenizer");
        let parts = || self.plan.fp_sft.iter().chain(&self.plan.omni_sft);
        let images = ImageTokenizer::open(self.path("vq"), &self.compute)?;
        if !tokenizer.join("tokenizer.json").exists() {
            let n_codes = images.config().n_codes();
            let texts = parts().map(|part| texts(&part.data.1, 4000)).collect::<Result<Vec<_>>>()?;
            let options = TokenizerOptions { n_codes: n_codes as u32, max_cells: 16, max_merges: self.plan.merges };
            train_tokenizer(&tokenizer, texts.concat(), &options)?;
        }
        let unirep = UniRep::open(&tokenizer)?;
        for Part { data: (name, options), also, .. } in parts() {
            let data = self.path("data").join(name);
            let records = data.join("records.jsonl");
            if !records.exists() {
                let begun = Instant::now();
                write_dataset(&data, &SceneDataset::new(options.clone())?, |_| ())?;
                println!("{name}: {} records written in {:.0} s", options.n_records, begun.elapsed().as_secs_f64());
            }
            let tokens = self.path("tokens").join(name);
            if tokens.join("record.json").exists() {
                continue;
            }
            // Pictures have allowed sizes already, so there is nothing to crop.
            let options = PretokenizeOptions {
                crop: CropChoice::Center,
                window: 64,
                ..PretokenizeOptions::new(options.target_px)
            };
            let begun = Instant::now();
            let mut first = None;
            Pretokenizer::new(&images, &unirep, options)?.run(
                &Records::open(&records)?,
                &tokens,
                |event| match event {
                    PretokenizeEvent::Skipped { index, reason } => println!("record {index} was skipped: {reason}"),
                    PretokenizeEvent::Progress(progress) => {
                        let first = *first.get_or_insert(progress.done);
                        if progress.done % 2048 == 0 || progress.done == progress.total {
                            let rate = (progress.done - first) as f64 / begun.elapsed().as_secs_f64();
                            println!("{name}: {} of {} records, {rate:.0} a second", progress.done, progress.total);
                        }
                    }
                },
            )?;
            let joined = concatenate(&tokens)?;
            println!("{name}: {} items, {} tokens", joined.items, joined.tokens);
            let mut yaml = "META:\n  - path: record.json\n".to_owned();
            if let Some((other, ratio)) = also {
                yaml += &format!("  - path: ../{other}/record.json\n    ratio: {ratio}\n");
            }
            fs::write(tokens.join("data.yaml"), yaml).context("data.yaml")?;
        }
        if !self.path("start").exists() {
            self.plan.model.create(&tokenizer, &self.path("start"), &self.compute)?;
        }
        Ok(())
    }

    fn fp_sft(&self) -> Recipe {
        Recipe::fp_sft(self.path("start"), self.plan.fp_sft.iter().map(|part| self.part(part)).collect())
    }

    /// The runs on all tasks, each of which goes on from the one before.
    fn omni_sft(&self) -> Vec<Recipe> {
        let mut recipes: Vec<Recipe> = Vec::new();
        for part in &self.plan.omni_sft {
            let start = recipes.last().unwrap_or(&self.fp_sft()).result(&self.path("runs"));
            recipes.push(Recipe::omni_sft(start, self.part(part)));
        }
        recipes
    }

    fn part(&self, part: &Part) -> recipe::Stage {
        let data = self.path("tokens").join(part.data.0).join("data.yaml");
        recipe::Stage { name: part.name.to_owned(), data, options: part.training.clone() }
    }

    fn fine_tune(&self, recipe: &Recipe) -> Result<()> {
        let runs = self.path("runs");
        fs::create_dir_all(&runs)?;
        let mut metrics: Option<(JsonLines, TensorBoard)> = None;
        let (mut begun, mut tokens) = (Instant::now(), 0);
        let mut observe = |name: &str, event: RunEvent<'_>| -> lumina_train::Result<()> {
            match event {
                RunEvent::Started { position, steps_per_epoch } => {
                    println!("{name}: from step {}, {steps_per_epoch} steps an epoch", position.step);
                    let lines = JsonLines::append(&runs.join(format!("{name}.jsonl")))?.resume_at(position.step)?;
                    let mut board = TensorBoard::create(&runs.join(name), SystemTime::now())?;
                    board.resume_at(position.step, SystemTime::now())?;
                    metrics = Some((lines, board));
                    (begun, tokens) = (Instant::now(), 0);
                }
                RunEvent::Step(step) => {
                    tokens += step.tokens;
                    if let Some((lines, board)) = &mut metrics {
                        lines.write(step)?;
                        let values = [
                            ("loss", step.loss),
                            ("z_loss", step.z_loss),
                            ("lr", step.lr),
                            ("grad_norm", step.grad_norm),
                        ];
                        board.scalars(step.step, SystemTime::now(), &values)?;
                    }
                    if step.step.is_multiple_of(20) {
                        println!(
                            "{name} step {}, epoch {:.2}: loss {:.3}, gradient {:.2}, {:.0} tokens/s",
                            step.step,
                            step.epoch,
                            step.cross_entropy,
                            step.grad_norm,
                            tokens as f64 / begun.elapsed().as_secs_f64()
                        );
                    }
                }
                RunEvent::Saved(_) => {}
            }
            Ok(())
        };
        let mut failed = None;
        let ended =
            recipe.run(&runs, std::slice::from_ref(&self.compute), &mut |name, event| match observe(name, event) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            })?;
        match (failed, ended) {
            (Some(error), _) => Err(error.into()),
            (None, Ended::Finished) => Ok(()),
            (None, Ended::Stopped) => bail!("stopped"),
        }
    }

    fn model(&self) -> Result<()> {
        let model = self.path("model");
        // Written last: what the examples ask about.
        let scene = model.join("scene.png");
        if scene.exists() {
            return Ok(());
        }
        if !model.exists() {
            let trained = self.omni_sft().pop().context("Omni-SFT has a run")?.result(&self.path("runs"));
            recipe::convert(&trained, &model, Dtype::BF16)?;
        }
        for file in ["vqgan.yaml", "vqgan.safetensors"] {
            fs::copy(self.path("vq").join(file), model.join(file)).with_context(|| file.to_owned())?;
        }
        let picture = Scenes::new(2, Split::Test, self.plan.target_px)?.scene(0).image();
        save_png(&picture, &scene)?;
        println!("wrote {}: {:.1} MB", model.display(), size(&model)? as f64 / 1e6);
        Ok(())
    }
}

/// Scenes and their pictures, three quarters as they look and the others their maps.
fn pictures(seed: u64, step: u64, target_px: u32) -> impl Iterator<Item = (Scene, RgbImage)> {
    // A step has scenes of its own, however many it needs to find enough of one size.
    const PER_STEP: u64 = 1 << 16;
    let scenes = Scenes::new(seed, Split::Train, target_px).expect("the target size is the scenes' own");
    (step * PER_STEP..).map(move |index| {
        let scene = scenes.scene(index);
        let picture = match index % 8 {
            3 => scene.depth_map(),
            7 => scene.segmentation_map(),
            _ => scene.image(),
        };
        (scene, picture)
    })
}

/// The texts of the first records of a data set.
fn texts(options: &DatasetOptions, n: u64) -> Result<Vec<String>> {
    let dataset = SceneDataset::new(options.clone())?;
    let turns = (0..n.min(options.n_records)).flat_map(|index| dataset.record(index).record.conversations);
    Ok(turns.filter_map(|turn| turn.value).map(|text| text.replace("<|image|>", "")).collect())
}

/// Bytes of the files in a folder.
fn size(folder: &Path) -> Result<u64> {
    fs::read_dir(folder)?.map(|entry| Ok(entry?.metadata()?.len())).sum()
}
