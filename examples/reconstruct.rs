//! `cargo run --release --example reconstruct -- photo.jpg --image-tokenizer chameleon/tokenizer`
//!
//! Encodes an image to VQ codes and decodes them, to show the loss of the image tokenizer.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use lumina_examples::{ComputeArgs, open_image, save_image, say, small_model};
use lumina_vq::preprocess::Preprocessor;
use lumina_vq::{Bands, ImageTokenizer};

/// Encodes an image to VQ codes and decodes them, which shows what the image tokenizer loses.
#[derive(Parser)]
struct Args {
    /// The image [default: model/scene.png]
    image: Option<PathBuf>,
    /// Folder of vqgan.yaml and its weights [default: the small model in this repository]
    #[arg(long, value_name = "FOLDER")]
    image_tokenizer: Option<PathBuf>,
    /// Resize the image to about so many pixels a side
    #[arg(long, value_name = "PIXELS", default_value_t = 256)]
    target_size: u32,
    /// Decode so many rows of pixels at a time: less memory, the same image
    #[arg(long, value_name = "ROWS")]
    band_rows: Option<usize>,
    /// The PNG, JPEG or WebP file for the decoded image; the input is written next to it, as .input.png
    #[arg(short, long, value_name = "FILE", default_value = "out/reconstruct.png")]
    output: PathBuf,
    #[command(flatten)]
    compute: ComputeArgs,
}

fn main() -> ExitCode {
    lumina_examples::main(run)
}

fn run(args: Args) -> lumina_examples::Result<()> {
    let folder = args.image_tokenizer.unwrap_or_else(small_model);
    let tokenizer = ImageTokenizer::open(folder, &args.compute.open())?;

    let input = Preprocessor::new(args.target_size)?.prepare(&open_image(args.image.as_deref())?)?;
    let codes = tokenizer.encode(&input)?;
    let decoded = tokenizer.decode(&codes, args.band_rows.map_or(Bands::Whole, Bands::Rows))?;

    let squares = input.iter().zip(decoded.iter()).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2));
    let psnr = 10.0 * (255.0f64.powi(2) * input.len() as f64 / squares.sum::<f64>()).log10();
    say!("{}x{} codes, PSNR {psnr:.1} dB", codes.columns(), codes.rows())?;
    let input_file: &Path = &args.output.with_extension("input.png");
    for (image, file) in [(input, input_file), (decoded, &args.output)] {
        save_image(&image, file)?;
        say!("wrote {}", file.display())?;
    }
    Ok(())
}
