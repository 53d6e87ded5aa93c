//! How long an image takes, one token a pass and several.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lumina_examples::{ModelArgs, SCENE_PROMPT};
use lumina_mgpt::{Lumina, Speculation};

use super::table::Row;

/// Images of a side of the comparison.
const N: u64 = 8;

/// Draws images one token a pass and as the library does, in turn, with the same seeds.
pub(crate) fn speed(model: &Lumina, args: &ModelArgs) -> Result<Vec<Row>> {
    let size = model.default_size();
    let sides = [("one token a pass", Speculation::Off), ("several tokens a pass", Speculation::Auto)];
    // What is made once is made before.
    model.text_to_image(SCENE_PROMPT, (size.width_px(), size.height_px())).run()?;
    let mut taken = [(Duration::ZERO, 0, 0); 2];
    for seed in 0..N {
        for ((_, speculation), (time, passes, tokens)) in sides.iter().zip(&mut taken) {
            let generation = model.text_to_image(SCENE_PROMPT, (size.width_px(), size.height_px()));
            let mut request = args.apply_sampling(generation).speculation(*speculation).request()?;
            request.options.sampling.seed = seed;
            let begun = Instant::now();
            let answer =
                model.run_batch(std::slice::from_ref(&request)).pop().context("an answer to one request")??;
            *time += begun.elapsed();
            *passes += answer.stats.passes;
            *tokens += answer.stats.generated_tokens;
        }
    }
    let row = |((name, _), (time, passes, tokens)): ((&str, _), (Duration, usize, usize))| {
        let (seconds, n) = (time.as_secs_f64(), N as f64);
        let value = format!(
            "{:.2} s an image, {:.0} tokens/s, {:.0} passes",
            seconds / n,
            tokens as f64 / seconds,
            passes as f64 / n
        );
        (format!("speed at {size}, {name}"), value)
    };
    Ok(sides.into_iter().zip(taken).map(row).collect())
}
