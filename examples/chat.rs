//! `cargo run --release --example chat -- "@photo.jpg What is it?" "Draw it in winter" --interactive`
//!
//! Chats in text and images. Each message is a turn; `@file` in a message is an image.
#![allow(clippy::print_stdout, reason = "a program for people")]

use std::io::{self, Write};

use clap::Parser;
use lumina_examples::{ModelArgs, SCENE_PROMPT, message_parts, save_png, summary};
use lumina_mgpt::{Conversation, Event, Part};

/// Chats in text and images. Images of the answers are written to out/chat-1.png and so on.
#[derive(Parser)]
struct Args {
    /// The first turns; `@file` in a message is an image [default: two for the small model]
    messages: Vec<String>,
    /// Then read one message per line from the standard input
    #[arg(short, long)]
    interactive: bool,
    #[command(flatten)]
    model: ModelArgs,
}

fn main() -> lumina_examples::Result<()> {
    let args = Args::parse();
    let model = args.model.open()?;
    let mut messages = args.messages;
    if messages.is_empty() && !args.interactive {
        let draw = format!("Generate an image of 96x64 according to the following prompt:\n{SCENE_PROMPT}");
        messages.extend([draw, "make the red circle blue".to_owned()]);
    }
    let typed = args.interactive.then(|| io::stdin().lines()).into_iter().flatten();
    let (mut conversation, mut n_images) = (Conversation::new(), 0);
    for message in messages.into_iter().map(Ok).chain(typed) {
        conversation = conversation.human(message_parts(&model, &message?)?);
        let mut answer: Vec<Part> = Vec::new();
        for event in args.model.apply_sampling(model.chat(conversation.clone())).stream()? {
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
