//! `cargo run --release --example train_tiny`
//!
//! Trains the small model of this repository: image tokenizer, text tokenizer, FP-SFT, Omni-SFT, on scenes that it
//! makes itself. Each stage keeps what it has done; the same command continues where an earlier one ended.

mod plan;
mod stages;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use lumina_examples::{ComputeArgs, say};

use plan::Plan;
use stages::Stages;

/// Trains a small model on images of simple scenes, from nothing: some eight hours on two CPU cores without AVX-512.
///
/// The same command continues where an earlier one ended.
#[derive(Parser)]
struct Args {
    /// The folder for everything that is made; the model will be in `model`
    #[arg(default_value = "out/tiny")]
    folder: PathBuf,
    /// A run of about three minutes that shows that everything works; the model will know nothing
    #[arg(long)]
    smoke: bool,
    /// End after this stage: vq, tokenizer, fp-sft, omni-sft or model
    #[arg(long, value_name = "STAGE")]
    until: Option<stages::Stage>,
    #[command(flatten)]
    compute: ComputeArgs,
}

fn main() -> ExitCode {
    lumina_examples::main(run)
}

fn run(args: Args) -> lumina_examples::Result<()> {
    let plan = if args.smoke { Plan::smoke() } else { Plan::full() };
    // Mixed precision, where the processor has it: a sixth less time.
    let compute = args.compute.open().bf16_activations();
    let stages = Stages { folder: args.folder, plan, compute };
    for stage in stages::Stage::ALL {
        say!("== {stage}")?;
        stages.run(stage)?;
        if args.until == Some(stage) {
            break;
        }
    }
    Ok(())
}
