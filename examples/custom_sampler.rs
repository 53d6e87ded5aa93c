//! `cargo run --release --example custom_sampler -- "a red car" --towards photo.jpg --strength 4`
//!
//! Samples with a custom step that makes the drawn image similar to a given image.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use lumina_examples::{ModelArgs, SCENE_PROMPT, note_unknown_words, open_image, save_image, say};
use lumina_sampling::{Candidates, Phase, Step, StreamState};

/// Draws an image from a text, similar to another image, by a sampling step of its own.
#[derive(Parser)]
struct Args {
    /// What to draw
    #[arg(default_value = SCENE_PROMPT)]
    prompt: String,
    /// The other image, whose size the drawn one has, too [default: model/scene.png]
    #[arg(long, value_name = "IMAGE")]
    towards: Option<PathBuf>,
    /// How similar: what is added to the logits of its tokens; 0 has no effect, 100 copies the image
    #[arg(long, value_name = "LOGITS", default_value_t = 8.0)]
    strength: f32,
    /// The PNG, JPEG or WebP file to write
    #[arg(short, long, value_name = "FILE", default_value = "out/custom_sampler.png")]
    output: PathBuf,
    #[command(flatten)]
    model: ModelArgs,
}

/// Raises the logit of the token that another image has at the same position. `tokens` begin with its image-start.
#[derive(Debug, Clone)]
struct TowardsImage {
    tokens: Vec<u32>,
    strength: f32,
}

impl Step for TowardsImage {
    fn apply(&self, candidates: &mut Candidates, state: &StreamState) {
        if let Phase::Rows(image) = state.phase()
            && let Some(&token) = self.tokens.get(state.len() - image.start())
            && let Some(logit) = candidates.get_mut(token)
        {
            *logit += self.strength;
        }
    }
}

fn main() -> ExitCode {
    lumina_examples::main(run)
}

fn run(args: Args) -> lumina_examples::Result<()> {
    let model = args.model.open()?;
    note_unknown_words(&model, &args.prompt);
    let codes = model.encode_image(&open_image(args.towards.as_deref())?)?;
    let step = TowardsImage { tokens: model.tokenizer().encode_image(&codes)?, strength: args.strength };
    let generation = model.text_to_image(&args.prompt, (codes.width_px(), codes.height_px()));
    let generation = args.model.apply_sampling(generation).sampler(move |sampler| sampler.step_before(step.clone()));
    save_image(&generation.run()?, &args.output)?;
    say!("wrote {}", args.output.display())?;
    Ok(())
}
