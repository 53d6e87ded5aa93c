//! `cargo run --release --example edit -- editing photo.jpg --instruction "Make it night"`
//!
//! Draws an image from an image with an Omni checkpoint: annotations, edits, and images that follow a control image.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]

use std::path::PathBuf;

use clap::Parser;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use lumina_examples::{ModelArgs, Progress, check_instruction, check_output, open_image, save_image, summary};
use lumina_mgpt::{Error, Event, Task};
use lumina_tokenizer::TaskOutput;

/// Draws an image from an image.
#[derive(Parser)]
struct Args {
    /// The task
    #[arg(default_value = "depth_estimation", value_parser = tasks())]
    task: Task,
    /// The input image [default: a scene]
    image: Option<PathBuf>,
    /// The instruction of detection, editing and conditional_generation
    #[arg(long)]
    instruction: Option<String>,
    /// The PNG, JPEG or WebP file to write [default: out/TASK.png]
    #[arg(short, long)]
    output: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,
}

/// Parses the tasks that draw an image from one image.
fn tasks() -> impl TypedValueParser<Value = Task> {
    let specs = Task::ALL.map(Task::spec).into_iter();
    let names = specs.filter(|spec| spec.images == Some(1) && spec.output == TaskOutput::Image).map(|spec| spec.name);
    PossibleValuesParser::new(names).try_map(|name| name.parse::<Task>())
}

fn main() -> lumina_examples::Result<()> {
    let args = Args::parse();
    check_instruction(args.task, args.instruction.is_some())?;
    let output = args.output.unwrap_or_else(|| format!("out/{}.png", args.task).into());
    check_output(&output)?;
    let image = open_image(args.image.as_deref())?;
    let model = args.model.open()?;
    let progress = Progress::new();
    let mut cut_off = None;
    for event in args.model.apply_sampling(model.edit(args.task, image, args.instruction.as_deref())).stream()? {
        let event = event?;
        progress.update(&event);
        match event {
            Event::Image { image, .. } => save_image(&image, &output)?,
            Event::Malformed { malformed, .. } => cut_off = Some(malformed),
            Event::Done { stats, .. } => {
                if let Some(malformed) = cut_off.take() {
                    return Err(Error::Malformed { malformed, stop: Some(stats.stop) }.into());
                }
                eprintln!("{}", summary(&stats));
                println!("wrote {}", output.display());
            }
            _ => {}
        }
    }
    Ok(())
}
