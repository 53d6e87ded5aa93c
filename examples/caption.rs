//! `cargo run --release --example caption -- photo.jpg --question "What is on the table?"`
//!
//! Describes an image, or answers a question about it.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use lumina_examples::{ModelArgs, left_out, note, open_image, say, say_piece, summary};
use lumina_mgpt::Event;

/// Describes an image, or answers a question about it.
#[derive(Parser)]
struct Args {
    /// The image, in any usual format [default: model/scene.png]
    image: Option<PathBuf>,
    /// A question about the image; without it the image is described. The small model can only describe
    #[arg(long, value_name = "TEXT")]
    question: Option<String>,
    #[command(flatten)]
    model: ModelArgs,
}

fn main() -> ExitCode {
    lumina_examples::main(run)
}

fn run(args: Args) -> lumina_examples::Result<()> {
    let image = open_image(args.image.as_deref())?;
    let model = args.model.open()?;
    let generation = match &args.question {
        Some(question) => model.ask(question, image),
        None => model.caption(image),
    };
    let mut n_specials = 0;
    for event in args.model.apply_sampling(generation).stream()? {
        match event? {
            Event::Text(piece) => {
                say_piece!("{piece}")?;
            }
            Event::Special(_) => n_specials += 1,
            Event::Done { stats, .. } => {
                say!("")?;
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
