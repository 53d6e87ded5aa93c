//! `cargo run --release --example edit -- editing photo.jpg --instruction "Make it night"`
//!
//! Draws a picture from a picture, as the Omni checkpoints can: labels, edits, and pictures after a control image.
#![allow(clippy::print_stdout, reason = "a program for people")]

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Parser;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use lumina_examples::{ModelArgs, Progress, open_picture, save_png, summary};
use lumina_mgpt::{Event, Task};
use lumina_tokenizer::TaskOutput;

/// Draws a picture from a picture.
#[derive(Parser)]
struct Args {
    /// What to draw
    #[arg(default_value = "depth_estimation", value_parser = tasks())]
    task: Task,
    /// The picture to begin with [default: a scene]
    picture: Option<PathBuf>,
    /// What detection, editing and conditional_generation are to do
    #[arg(long)]
    instruction: Option<String>,
    /// The picture, a PNG file [default: out/TASK.png]
    #[arg(short, long)]
    output: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,
}

/// The tasks that make a picture of a picture.
fn tasks() -> impl TypedValueParser<Value = Task> {
    let specs = Task::ALL.map(Task::spec).into_iter();
    let names = specs.filter(|spec| spec.images == Some(1) && spec.output == TaskOutput::Image).map(|spec| spec.name);
    PossibleValuesParser::new(names).try_map(|name| name.parse::<Task>())
}

fn main() -> Result<()> {
    let args = Args::parse();
    let output = args.output.unwrap_or_else(|| format!("out/{}.png", args.task).into());
    let picture = open_picture(args.picture.as_deref())?;
    let model = args.model.open()?;
    let progress = Progress::new();
    for event in args.model.refine(model.edit(args.task, picture, args.instruction.as_deref())).stream()? {
        let event = event?;
        progress.show(&event);
        match event {
            Event::Image { image, .. } => save_png(&image, &output)?,
            Event::Malformed { malformed, .. } => bail!("{malformed}; is --max-new-tokens too low?"),
            Event::Done { stats, .. } => {
                println!("{}\nwrote {}", summary(&stats), output.display());
            }
            _ => {}
        }
    }
    Ok(())
}
