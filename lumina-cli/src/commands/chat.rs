//! `lumina chat "@photo.jpg What is it?" "draw it in winter" --interactive`
//!
//! Chats in text and images. Each message is a turn; `@file` in a message is an image.

use std::io::{self, BufRead, IsTerminal};
use std::path::PathBuf;

use crate::{
    Form, ModelArgs, SCENE_PROMPT, left_out, message_parts, note, note_unknown_words, save_image, say, say_piece,
    summary,
};
use clap::Args as Arguments;
use lumina_mgpt::{Conversation, Event, Lumina, Part, StopReason, Task, TaskInput};
use serde_json::json;

/// Chats in text and images. @FILE in a message is an image, and "draw …" asks for one.
///
/// A name with spaces is written in quotes: @"my dog.png". Images of the answers are written to out/chat-1.png and so
/// on, the next that is free.
#[derive(Debug, Arguments)]
pub struct Args {
    /// The first messages, each a turn in quotes [default: two that the small model understands]
    messages: Vec<String>,
    /// Then read more messages from the standard input, one a line
    #[arg(short, long)]
    interactive: bool,
    #[command(flatten)]
    model: ModelArgs,
}

const HELP: &str = "A line is a message. A line that begins with \"draw\" asks for an image.
@file in a message is an image: @dog.png, or @\"my dog.png\" or @my\\ dog.png where the name has spaces.
/new    forgets the conversation
/help   shows this
/quit   ends";

/// A conversation in progress.
struct Chat<'a> {
    model: &'a Lumina,
    args: &'a ModelArgs,
    conversation: Conversation,
    n_images: usize,
    form: Form,
}

/// Runs it.
///
/// # Errors
/// What it prints.
pub fn run(args: Args, form: Form) -> crate::Result<()> {
    let model = args.model.open()?;
    let mut messages = args.messages;
    if messages.is_empty() && !args.interactive {
        messages.extend([format!("draw {SCENE_PROMPT}"), "make the red circle blue".to_owned()]);
    }
    let mut chat = Chat { model: &model, args: &args.model, conversation: Conversation::new(), n_images: 0, form };
    for message in messages {
        if form == Form::Text {
            say!("> {message}")?;
        }
        chat.turn(&message)?;
    }
    if !args.interactive {
        return Ok(());
    }
    if io::stdin().is_terminal() {
        note!("{HELP}");
    }
    loop {
        if io::stdin().is_terminal() && form == Form::Text {
            say_piece!("> ")?;
        }
        let mut line = Vec::new();
        if io::stdin().lock().read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        match String::from_utf8_lossy(&line).trim() {
            "" => {}
            "/quit" | "/exit" => return Ok(()),
            "/help" => note!("{HELP}"),
            "/new" => chat.conversation = Conversation::new(),
            other if other.starts_with('/') => note!("there is no {other}; /help shows what there is"),
            // A missing file or a full context is no reason to lose the conversation.
            message => {
                if let Err(error) = chat.turn(message) {
                    note!("{error}");
                }
            }
        }
    }
}

impl Chat<'_> {
    /// A message and its answer. Where it fails, the conversation is as it was.
    fn turn(&mut self, message: &str) -> crate::Result<()> {
        let conversation = self.conversation.clone().human(self.message(message)?);
        let mut answer: Vec<Part> = Vec::new();
        let (mut is_whole, mut n_specials) = (true, 0);
        let (mut text, mut files) = (String::new(), Vec::new());
        let is_shown = self.form == Form::Text;
        for event in self.args.apply_sampling(self.model.chat(conversation.clone())).stream()? {
            match event? {
                Event::Text(piece) => {
                    if is_shown {
                        say_piece!("{piece}")?;
                    }
                    text.push_str(&piece);
                    answer.push(piece.into());
                }
                Event::Special(_) => n_specials += 1,
                Event::Image { image, codes } => {
                    let file = self.next_file();
                    save_image(&image, &file)?;
                    if is_shown {
                        say_piece!("[{}]", file.display())?;
                    }
                    files.push(file);
                    answer.push(codes.into());
                }
                Event::Malformed { malformed, .. } if is_shown => say_piece!("[{malformed}]")?,
                Event::Done { stats, .. } => {
                    let record = json!({ "text": text, "images": files, "stats": stats });
                    self.form.result(record, String::new)?;
                    if let Some(remark) = left_out(n_specials) {
                        note!("{remark}");
                    }
                    note!("{}", summary(&stats));
                    is_whole = stats.stop != StopReason::ContextFull;
                }
                _ => {}
            }
        }
        if is_whole {
            self.conversation = conversation.assistant(answer);
        } else {
            // With it every later turn would be too long.
            note!("the answer has no end within the model's context, and is not kept; /new begins a new conversation");
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
    fn message(&self, message: &str) -> crate::Result<Vec<Part>> {
        let wish = message.get(..5).filter(|start| start.eq_ignore_ascii_case("draw ")).map(|_| message[5..].trim());
        Ok(match wish.filter(|wish| !wish.is_empty() && !wish.contains('@')) {
            Some(wish) => {
                note_unknown_words(self.model, wish);
                let input = TaskInput::new().text(wish).size(self.model.default_size());
                Task::TextToImage.prompt(input)?.0
            }
            None => {
                let parts = message_parts(self.model, message)?;
                let texts =
                    parts.iter().filter_map(|part| if let Part::Text(text) = part { Some(&**text) } else { None });
                note_unknown_words(self.model, &texts.collect::<Vec<_>>().join(" "));
                parts
            }
        })
    }
}
