//! `lumina caption photo.jpg --question "What is on the table?"`
//!
//! Describes an image, or answers a question about it.

use std::path::PathBuf;

use crate::{Form, ModelArgs, left_out, note, note_unknown_words, open_image, say_piece, summary};
use clap::Args as Arguments;
use lumina_mgpt::Event;
use serde_json::json;

/// Describes an image, or answers a question about it.
#[derive(Debug, Arguments)]
pub struct Args {
    /// The image, in any usual format [default: model/scene.png]
    image: Option<PathBuf>,
    /// A question about the image; without it the image is described. The small model answers those on its
    /// scenes: "how many circles are there?"
    #[arg(long, value_name = "TEXT")]
    question: Option<String>,
    #[command(flatten)]
    model: ModelArgs,
}

/// Runs it.
///
/// # Errors
/// What it prints.
pub fn run(args: Args, form: Form) -> crate::Result<()> {
    let image = open_image(args.image.as_deref())?;
    let model = args.model.open()?;
    let generation = match &args.question {
        Some(question) => {
            note_unknown_words(&model, question);
            model.ask(question, image)
        }
        None => model.caption(image),
    };
    let (mut n_specials, mut text) = (0, String::new());
    for event in args.model.apply_sampling(generation).stream()? {
        match event? {
            Event::Text(piece) => {
                if form == Form::Text {
                    say_piece!("{piece}")?;
                }
                text.push_str(&piece);
            }
            Event::Special(_) => n_specials += 1,
            Event::Done { stats, .. } => {
                form.result(json!({ "text": text, "stats": stats }), String::new)?;
                if let Some(remark) = left_out(n_specials) {
                    note!("{remark}");
                }
                note!("{}", summary(&stats));
            }
            _ => {}
        }
    }
    Ok(())
}
