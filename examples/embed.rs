//! `cargo run --release --example embed -- photo.jpg --image-tokenizer chameleon/tokenizer`
//!
//! Uses two crates alone, as a program with its own transformer would: converts an image to tokens and back.
#![allow(clippy::print_stdout, reason = "a program for people")]

use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use lumina_examples::{open_image, save_image, small_model};
use lumina_tokenizer::{Conversation, Malformed, Part, UniRep};
use lumina_vq::preprocess::Preprocessor;
use lumina_vq::{Bands, Compute, ImageTokenizer};

/// Converts an image to tokens and back.
#[derive(Parser)]
struct Args {
    /// The image [default: a scene]
    image: Option<PathBuf>,
    /// Folder of `tokenizer.json` [default: the small model's]
    #[arg(long)]
    tokenizer: Option<PathBuf>,
    /// Folder of `vqgan.ckpt` and `vqgan.yaml` [default: the small model's]
    #[arg(long)]
    image_tokenizer: Option<PathBuf>,
    /// Resize the image to about this many pixels squared
    #[arg(long, default_value_t = 96)]
    target_size: u32,
    /// The PNG file for the decoded image
    #[arg(short, long, default_value = "out/embed.png")]
    output: PathBuf,
}

fn main() -> lumina_examples::Result<()> {
    let args = Args::parse();
    let images = args.image_tokenizer.unwrap_or_else(small_model);
    let images = ImageTokenizer::open(images, &"cpu".parse::<Compute>()?)?;
    let tokenizer = UniRep::open(args.tokenizer.unwrap_or_else(small_model))?;

    // The input of a transformer.
    let image = Preprocessor::new(args.target_size)?.prepare(&open_image(args.image.as_deref())?)?;
    let codes = images.encode(&image)?;
    let prompt = Conversation::new().human([Part::from("Describe the image in detail. "), codes.into()]);
    let tokens = tokenizer.encode(&prompt)?.tokens;
    println!("{} tokens: {:?} …", tokens.len(), tokens.iter().take(12).collect::<Vec<_>>());

    // The same functions decode its answer.
    let decoded = tokenizer.decode(&tokens, Malformed::Error)?;
    println!("decoded text: {:?}", decoded.text());
    let codes = decoded.images().next().context("the decoded tokens contain no image")?;
    save_image(&images.decode(codes, Bands::Whole)?, &args.output)?;
    println!("wrote {}", args.output.display());
    Ok(())
}
