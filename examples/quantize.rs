//! `cargo run --release --example quantize -- out/small.gguf`
//!
//! Writes a model as one GGUF file with 8-bit weights, and draws with it. `lumina quantize` has all formats.

use std::ops::ControlFlow;
use std::path::PathBuf;

use lumina_examples::{Result, SCENE_PROMPT, say, small_model};
use lumina_mgpt::convert::{self, QuantiseOptions, quantise};
use lumina_mgpt::{Dtype, Lumina};

fn main() -> std::process::ExitCode {
    lumina_examples::main(run)
}

/// Writes the small model as a GGUF file with 8-bit weights, and draws with it.
#[derive(clap::Parser)]
struct Args {
    /// The GGUF file to write
    #[arg(default_value = "out/small.gguf")]
    output: PathBuf,
}

fn run(args: Args) -> Result<()> {
    if let Some(folder) = args.output.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let checkpoint = convert::open(small_model())?;
    let options = QuantiseOptions::new(Dtype::Q8_0);
    quantise(&checkpoint, &args.output, &options, &mut |_| ControlFlow::Continue(()))?;
    say!("wrote {}: {} bytes", args.output.display(), args.output.metadata()?.len())?;
    // It contains everything but the image tokenizer.
    let model = Lumina::from_pretrained(&args.output).image_tokenizer(small_model()).load()?;
    let image = model.text_to_image(SCENE_PROMPT, (256, 256)).run()?;
    Ok(say!("it draws images of {}x{} pixels", image.width(), image.height())?)
}
