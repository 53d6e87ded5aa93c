//! `cargo run --release --example custom_sampler -- "a red car" --towards photo.jpg --strength 4`
//!
//! Draws with a sampling step of one's own: one that pulls a drawing towards a given picture.
#![allow(clippy::print_stdout, reason = "a program for people")]

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use lumina_examples::{ModelArgs, open_picture, save_png};
use lumina_sampling::{Candidates, Phase, Step, StreamState};

/// Draws a picture from a text, pulled towards another picture.
#[derive(Parser)]
struct Args {
    /// What to draw
    #[arg(
        default_value = "a large red circle in the top left and a small blue square in the bottom right on a white background"
    )]
    prompt: String,
    /// The picture to pull towards [default: a scene]
    #[arg(long)]
    towards: Option<PathBuf>,
    /// How strongly, added to a logit: 0 is not at all, 100 leaves nothing else
    #[arg(long, default_value_t = 8.0)]
    strength: f32,
    /// The picture, a PNG file
    #[arg(short, long, default_value = "out/custom_sampler.png")]
    output: PathBuf,
    #[command(flatten)]
    model: ModelArgs,
}

/// Makes likelier in each place the token of a picture, given as it stands in the stream, from its image-start on.
#[derive(Debug, Clone)]
struct Towards {
    tokens: Vec<u32>,
    strength: f32,
}

impl Step for Towards {
    fn apply(&self, candidates: &mut Candidates, state: &StreamState) {
        if let Phase::Rows(image) = state.phase()
            && let Some(&token) = self.tokens.get(state.len() - image.start())
            && let Some(logit) = candidates.get_mut(token)
        {
            *logit += self.strength;
        }
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    let model = args.model.open()?;
    let codes = model.encode_image(&open_picture(args.towards.as_deref())?)?;
    let step = Towards { tokens: model.tokenizer().encode_image(&codes)?, strength: args.strength };
    let generation = model.text_to_image(&args.prompt, (codes.width_px(), codes.height_px()));
    let image = args.model.refine(generation).sampler(move |sampler| sampler.step_before(step.clone())).run()?;
    save_png(&image, &args.output)?;
    println!("wrote {}", args.output.display());
    Ok(())
}
