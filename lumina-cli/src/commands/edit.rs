//! `lumina edit editing photo.jpg --instruction "Make it night"`
//!
//! Draws an image from an image with an Omni checkpoint: annotations, edits, and images that follow a control image.

use std::path::PathBuf;

use crate::{
    Form, ModelArgs, Progress, check_instruction, check_output, note, note_unknown_words, open_image, save_image,
    summary,
};
use clap::Args as Arguments;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use lumina_mgpt::{Error, Event, Task};
use lumina_tokenizer::TaskOutput;
use serde_json::json;

/// Draws an image from an image: a depth or segmentation map, an edit, or an image that follows a control image.
///
/// The small model knows depth_estimation, semantic_segmentation, and editing of its scenes: edit editing
/// --instruction "make the background black".
#[derive(Debug, Arguments)]
pub struct Args {
    /// The task
    #[arg(default_value = "depth_estimation", value_parser = tasks())]
    task: Task,
    /// The input image [default: model/scene.png]
    image: Option<PathBuf>,
    /// What to do, for the tasks detection, editing and conditional_generation
    #[arg(long, value_name = "TEXT")]
    instruction: Option<String>,
    /// The PNG, JPEG or WebP file to write [default: out/TASK.png]
    #[arg(short, long, value_name = "FILE")]
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

/// Runs it.
///
/// # Errors
/// What it prints.
pub fn run(args: Args, form: Form) -> crate::Result<()> {
    check_instruction(args.task, args.instruction.is_some())?;
    let output = args.output.unwrap_or_else(|| format!("out/{}.png", args.task).into());
    check_output(&output)?;
    let image = open_image(args.image.as_deref())?;
    let model = args.model.open()?;
    if let Some(instruction) = &args.instruction {
        note_unknown_words(&model, instruction);
    }
    let progress = Progress::new();
    let (mut cut_off, mut text) = (None, String::new());
    for event in args.model.apply_sampling(model.edit(args.task, image, args.instruction.as_deref())).stream()? {
        let event = event?;
        progress.update(&event);
        match event {
            Event::Text(piece) => text.push_str(&piece),
            Event::Image { image, .. } => save_image(&image, &output)?,
            Event::Malformed { malformed, .. } => cut_off = Some(malformed),
            Event::Done { stats, .. } => {
                if let Some(malformed) = cut_off.take() {
                    return Err(Error::Malformed { malformed, stop: Some(stats.stop) }.into());
                }
                // What some models say that the image shows.
                let text = text.trim();
                if !text.is_empty() {
                    note!("{text}");
                }
                note!("{}", summary(&stats));
                let record = json!({ "file": output, "task": args.task, "text": text, "stats": stats });
                form.result(record, || format!("wrote {}", output.display()))?;
            }
            _ => {}
        }
    }
    Ok(())
}
