//! `cargo run --release --example embed -- photo.jpg --image-tokenizer chameleon/tokenizer`
//!
//! Uses two of the crates alone, as a program with a transformer of its own would: a picture to the tokens of the
//! stream, and back.
#![allow(clippy::print_stdout, reason = "a program for people")]

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;
use lumina_examples::{open_picture, save_png, small_model};
use lumina_tokenizer::{Conversation, Malformed, Part, UniRep};
use lumina_vq::preprocess::Preprocessor;
use lumina_vq::{Bands, Compute, ImageTokenizer};

/// Takes a picture to the tokens of the stream, and back.
#[derive(Parser)]
struct Args {
    /// The picture [default: a scene]
    picture: Option<PathBuf>,
    /// Folder of `tokenizer.json` [default: that of the small model]
    #[arg(long)]
    tokenizer: Option<PathBuf>,
    /// Folder of `vqgan.ckpt` and `vqgan.yaml` [default: that of the small model]
    #[arg(long)]
    image_tokenizer: Option<PathBuf>,
    /// The picture is brought to about this many pixels a side
    #[arg(long, default_value_t = 96)]
    target_size: u32,
    /// The picture that the tokens stand for, a PNG file
    #[arg(short, long, default_value = "out/embed.png")]
    output: PathBuf,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let images = args.image_tokenizer.unwrap_or_else(small_model);
    let images = ImageTokenizer::open(images, &"cpu".parse::<Compute>()?)?;
    let tokenizer = UniRep::open(args.tokenizer.unwrap_or_else(small_model))?;

    // What a transformer would be given …
    let picture = Preprocessor::new(args.target_size)?.prepare(&open_picture(args.picture.as_deref())?)?;
    let codes = images.encode(&picture)?;
    let prompt = Conversation::new().human([Part::from("Describe the image in detail. "), codes.into()]);
    let tokens = tokenizer.encode(&prompt)?.tokens;
    println!("{} tokens: {:?} …", tokens.len(), tokens.iter().take(12).collect::<Vec<_>>());

    // … and what is made of what it answers.
    let decoded = tokenizer.decode(&tokens, Malformed::Error)?;
    println!("read back: {:?}", decoded.text());
    let codes = decoded.images().next().context("the picture is gone")?;
    save_png(&images.decode(codes, Bands::Whole)?, &args.output)?;
    println!("wrote {}", args.output.display());
    Ok(())
}
