//! `cargo run --release --example reconstruct -- photo.jpg --image-tokenizer chameleon/tokenizer`
//!
//! Encodes an image to VQ codes and decodes them, to show the loss of the image tokenizer.
#![allow(clippy::print_stdout, reason = "a program for people")]

use std::path::{Path, PathBuf};

use clap::Parser;
use lumina_examples::{ComputeArgs, open_image, save_image, small_model};
use lumina_vq::preprocess::Preprocessor;
use lumina_vq::{Bands, ImageTokenizer};

/// Encodes an image to VQ codes and decodes them.
#[derive(Parser)]
struct Args {
    /// The image [default: a scene]
    image: Option<PathBuf>,
    /// Folder of `vqgan.ckpt` and `vqgan.yaml` [default: the small model in this repository]
    #[arg(long)]
    image_tokenizer: Option<PathBuf>,
    /// Resize the image to about this many pixels squared
    #[arg(long, default_value_t = 96)]
    target_size: u32,
    /// Decode this many rows of pixels at a time: less memory, the same image
    #[arg(long)]
    band_rows: Option<usize>,
    /// The PNG file for the decoded image; the input is written next to it, as `.input.png`
    #[arg(short, long, default_value = "out/reconstruct.png")]
    output: PathBuf,
    #[command(flatten)]
    compute: ComputeArgs,
}

fn main() -> lumina_examples::Result<()> {
    let args = Args::parse();
    let folder = args.image_tokenizer.unwrap_or_else(small_model);
    let tokenizer = ImageTokenizer::open(folder, &args.compute.open()?)?;

    let input = Preprocessor::new(args.target_size)?.prepare(&open_image(args.image.as_deref())?)?;
    let codes = tokenizer.encode(&input)?;
    let decoded = tokenizer.decode(&codes, args.band_rows.map_or(Bands::Whole, Bands::Rows))?;

    let squares = input.iter().zip(decoded.iter()).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2));
    let psnr = 10.0 * (255.0f64.powi(2) * input.len() as f64 / squares.sum::<f64>()).log10();
    println!("{}x{} codes, PSNR {psnr:.1} dB", codes.columns(), codes.rows());
    let input_file: &Path = &args.output.with_extension("input.png");
    for (image, file) in [(input, input_file), (decoded, &args.output)] {
        save_image(&image, file)?;
        println!("wrote {}", file.display());
    }
    Ok(())
}
