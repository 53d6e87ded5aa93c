//! `cargo run --release --example quantize -- --to q8_0 out/small.gguf`
//!
//! Writes a model as one GGUF file with quantised linear weights. The other examples open it with
//! `--model out/small.gguf`.
#![allow(clippy::print_stdout, reason = "a program for people")]

use std::ops::ControlFlow;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;
use indicatif::{DecimalBytes, ProgressBar, ProgressStyle};
use lumina_checkpoint::Dtype;
use lumina_examples::small_model;
use lumina_mgpt::convert::{self, QuantiseOptions, RowOrder, quantise};

/// Writes a model as one GGUF file with quantised linear weights.
#[derive(Parser)]
struct Args {
    /// The file to write
    output: PathBuf,
    /// Folder or file of the model [default: the small model in this repository]
    #[arg(long)]
    model: Option<PathBuf>,
    /// Data type of the linear weights: bf16, f16, q8_0 or q4_0
    #[arg(long, default_value = "q8_0", value_parser = dtype)]
    to: Dtype,
    /// Write the row order of llama.cpp, which generates text only
    #[arg(long)]
    llama_cpp: bool,
}

fn dtype(name: &str) -> Result<Dtype> {
    let known = [Dtype::BF16, Dtype::F16, Dtype::Q8_0, Dtype::Q4_0];
    known.into_iter().find(|dtype| dtype.to_string() == name).context("expected bf16, f16, q8_0 or q4_0")
}

fn main() -> lumina_examples::Result<()> {
    let args = Args::parse();
    if let Some(folder) = args.output.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let order = if args.llama_cpp { RowOrder::LlamaCpp } else { RowOrder::HuggingFace };
    let checkpoint = convert::open(args.model.unwrap_or_else(small_model))?;
    let bar = ProgressBar::no_length();
    bar.set_style(ProgressStyle::with_template("{wide_bar} {bytes}/{total_bytes} {eta} left, {msg}")?);
    quantise(&checkpoint, &args.output, &QuantiseOptions::new(args.to).row_order(order), &mut |progress| {
        bar.set_length(progress.total_bytes);
        bar.set_position(progress.bytes);
        bar.set_message(progress.tensor.to_owned());
        ControlFlow::Continue(())
    })?;
    bar.finish_and_clear();
    println!("wrote {}: {}", args.output.display(), DecimalBytes(args.output.metadata()?.len()));
    Ok(())
}
