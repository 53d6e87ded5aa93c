//! `lumina quantize --to q8_0 out/small.gguf`
//!
//! Writes a model as one GGUF file with quantised linear weights. Other commands open it with
//! `--model out/small.gguf`.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::interrupt::Interrupt;
use crate::{Form, default_model, local_model, say};
use anyhow::{Context, Result};
use clap::Args as Arguments;
use indicatif::{DecimalBytes, ProgressBar, ProgressStyle};
use lumina_checkpoint::Dtype;
use lumina_mgpt::ImageTokenizer;
use lumina_mgpt::convert::{self, QuantiseOptions, RowOrder, quantise};
use serde_json::json;

/// Writes a model as one GGUF file with quantised linear weights.
///
/// The file contains everything but the image tokenizer, which other commands take with --image-tokenizer.
#[derive(Debug, Arguments)]
pub struct Args {
    /// The GGUF file to write
    output: PathBuf,
    /// Folder or file of the model [default: as `lumina generate`]
    #[arg(long, value_name = "PATH")]
    model: Option<PathBuf>,
    /// Data type of the linear weights: bf16, f16, q8_0 or q4_0
    #[arg(long, value_name = "TYPE", default_value = "q8_0", value_parser = dtype)]
    to: Dtype,
    /// Write the row order of llama.cpp, which generates text only
    #[arg(long)]
    llama_cpp: bool,
}

fn dtype(name: &str) -> Result<Dtype> {
    let known = [Dtype::BF16, Dtype::F16, Dtype::Q8_0, Dtype::Q4_0];
    known.into_iter().find(|dtype| dtype.to_string() == name).context("expected bf16, f16, q8_0 or q4_0")
}

/// Runs it.
///
/// # Errors
/// What it prints.
pub fn run(args: Args, form: Form) -> crate::Result<()> {
    if let Some(folder) = args.output.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let order = if args.llama_cpp { RowOrder::LlamaCpp } else { RowOrder::HuggingFace };
    let model = args.model.map_or_else(default_model, Ok)?;
    let model = local_model(model)?;
    let is_same =
        |file: &Path| file.canonicalize().ok().zip(args.output.canonicalize().ok()).is_some_and(|(a, b)| a == b);
    if is_same(&model) {
        return Err(
            anyhow::anyhow!("{}: it is the model itself; name another file to write", args.output.display()).into()
        );
    }
    let checkpoint = convert::open(&model)?;
    let bar = ProgressBar::no_length();
    bar.set_style(ProgressStyle::with_template("{wide_bar} {bytes}/{total_bytes} {eta} left, {msg}")?);
    let interrupt = Interrupt::new()?;
    quantise(&checkpoint, &args.output, &QuantiseOptions::new(args.to).row_order(order), &mut |progress| {
        bar.set_length(progress.total_bytes);
        bar.set_position(progress.bytes);
        bar.set_message(progress.tensor.to_owned());
        if interrupt.is_asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    bar.finish_and_clear();
    let bytes = args.output.metadata()?.len();
    let record = json!({ "file": args.output, "bytes": bytes });
    form.result(record, || format!("wrote {}: {}", args.output.display(), DecimalBytes(bytes)))?;
    if form == Form::Json {
        return Ok(());
    }
    if args.llama_cpp {
        return Ok(say!("llama.cpp opens it, for text alone")?);
    }
    // Where the image tokenizer is looked for: it is no part of a GGUF file.
    let folder = if model.is_dir() { model.as_path() } else { model.parent().unwrap_or(&model) };
    let images =
        [folder.to_owned(), folder.join("tokenizer")].into_iter().find(|at| at.join(ImageTokenizer::CONFIG).exists());
    let images = images.map_or("FOLDER".into(), |folder| quoted(&folder));
    say!("the image tokenizer is not part of it; open both, as in")?;
    say!("  lumina generate --model {} --image-tokenizer {images}", quoted(&args.output))?;
    Ok(())
}

/// A path as a word of a shell's command.
fn quoted(path: &Path) -> String {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned()).display().to_string();
    let is_plain = path.chars().all(|c| c.is_alphanumeric() || r"/._-+:\".contains(c));
    if is_plain { path } else { format!("'{}'", path.replace('\'', r"'\''")) }
}
