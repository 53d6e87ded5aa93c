//! `cargo run --release --example embed -- photo.jpg --image-tokenizer chameleon/tokenizer`
//!
//! Uses two crates alone, as a program with its own transformer would: converts an image to tokens and back.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use lumina_examples::{open_image, save_image, say, small_model};
use lumina_tokenizer::{Conversation, Malformed, Part, UniRep};
use lumina_vq::preprocess::Preprocessor;
use lumina_vq::{Bands, Compute, ImageTokenizer};

/// Converts an image to the tokens of a prompt and back, with the tokenizers alone and no transformer.
#[derive(Parser)]
struct Args {
    /// The image [default: model/scene.png]
    image: Option<PathBuf>,
    /// Folder of tokenizer.json [default: the small model's]
    #[arg(long, value_name = "FOLDER")]
    tokenizer: Option<PathBuf>,
    /// Folder of vqgan.yaml and its weights [default: the small model's]
    #[arg(long, value_name = "FOLDER")]
    image_tokenizer: Option<PathBuf>,
    /// Resize the image to about so many pixels a side
    #[arg(long, value_name = "PIXELS", default_value_t = 256)]
    target_size: u32,
    /// The PNG, JPEG or WebP file for the decoded image
    #[arg(short, long, value_name = "FILE", default_value = "out/embed.png")]
    output: PathBuf,
}

fn main() -> ExitCode {
    lumina_examples::main(run)
}

fn run(args: Args) -> lumina_examples::Result<()> {
    let images = args.image_tokenizer.unwrap_or_else(small_model);
    let images = ImageTokenizer::open(images, &"cpu".parse::<Compute>()?)?;
    let tokenizer = UniRep::open(args.tokenizer.unwrap_or_else(small_model))?;

    // The input of a transformer.
    let image = Preprocessor::new(args.target_size)?.prepare(&open_image(args.image.as_deref())?)?;
    let codes = images.encode(&image)?;
    let prompt = Conversation::new().human([Part::from("Describe the image in detail. "), codes.into()]);
    let tokens = tokenizer.encode(&prompt)?.tokens;
    say!("{} tokens: {:?} …", tokens.len(), tokens.iter().take(12).collect::<Vec<_>>())?;

    // The same functions decode its answer.
    let decoded = tokenizer.decode(&tokens, Malformed::Error)?;
    say!("decoded text: {:?}", decoded.text())?;
    let codes = decoded.images().next().context("the decoded tokens contain no image")?;
    save_image(&images.decode(codes, Bands::Whole)?, &args.output)?;
    say!("wrote {}", args.output.display())?;
    Ok(())
}
