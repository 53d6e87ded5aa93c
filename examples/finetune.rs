//! `cargo run --release --example finetune -- Lumina-mGPT-7B-768 data.yaml out/run --lora 16`
//!
//! Trains a model, or with `--lora` an adapter, on what `pretokenize` made; `data.yaml` is a list of indexes:
//! `META: [{path: tokens/record.json}]`. A call goes on where an earlier one ended.
#![allow(clippy::print_stdout, reason = "a program for people")]

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Instant, SystemTime};

use anyhow::Result;
use clap::Parser;
use lumina_checkpoint::Dtype;
use lumina_examples::ComputeArgs;
use lumina_train::data::Dataset;
use lumina_train::fine_tune::{Activations, Ended, FineTuneOptions, LoraOptions, RunEvent, Schedule, Trainer, run};
use lumina_train::metrics::{JsonLines, TensorBoard};

/// Trains a model or an adapter.
#[derive(Parser)]
struct Args {
    /// The Hugging Face folder of the model
    model: PathBuf,
    /// The data config
    data: PathBuf,
    /// The folder of the run; the result will be in its folder `result`
    run: PathBuf,
    /// Train a LoRA adapter of this rank, and leave the model as it is
    #[arg(long)]
    lora: Option<usize>,
    /// The highest learning rate
    #[arg(long, default_value_t = 2e-5)]
    lr: f64,
    /// Times that the data are seen
    #[arg(long, default_value_t = 2)]
    epochs: u64,
    /// Sequences in a pass
    #[arg(long, default_value_t = 4)]
    batch_size: usize,
    /// Passes that make a step
    #[arg(long, default_value_t = 1)]
    accumulate: usize,
    /// Run layers twice rather than keep what they computed
    #[arg(long)]
    recompute: bool,
    #[command(flatten)]
    compute: ComputeArgs,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let options = FineTuneOptions {
        schedule: Schedule { lr: args.lr, epochs: args.epochs, ..Schedule::default() },
        batch_size: args.batch_size,
        accumulate: args.accumulate,
        activations: if args.recompute { Activations::Recompute } else { Activations::Keep },
        ..FineTuneOptions::default()
    };
    let devices = [args.compute.open()?];
    let data = Dataset::open(&args.data)?;
    let adapter = args.run.join("adapter");
    if let Some(rank) = args.lora
        && !adapter.exists()
    {
        LoraOptions { rank, alpha: 2.0 * rank as f64, ..LoraOptions::default() }.create(
            &args.model,
            &adapter,
            &devices[0],
        )?;
    }
    let start = || match args.lora {
        Some(_) => Trainer::with_adapter(&args.model, &adapter, options.clone(), &devices),
        None => Trainer::new(&args.model, options.clone(), &devices),
    };
    std::fs::create_dir_all(&args.run)?;
    let mut lines = Some(JsonLines::append(&args.run.join("steps.jsonl"))?);
    let mut board = TensorBoard::create(&args.run, SystemTime::now())?;
    let (begun, mut tokens, mut failed) = (Instant::now(), 0, None);
    let (trainer, ended) = run(&data, &args.run, &options, &devices, start, &mut |event| {
        let mut observe = || -> lumina_train::Result<()> {
            match event {
                RunEvent::Started { position, steps_per_epoch } => {
                    println!("from step {}, {steps_per_epoch} steps an epoch", position.step);
                    lines = lines.take().map(|lines| lines.resume_at(position.step)).transpose()?;
                    board.resume_at(position.step, SystemTime::now())?;
                }
                RunEvent::Step(step) => {
                    tokens += step.tokens;
                    let rate = tokens as f64 / begun.elapsed().as_secs_f64();
                    println!("step {}: loss {:.4}, {rate:.0} tokens/s", step.step, step.cross_entropy);
                    if let Some(lines) = &mut lines {
                        lines.write(step)?;
                    }
                    let scalars = [("loss", step.loss), ("lr", step.lr), ("grad_norm", step.grad_norm)];
                    board.scalars(step.step, SystemTime::now(), &scalars)?;
                }
                RunEvent::Saved(checkpoint) => println!("saved {}", checkpoint.display()),
            }
            Ok(())
        };
        match observe() {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    if let Some(error) = failed {
        return Err(error.into());
    }
    let result = args.run.join("result");
    if ended == Ended::Finished && !result.exists() {
        trainer.export(&result, Dtype::BF16)?;
        println!("wrote {}", result.display());
    }
    Ok(())
}
