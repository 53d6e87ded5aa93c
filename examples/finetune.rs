//! `cargo run --release --example finetune -- Lumina-mGPT-7B-768 data.yaml out/run --lora 16`
//!
//! Trains a model, or with `--lora` an adapter, on what `pretokenize` made; `data.yaml` is a list of indexes:
//! `META: [{path: tokens/record.json}]`. A call continues where an earlier one ended.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use clap::Parser;
use lumina_checkpoint::Dtype;
use lumina_examples::{ComputeArgs, FineTuneArgs, say};
use lumina_train::Ended;
use lumina_train::data::Dataset;
use lumina_train::fine_tune::{FineTune, LoraOptions};
use lumina_train::metrics::{ProgressLines, Recorder};

/// Trains a model, or with --lora an adapter, on what `pretokenize` made. The same command continues a run.
#[derive(Parser)]
struct Args {
    /// The folder of the model, in the layout of Hugging Face
    model: PathBuf,
    /// The data config, a YAML file that lists indexes: META: [{path: tokens/record.json}]
    data: PathBuf,
    /// The folder of the run; the trained model will be in its folder `result`
    run: PathBuf,
    /// Train a LoRA adapter of this rank, and leave the model as it is
    #[arg(long, value_name = "RANK")]
    lora: Option<usize>,
    #[command(flatten)]
    training: FineTuneArgs,
    #[command(flatten)]
    compute: ComputeArgs,
}

fn main() -> ExitCode {
    lumina_examples::main(run)
}

fn run(args: Args) -> lumina_examples::Result<()> {
    let (data, compute) = (Dataset::open(&args.data)?, args.compute.open());
    let run =
        FineTune::new(&args.model, args.training.options(), &[compute]).lora(args.lora.map(LoraOptions::with_rank));

    let mut recorder = Recorder::create(&args.run, SystemTime::now())?;
    let mut progress = ProgressLines::default();
    let (trainer, ended) = run.run(&data, &args.run, |event| {
        let now = SystemTime::now();
        say!("{}", progress.line(&event, now))?;
        anyhow::Ok(recorder.record(&event, now)?)
    })?;

    let result = args.run.join("result");
    if ended == Ended::Finished && result.exists() {
        say!("{} was there before and stays; remove it for a new one", result.display())?;
    } else if ended == Ended::Finished {
        trainer.export(&result, Dtype::BF16)?;
        say!("wrote {}", result.display())?;
    }
    Ok(())
}
