//! `cargo run --release --example generate -- "a small red circle above a large blue square on a white background"`
//!
//! Draws an image from a text.
#![allow(clippy::print_stdout, reason = "a program for people")]

use std::path::PathBuf;

use clap::Parser;
use lumina_examples::{ModelArgs, Progress, SCENE_PROMPT, save_png, summary, width_x_height};
use lumina_mgpt::{Error, Event};

/// Draws an image from a text.
#[derive(Parser)]
struct Args {
    /// What to draw
    #[arg(default_value = SCENE_PROMPT)]
    prompt: String,
    /// WIDTHxHEIGHT in pixels, multiples of 32 [default: a square of the target size]
    #[arg(long, value_parser = width_x_height)]
    size: Option<(u32, u32)>,
    /// Write a preview each time that this many rows of 16 pixels are complete
    #[arg(long)]
    preview_every: Option<u32>,
    /// The PNG file to write
    #[arg(short, long, default_value = "out/generate.png")]
    output: PathBuf,
    #[command(flatten)]
    model: ModelArgs,
}

fn main() -> lumina_examples::Result<()> {
    let args = Args::parse();
    let model = args.model.open()?;
    let size = args.size.unwrap_or((model.target_size_px(), model.target_size_px()));
    let mut generation = args.model.apply_sampling(model.text_to_image(&args.prompt, size));
    if let Some(rows) = args.preview_every {
        generation = generation.preview_every_rows(rows);
    }
    let progress = Progress::new();
    let mut cut_off = None;
    for event in generation.stream()? {
        let event = event?;
        progress.update(&event);
        match event {
            Event::Preview(image) | Event::Image { image, .. } => save_png(&image, &args.output)?,
            Event::Malformed { malformed, .. } => cut_off = Some(malformed),
            Event::Done { stats, .. } => {
                if let Some(malformed) = cut_off.take() {
                    return Err(Error::Malformed { malformed, stop: Some(stats.stop) }.into());
                }
                println!("{}", summary(&stats));
                println!("wrote {}", args.output.display());
            }
            _ => {}
        }
    }
    Ok(())
}
