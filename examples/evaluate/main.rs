//! `cargo run --release --example evaluate`
//!
//! Asks a model about scenes that were not in its training data, evaluates the answers and prints how many are correct.
//! Writes a page with all images, wrong answers first.

mod page;
mod questions;
mod speed;
mod table;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use lumina_examples::{ModelArgs, count_correct_reconstructions, say};
use lumina_mgpt::Lumina;
use lumina_scenes::dataset::SceneTask;
use lumina_scenes::{Scenes, Split};
use lumina_train::vq::VqEvaluation;

use page::Page;
use questions::Evaluation;
use speed::speed;
use table::Row;

/// Evaluates a model that was trained on scenes: asks about scenes that it has not seen, and counts right answers.
///
/// Answers are drawn with the model's own settings, those of its generation_config.json, unless options say otherwise.
/// Question N of a task is drawn with the seed `--seed` + N. On two CPU cores the small model takes about ten minutes.
#[derive(Parser)]
struct Args {
    /// Images to encode and to decode
    #[arg(long, value_name = "N", default_value_t = 1000)]
    vq_scenes: u64,
    /// Images to draw from prompts that are like those of the training data; 0 also leaves out the free prompts and the
    /// speed
    #[arg(long, value_name = "N", default_value_t = 300)]
    prompts: u64,
    /// Images to draw from prompts with an object of a kind that no training image contains
    #[arg(long, value_name = "N", default_value_t = 300)]
    held_out: u64,
    /// Questions of each other task
    #[arg(long, value_name = "N", default_value_t = 300)]
    others: u64,
    /// Questions that are answered at the same time
    #[arg(long, value_name = "N", default_value = "16")]
    batch: NonZeroUsize,
    /// Seed of the scenes
    #[arg(long, value_name = "N", default_value_t = 1000)]
    scenes_seed: u64,
    /// The folder of index.html, which shows all answers, wrong ones first, and of sheets of the first images
    #[arg(short, long, value_name = "FOLDER", default_value = "out/evaluate")]
    output: PathBuf,
    #[command(flatten)]
    model: ModelArgs,
}

fn main() -> ExitCode {
    lumina_examples::main(run)
}

fn run(args: Args) -> lumina_examples::Result<()> {
    let model = args.model.open()?;
    let mut page = Page::new(&args.output)?;
    let mut rows = Vec::new();

    if args.vq_scenes > 0 {
        rows.extend(vq_rows(&model, args.scenes_seed, args.vq_scenes)?);
    }

    let parts = [
        (SceneTask::TextToImage, Split::Test, args.prompts),
        (SceneTask::TextToImage, Split::HeldOut, args.held_out),
        (SceneTask::Captioning, Split::Test, args.others),
        (SceneTask::DepthEstimation, Split::Test, args.others),
        (SceneTask::SemanticSegmentation, Split::Test, args.others),
        (SceneTask::Editing, Split::Test, args.others),
        (SceneTask::Question, Split::Test, args.others),
        (SceneTask::ImageThenEdit, Split::Test, args.others),
        (SceneTask::ImageThenCaption, Split::Test, args.others),
    ];
    let evaluation = Evaluation { model: &model, args: &args.model, seed: args.scenes_seed, batch: args.batch.get() };
    if args.prompts > 0 {
        rows.extend(evaluation.free_prompts(&mut page)?);
    }
    for (task, split, n) in parts.into_iter().filter(|&(.., n)| n > 0) {
        rows.extend(evaluation.run(task, split, n, &mut page)?);
    }
    if args.prompts > 0 {
        rows.extend(speed(&model, &args.model)?);
    }
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    for (name, value) in &rows {
        say!("{name:width$}  {value}")?;
    }
    say!("wrote {}", page.write(&rows)?.display())?;
    Ok(())
}

/// The rows about the image tokenizer, on `n` scenes that it has not seen.
fn vq_rows(model: &Lumina, seed: u64, n: u64) -> lumina_examples::Result<Vec<Row>> {
    let tokenizer = model.image_tokenizer()?;
    let scenes = Scenes::new(seed, Split::Test, model.target_size_px())?;
    let percent = |part: u64, all: u64| 100.0 * part as f64 / all as f64;
    let mut evaluation = VqEvaluation::new(tokenizer);
    let n_correct = count_correct_reconstructions(&mut evaluation, &scenes, n)?;
    let psnr_db = evaluation.report()?.mean_psnr_db;
    // Maps have codes of their own.
    for scene in (0..n).map(|index| scenes.scene(index)) {
        evaluation.reconstruct(&scene.depth_map())?;
        evaluation.reconstruct(&scene.segmentation_map())?;
    }
    let with_maps = evaluation.report()?;
    let (used, all) = (with_maps.codes_used, with_maps.n_codes);
    let held_out = Scenes::new(seed, Split::HeldOut, model.target_size_px())?;
    let n_held_out = count_correct_reconstructions(&mut VqEvaluation::new(tokenizer), &held_out, n)?;
    let rows = [
        ("PSNR".to_owned(), format!("{psnr_db:.2} dB")),
        (
            format!("codes in use, in {n} images and their maps"),
            format!("{used} of {all} ({:.0} %)", percent(used as u64, all as u64)),
        ),
        ("correct reconstructions".to_owned(), format!("{:.1} % of {n}", percent(n_correct, n))),
        ("correct reconstructions, held-out kinds".to_owned(), format!("{:.1} % of {n}", percent(n_held_out, n))),
    ];
    Ok(rows.map(|(name, value)| (format!("image tokenizer: {name}"), value)).to_vec())
}
