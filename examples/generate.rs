//! `cargo run --release --example generate -- "a small red circle above a large blue square on a white background"`
//!
//! Draws an image from a text. `lumina generate` has options for everything.

use lumina_examples::{Result, SCENE_PROMPT, note, note_unknown_words, save_image, say, small_model};
use lumina_mgpt::{Event, Lumina};

fn main() -> std::process::ExitCode {
    lumina_examples::main(run)
}

/// Draws an image from a text, to out/generate.png.
#[derive(clap::Parser)]
struct Args {
    /// What to draw
    #[arg(default_value = SCENE_PROMPT)]
    prompt: String,
    /// The same seed gives the same image
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

fn run(args: Args) -> Result<()> {
    let model = Lumina::from_pretrained(small_model()).load()?;
    note_unknown_words(&model, &args.prompt);
    for event in model.text_to_image(&args.prompt, (256, 256)).seed(args.seed).stream()? {
        match event? {
            Event::ImageRow { row, .. } => note!("row {}", row + 1),
            Event::Image { image, .. } => {
                save_image(&image, "out/generate.png".as_ref())?;
                say!("wrote out/generate.png")?;
            }
            _ => {}
        }
    }
    Ok(())
}
