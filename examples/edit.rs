//! `cargo run --release --example edit -- "make the background black" model/scene.png`
//!
//! Changes an image as a text says, and makes a depth map of it. `lumina edit` has all tasks.

use std::path::PathBuf;

use lumina_examples::{Result, note_unknown_words, open_image, save_image, say, small_model};
use lumina_mgpt::{Lumina, Task};

fn main() -> std::process::ExitCode {
    lumina_examples::main(run)
}

/// Changes an image as a text says, to out/edit.png, and makes a depth map of it, out/depth.png.
#[derive(clap::Parser)]
struct Args {
    /// What to do
    #[arg(default_value = "make the background black")]
    instruction: String,
    /// The image, in any usual format [default: model/scene.png]
    image: Option<PathBuf>,
}

fn run(args: Args) -> Result<()> {
    let image = open_image(args.image.as_deref())?;
    let model = Lumina::from_pretrained(small_model()).load()?;
    note_unknown_words(&model, &args.instruction);
    let edited = model.edit(Task::Editing, image.clone(), args.instruction.as_str()).run()?;
    save_image(&edited, "out/edit.png".as_ref())?;
    let depth = model.edit(Task::DepthEstimation, image, None).run()?;
    save_image(&depth, "out/depth.png".as_ref())?;
    Ok(say!("wrote out/edit.png and out/depth.png")?)
}
