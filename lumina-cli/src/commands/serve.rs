//! `lumina serve --model Lumina-mGPT-7B-768`
//!
//! Serves a model over HTTP: the program `lumina-serve` as a command, with the arguments of the others for the model.

use clap::Args as Arguments;
use lumina_serve::program::ServerArgs;

use crate::args::CheckpointArgs;

/// Serves a Lumina-mGPT or Chameleon checkpoint by OpenAI's protocol: images, edits, chat, and a page to try it.
#[derive(Debug, Arguments)]
pub struct Args {
    #[command(flatten)]
    checkpoint: CheckpointArgs,
    #[command(flatten)]
    server: ServerArgs,
}

/// Runs it, until a signal ends it.
///
/// # Errors
/// What it prints.
pub fn run(args: Args) -> crate::Result<()> {
    let model = args.checkpoint.model()?;
    let served = args.server.run(&model, || Ok(args.checkpoint.open()?));
    Ok(served.map_err(|error| anyhow::anyhow!(error))?)
}
