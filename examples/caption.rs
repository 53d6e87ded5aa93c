//! `cargo run --release --example caption -- photo.jpg --question "What is on the table?"`
//!
//! Describes a picture, or answers a question about it.
#![allow(clippy::print_stdout, reason = "a program for people")]

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use lumina_examples::{ModelArgs, open_picture, summary};
use lumina_mgpt::Event;

/// Describes a picture, or answers a question about it.
#[derive(Parser)]
struct Args {
    /// The picture [default: a scene]
    picture: Option<PathBuf>,
    /// What to ask about it; without it the picture is described
    #[arg(long)]
    question: Option<String>,
    #[command(flatten)]
    model: ModelArgs,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let picture = open_picture(args.picture.as_deref())?;
    let model = args.model.open()?;
    let generation = match &args.question {
        Some(question) => model.ask(question, picture),
        None => model.caption(picture),
    };
    for event in args.model.refine(generation).stream()? {
        match event? {
            Event::Text(piece) => {
                print!("{piece}");
                io::stdout().flush()?;
            }
            Event::Done { stats, .. } => println!("\n{}", summary(&stats)),
            _ => {}
        }
    }
    Ok(())
}
