//! `cargo run --release --example evaluate`
//!
//! Asks a model about scenes that were not in its training data, evaluates the answers and prints how many are correct.
//! Writes a page with all images, wrong answers first.
#![allow(clippy::print_stdout, reason = "a program for people")]

mod page;
mod questions;
mod table;

use std::path::PathBuf;

use clap::Parser;
use lumina_examples::{ModelArgs, count_correct_reconstructions};
use lumina_scenes::dataset::SceneTask;
use lumina_scenes::{DEFAULT_TARGET_PX, Scenes, Split};
use lumina_train::vq::evaluate_vq;

use page::Page;
use questions::Evaluation;

/// Evaluates a model that was trained on scenes.
#[derive(Parser)]
struct Args {
    /// Test prompts, of the distribution of the training data
    #[arg(long, default_value_t = 300)]
    prompts: u64,
    /// Prompts with an object of a kind that no training image contains
    #[arg(long, default_value_t = 150)]
    held_out: u64,
    /// Questions for each other task
    #[arg(long, default_value_t = 100)]
    others: u64,
    /// Batch size of requests
    #[arg(long, default_value_t = 16)]
    batch: usize,
    /// Seed of the scenes and of sampling
    #[arg(long, default_value_t = 1000)]
    scenes_seed: u64,
    /// The folder of the page
    #[arg(short, long, default_value = "out/evaluate")]
    output: PathBuf,
    #[command(flatten)]
    model: ModelArgs,
}

fn main() -> lumina_examples::Result<()> {
    let args = Args::parse();
    let model = args.model.open()?;
    let mut page = Page::new(&args.output)?;
    let mut rows = Vec::new();

    let (tokenizer, n) = (model.image_tokenizer()?, args.prompts.max(1));
    let scenes = Scenes::new(args.scenes_seed, Split::Test, DEFAULT_TARGET_PX)?;
    let vq = evaluate_vq(tokenizer, (0..n).map(|index| scenes.scene(index).image()))?;
    rows.push(("image tokenizer: PSNR".to_owned(), format!("{:.2} dB", vq.mean_psnr_db)));
    let percent = 100.0 * vq.codes_used as f64 / vq.n_codes as f64;
    rows.push((
        "image tokenizer: codes in use".to_owned(),
        format!("{} of {} ({percent:.0} %)", vq.codes_used, vq.n_codes),
    ));
    let percent = 100.0 * count_correct_reconstructions(tokenizer, &scenes, n)? as f64 / n as f64;
    rows.push(("image tokenizer: correct reconstructions".to_owned(), format!("{percent:.1} % of {n}")));

    let parts = [
        (SceneTask::TextToImage, Split::Test, args.prompts),
        (SceneTask::TextToImage, Split::HeldOut, args.held_out),
        (SceneTask::Captioning, Split::Test, args.others),
        (SceneTask::DepthEstimation, Split::Test, args.others),
        (SceneTask::SemanticSegmentation, Split::Test, args.others),
        (SceneTask::Editing, Split::Test, args.others),
        (SceneTask::ImageThenEdit, Split::Test, args.others),
        (SceneTask::ImageThenCaption, Split::Test, args.others),
    ];
    for (task, split, n) in parts.into_iter().filter(|&(.., n)| n > 0) {
        let evaluation = Evaluation { model: &model, args: &args.model, seed: args.scenes_seed, batch: args.batch };
        rows.extend(evaluation.run(task, split, n, &mut page)?);
    }
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    for (name, value) in &rows {
        println!("{name:width$}  {value}");
    }
    println!("wrote {}", page.write(&rows)?.display());
    Ok(())
}
