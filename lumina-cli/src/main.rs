//! `lumina`: Lumina-mGPT on a command line.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use lumina_cli::{Form, commands};

/// Images, captions, edits and chats by Lumina-mGPT.
///
/// `lumina doctor` says what this machine can run. Without `--model` the model is the one that LUMINA_MODEL names.
#[derive(Parser)]
#[command(name = "lumina", version, propagate_version = true)]
struct Args {
    /// Write results as JSON, an object a line
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Draw an image from a text, or several
    Generate(commands::generate::Args),
    /// Answer the requests of a file, as one of several processes; then merge what they made
    GenerateMany(commands::generate_many::Args),
    /// Describe an image, or answer a question about it
    Caption(commands::caption::Args),
    /// Draw an image from an image: a map of depth or segments, an edit, an image that follows a control image
    Edit(commands::edit::Args),
    /// Chat in text and images
    Chat(commands::chat::Args),
    /// Download a model from the Hugging Face hub
    #[cfg(feature = "hub")]
    Download(commands::download::Args),
    /// Serve a model over HTTP, by OpenAI's protocol, with a page to try it
    #[cfg(feature = "serve")]
    Serve(commands::serve::Args),
    /// Write a model as one GGUF file with quantised weights
    Quantize(commands::quantize::Args),
    /// Say what this machine has, and whether a model is whole, fits, and how fast it can be
    Doctor(commands::doctor::Args),
}

fn main() -> ExitCode {
    lumina_cli::main(run)
}

fn run(args: Args) -> lumina_cli::Result<()> {
    let form = if args.json { Form::Json } else { Form::Text };
    match args.command {
        Command::Generate(args) => commands::generate::run(args, form),
        Command::GenerateMany(args) => commands::generate_many::run(args, form),
        Command::Caption(args) => commands::caption::run(args, form),
        Command::Edit(args) => commands::edit::run(args, form),
        Command::Chat(args) => commands::chat::run(args, form),
        #[cfg(feature = "hub")]
        Command::Download(args) => commands::download::run(args, form),
        #[cfg(feature = "serve")]
        Command::Serve(args) => commands::serve::run(args),
        Command::Quantize(args) => commands::quantize::run(args, form),
        Command::Doctor(args) => commands::doctor::run(args, form),
    }
}
