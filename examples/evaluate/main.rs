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
use lumina_scenes::{Scene, Scenes, Split};
use lumina_train::vq::evaluate_vq;

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
    let mut rows = Vec::new();
    let vq = evaluate_vq(tokenizer, (0..n).map(|index| scenes.scene(index).image()))?;
    rows.push(("image tokenizer: PSNR".to_owned(), format!("{:.2} dB", vq.mean_psnr_db)));
    // Maps have codes of their own.
    let with_maps =
        |index| [Scene::image, Scene::depth_map, Scene::segmentation_map].map(|of| of(&scenes.scene(index)));
    let vq = evaluate_vq(tokenizer, (0..n).flat_map(with_maps))?;
    let percent = 100.0 * vq.codes_used as f64 / vq.n_codes as f64;
    rows.push((
        format!("image tokenizer: codes in use, in {n} images and their maps"),
        format!("{} of {} ({percent:.0} %)", vq.codes_used, vq.n_codes),
    ));
    for (split, of) in [(Split::Test, ""), (Split::HeldOut, ", held-out kinds")] {
        let scenes = Scenes::new(seed, split, model.target_size_px())?;
        let percent = 100.0 * count_correct_reconstructions(tokenizer, &scenes, n)? as f64 / n as f64;
        rows.push((format!("image tokenizer: correct reconstructions{of}"), format!("{percent:.1} % of {n}")));
    }
    Ok(rows)
}
