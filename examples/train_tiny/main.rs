//! `cargo run --release --example train_tiny`
//!
//! Trains the small model of this repository: image tokenizer, text tokenizer, FP-SFT, Omni-SFT, on scenes that it
//! makes itself. Each stage keeps what it has done; the same command continues where an earlier one ended.
#![allow(clippy::print_stdout, reason = "a program for people")]

mod plan;
mod stages;

use std::path::PathBuf;

use clap::Parser;
use lumina_examples::ComputeArgs;

use plan::Plan;
use stages::Stages;

/// Trains a small model on images of simple scenes, from nothing.
#[derive(Parser)]
struct Args {
    /// The folder for everything that is made; the model will be in `model`
    #[arg(default_value = "out/tiny")]
    folder: PathBuf,
    /// A run of about three minutes that shows that everything works; the model will know nothing
    #[arg(long)]
    smoke: bool,
    /// End after this stage: `vq`, `tokens`, `fp-sft`, `omni-sft`, `model`
    #[arg(long)]
    until: Option<stages::Stage>,
    #[command(flatten)]
    compute: ComputeArgs,
}

fn main() -> lumina_examples::Result<()> {
    let args = Args::parse();
    let plan = if args.smoke { Plan::smoke() } else { Plan::full() };
    let stages = Stages { folder: args.folder, plan, compute: args.compute.open()? };
    for stage in stages::Stage::ALL {
        println!("== {stage}");
        stages.run(stage)?;
        if args.until == Some(stage) {
            break;
        }
    }
    Ok(())
}
