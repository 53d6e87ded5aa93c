//! `cargo run --release --example reconstruct -- photo.jpg --image-tokenizer chameleon/tokenizer`
//!
//! Takes a picture to VQ codes and back: what the image tokenizer keeps of it.
#![allow(clippy::print_stdout, reason = "a program for people")]

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Parser;
use lumina_examples::{ComputeArgs, open_picture, save_png, small_model};
use lumina_vq::preprocess::Preprocessor;
use lumina_vq::{Bands, ImageTokenizer};

/// Takes a picture to VQ codes and back.
#[derive(Parser)]
struct Args {
    /// The picture [default: a scene]
    picture: Option<PathBuf>,
    /// Folder of `vqgan.ckpt` and `vqgan.yaml` [default: the small one in this repository]
    #[arg(long)]
    image_tokenizer: Option<PathBuf>,
    /// The picture is brought to about this many pixels a side
    #[arg(long, default_value_t = 96)]
    target_size: u32,
    /// Decode this many rows of pixels at a time: less memory, the same picture
    #[arg(long)]
    band_rows: Option<usize>,
    /// What the codes stand for, a PNG file; the picture as it went in comes to lie beside it
    #[arg(short, long, default_value = "out/reconstruct.png")]
    output: PathBuf,
    #[command(flatten)]
    compute: ComputeArgs,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let folder = args.image_tokenizer.unwrap_or_else(small_model);
    let tokenizer = ImageTokenizer::open(folder, &args.compute.open()?)?;

    let before = Preprocessor::new(args.target_size)?.prepare(&open_picture(args.picture.as_deref())?)?;
    let codes = tokenizer.encode(&before)?;
    let after = tokenizer.decode(&codes, args.band_rows.map_or(Bands::Whole, Bands::Rows))?;

    let squares = before.iter().zip(after.iter()).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2));
    let psnr = 10.0 * (255.0f64.powi(2) * before.len() as f64 / squares.sum::<f64>()).log10();
    println!("{}x{} codes, {psnr:.1} dB between the picture before and after", codes.columns(), codes.rows());
    let beside: &Path = &args.output.with_extension("input.png");
    for (picture, file) in [(before, beside), (after, &args.output)] {
        save_png(&picture, file)?;
        println!("wrote {}", file.display());
    }
    Ok(())
}
