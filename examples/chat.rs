//! `cargo run --release --example chat -- "@photo.jpg What is it?" "Draw it in winter" --interactive`
//!
//! Talks in text and pictures. Each message is a turn; `@file` in it is a picture.
#![allow(clippy::print_stdout, reason = "a program for people")]

use std::io::{self, Write};

use anyhow::Result;
use clap::Parser;
use lumina_examples::{ModelArgs, parts, save_png, summary};
use lumina_mgpt::{Conversation, Event, Part};

/// Talks in text and pictures; those that come are written to out/chat-1.png and so on.
#[derive(Parser)]
struct Args {
    /// The first turns; `@file` in a message is a picture [default: two for the small checkpoint]
    messages: Vec<String>,
    /// Go on with a message a line from the standard input
    #[arg(short, long)]
    interactive: bool,
    #[command(flatten)]
    model: ModelArgs,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let model = args.model.open()?;
    let mut messages = args.messages;
    if messages.is_empty() && !args.interactive {
        let scene = "a large red circle on the left and a small green cross on the right on a black background";
        let draw = format!("Generate an image of 96x64 according to the following prompt:\n{scene}");
        messages.extend([draw, "make the red circle blue".to_owned()]);
    }
    let typed = args.interactive.then(|| io::stdin().lines()).into_iter().flatten();
    let (mut conversation, mut n_images) = (Conversation::new(), 0);
    for message in messages.into_iter().map(Ok).chain(typed) {
        conversation = conversation.human(parts(&model, &message?)?);
        let mut answer: Vec<Part> = Vec::new();
        for event in args.model.refine(model.chat(conversation.clone())).stream()? {
            match event? {
                Event::Text(piece) => {
                    print!("{piece}");
                    answer.push(piece.into());
                }
                Event::Image { image, codes } => {
                    n_images += 1;
                    let file = format!("out/chat-{n_images}.png");
                    save_png(&image, file.as_ref())?;
                    print!("[{file}]");
                    answer.push(codes.into());
                }
                Event::Malformed { malformed, .. } => print!("[{malformed}]"),
                Event::Done { stats, .. } => println!("\n{}", summary(&stats)),
                _ => {}
            }
            io::stdout().flush()?;
        }
        conversation = conversation.assistant(answer);
    }
    Ok(())
}
