//! `cargo run --release --example chat -- "@photo.jpg What is it?" "draw it in winter" --interactive`
//!
//! Chats in text and images. Each message is a turn; `@file` in a message is an image.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::PathBuf;

use clap::Parser;
use lumina_examples::{ModelArgs, SCENE_PROMPT, message_parts, save_image, summary};
use lumina_mgpt::{Conversation, Event, Lumina, Part, StopReason, Task, TaskInput};

/// Chats in text and images. Images of the answers are written to out/chat-1.png and so on, the next that is free.
#[derive(Parser)]
struct Args {
    /// The first turns; `@file` in a message is an image, and "draw …" asks for one [default: two for the small model]
    messages: Vec<String>,
    /// Then read one message per line from the standard input
    #[arg(short, long)]
    interactive: bool,
    #[command(flatten)]
    model: ModelArgs,
}

const HELP: &str = "A line is a message. `@file` in it is an image, and a line that begins with \"draw\" asks for one.
/new    forgets the conversation
/help   shows this
/quit   ends";

/// A conversation in progress.
struct Chat<'a> {
    model: &'a Lumina,
    args: &'a ModelArgs,
    conversation: Conversation,
    n_images: usize,
}

fn main() -> lumina_examples::Result<()> {
    let args = Args::parse();
    let model = args.model.open()?;
    let mut messages = args.messages;
    if messages.is_empty() && !args.interactive {
        messages.extend([format!("draw {SCENE_PROMPT}"), "make the red circle blue".to_owned()]);
    }
    let mut chat = Chat { model: &model, args: &args.model, conversation: Conversation::new(), n_images: 0 };
    for message in messages {
        println!("> {message}");
        chat.turn(&message)?;
    }
    if !args.interactive {
        return Ok(());
    }
    if io::stdin().is_terminal() {
        println!("{HELP}");
    }
    loop {
        if io::stdin().is_terminal() {
            print!("> ");
            io::stdout().flush()?;
        }
        let mut line = Vec::new();
        if io::stdin().lock().read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        match String::from_utf8_lossy(&line).trim() {
            "" => {}
            "/quit" | "/exit" => return Ok(()),
            "/help" => println!("{HELP}"),
            "/new" => chat.conversation = Conversation::new(),
            other if other.starts_with('/') => println!("there is no {other}; /help shows what there is"),
            // A missing file or a full context is no reason to lose the conversation.
            message => {
                if let Err(error) = chat.turn(message) {
                    println!("{error}");
                }
            }
        }
    }
}

impl Chat<'_> {
    /// A message and its answer. Where it fails, the conversation is as it was.
    fn turn(&mut self, message: &str) -> lumina_examples::Result<()> {
        let conversation = self.conversation.clone().human(self.message(message)?);
        let mut answer: Vec<Part> = Vec::new();
        let mut is_whole = true;
        for event in self.args.apply_sampling(self.model.chat(conversation.clone())).stream()? {
            match event? {
                Event::Text(piece) => {
                    print!("{piece}");
                    answer.push(piece.into());
                }
                Event::Image { image, codes } => {
                    let file = self.next_file();
                    save_image(&image, &file)?;
                    print!("[{}]", file.display());
                    answer.push(codes.into());
                }
                Event::Malformed { malformed, .. } => print!("[{malformed}]"),
                Event::Done { stats, .. } => {
                    println!();
                    eprintln!("{}", summary(&stats));
                    is_whole = stats.stop != StopReason::ContextFull;
                }
                _ => {}
            }
            io::stdout().flush()?;
        }
        if is_whole {
            self.conversation = conversation.assistant(answer);
        } else {
            // With it every later turn would be too long.
            println!(
                "the answer has no end within the model's context, and is not kept; /new begins a new conversation"
            );
        }
        Ok(())
    }

    /// The first name that is free: those of earlier conversations stay.
    fn next_file(&mut self) -> PathBuf {
        loop {
            self.n_images += 1;
            let file = PathBuf::from(format!("out/chat-{}.png", self.n_images));
            if !file.exists() {
                return file;
            }
        }
    }

    /// The parts of a message. "Draw …" is asked for in the words that the model has learnt.
    fn message(&self, message: &str) -> lumina_examples::Result<Vec<Part>> {
        let wish = message.get(..5).filter(|start| start.eq_ignore_ascii_case("draw ")).map(|_| message[5..].trim());
        Ok(match wish.filter(|wish| !wish.is_empty() && !wish.contains('@')) {
            Some(wish) => {
                let side = self.model.target_size_px();
                let input = TaskInput::new().text(wish).size(lumina_mgpt::ImageSize::new(side, side)?);
                Task::TextToImage.prompt(input)?.0
            }
            None => message_parts(self.model, message)?,
        })
    }
}
