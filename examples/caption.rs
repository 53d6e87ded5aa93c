//! `cargo run --release --example caption -- photo.jpg --question "What is on the table?"`
//!
//! Describes an image, or answers a question about it.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Parser;
use lumina_examples::{ModelArgs, open_image, summary};
use lumina_mgpt::Event;

/// Describes an image, or answers a question about it.
#[derive(Parser)]
struct Args {
    /// The image [default: a scene]
    image: Option<PathBuf>,
    /// A question about the image; without it the image is described
    #[arg(long)]
    question: Option<String>,
    #[command(flatten)]
    model: ModelArgs,
}

fn main() -> lumina_examples::Result<()> {
    let args = Args::parse();
    let image = open_image(args.image.as_deref())?;
    let model = args.model.open()?;
    let generation = match &args.question {
        Some(question) => model.ask(question, image),
        None => model.caption(image),
    };
    for event in args.model.apply_sampling(generation).stream()? {
        match event? {
            Event::Text(piece) => {
                print!("{piece}");
                io::stdout().flush()?;
            }
            Event::Done { stats, .. } => {
                println!();
                eprintln!("{}", summary(&stats));
            }
            _ => {}
        }
    }
    Ok(())
}
