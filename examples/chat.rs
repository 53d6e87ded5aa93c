//! `cargo run --release --example chat`
//!
//! A conversation of several turns, in text and images. `lumina chat` reads turns from the terminal.

use lumina_examples::{Result, SCENE_PROMPT, note_unknown_words, save_image, say, small_model};
use lumina_mgpt::{Content, Conversation, ImageSize, Lumina, Part, Task, TaskInput};

fn main() -> std::process::ExitCode {
    lumina_examples::main(run)
}

/// Draws a scene, then changes it: out/chat-1.png and out/chat-2.png.
#[derive(clap::Parser)]
struct Args {
    /// What to draw
    #[arg(default_value = SCENE_PROMPT)]
    prompt: String,
    /// How to change it
    #[arg(default_value = "make the red circle blue")]
    change: String,
}

fn run(args: Args) -> Result<()> {
    let model = Lumina::from_pretrained(small_model()).load()?;
    for text in [&args.prompt, &args.change] {
        note_unknown_words(&model, text);
    }
    // Asked for as a task is, which is how models have learnt it.
    let draw = Task::TextToImage.prompt(TaskInput::new().text(args.prompt).size(ImageSize::new(256, 256)?))?;
    let mut conversation = Conversation::new();
    for (index, turn) in [draw, Content::from(args.change)].into_iter().enumerate() {
        conversation = conversation.human(turn);
        let answer = model.chat(conversation.clone()).run()?;
        for image in &answer.images {
            let file = format!("out/chat-{}.png", index + 1);
            save_image(image, file.as_ref())?;
            say!("wrote {file}")?;
        }
        // Images go into the next turn as their codes.
        let codes = answer.codes.into_iter().map(Part::from).collect::<Vec<_>>();
        conversation = conversation.assistant(codes);
    }
    Ok(())
}
