//! `cargo run --release --example caption -- model/scene.png`
//!
//! Describes an image. `lumina caption` also answers questions.

use std::path::PathBuf;

use lumina_examples::{Result, open_image, say, small_model};
use lumina_mgpt::Lumina;

fn main() -> std::process::ExitCode {
    lumina_examples::main(run)
}

/// Describes an image.
#[derive(clap::Parser)]
struct Args {
    /// The image, in any usual format [default: model/scene.png]
    image: Option<PathBuf>,
}

fn run(args: Args) -> Result<()> {
    let image = open_image(args.image.as_deref())?;
    let model = Lumina::from_pretrained(small_model()).load()?;
    let text = model.caption(image).run()?;
    Ok(say!("{text}")?)
}
