//! `lumina-serve`: a model behind OpenAI's protocol.

use std::process::ExitCode;

use clap::Parser;
use lumina_serve::program::{self, Args};

/// Serves a Lumina-mGPT or Chameleon checkpoint by OpenAI's protocol: images, edits, chat.
#[derive(Debug, Parser)]
#[command(version)]
struct Program {
    #[command(flatten)]
    args: Args,
}

fn main() -> ExitCode {
    match program::run(&Program::parse().args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let sources = std::iter::successors(error.source(), |error| error.source());
            let causes: Vec<String> = sources.map(ToString::to_string).collect();
            tracing::error!(?causes, "{error}");
            ExitCode::FAILURE
        }
    }
}
