//! `lumina generate "a small red circle above a large blue square on a white background"`
//!
//! Draws an image from a text, or several.

use std::path::{Path, PathBuf};

use crate::{
    Form, ModelArgs, Progress, SCENE_PROMPT, check_output, contact_sheet, note, note_unknown_words, save_image,
    summary, width_x_height,
};
use clap::Args as Arguments;
use lumina_mgpt::{Error, Event, Lumina, Request};
use serde_json::json;

/// Draws an image from a text, or several.
#[derive(Debug, Arguments)]
pub struct Args {
    /// What to draw
    #[arg(default_value = SCENE_PROMPT)]
    prompt: String,
    /// Draw an image of each line of this file instead, and a contact sheet of them
    #[arg(long, value_name = "FILE", conflicts_with_all = ["prompt", "preview_every"])]
    prompts: Option<PathBuf>,
    /// Size of the image in pixels, multiples of 32 [default: a square of the target size]
    #[arg(long, value_name = "WIDTHxHEIGHT", value_parser = width_x_height, allow_hyphen_values = true)]
    size: Option<(u32, u32)>,
    /// Draw N images of each prompt at once, with the seeds from `--seed` on, and a contact sheet of them
    #[arg(short = 'n', long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    images: u16,
    /// While the image is drawn, write the part that is there after each ROWS rows (of 16 pixels) to the output file
    #[arg(long, value_name = "ROWS", conflicts_with = "images")]
    preview_every: Option<u32>,
    /// Write all parts that `--preview-every` asks for, and the whole image, side by side to this file, too
    #[arg(long, value_name = "FILE", requires = "preview_every")]
    strip: Option<PathBuf>,
    /// The PNG, JPEG or WebP file to write; of several images the contact sheet, and next to it a file for each
    #[arg(short, long, value_name = "FILE", default_value = "out/generate.png")]
    output: PathBuf,
    #[command(flatten)]
    model: ModelArgs,
}

/// Runs it.
///
/// # Errors
/// What it prints.
pub fn run(args: Args, form: Form) -> crate::Result<()> {
    for file in [Some(&args.output), args.strip.as_ref()].into_iter().flatten() {
        check_output(file)?;
    }
    let model = args.model.open()?;
    let default = model.default_size();
    let size = args.size.unwrap_or((default.width_px(), default.height_px()));
    let prompts = match &args.prompts {
        Some(file) => lines(file)?,
        None => vec![args.prompt.clone()],
    };
    prompts.iter().for_each(|prompt| note_unknown_words(&model, prompt));
    let ask = |prompt: &String| args.model.apply_sampling(model.text_to_image(prompt, size));
    if args.prompts.is_some() || args.images > 1 {
        let requests = prompts.iter().map(|prompt| ask(prompt).request()).collect::<Result<Vec<_>, _>>()?;
        return several(&model, &requests, args.images, &args.output, form);
    }
    let mut generation = ask(&prompts[0]);
    let seed = args.model.seed();
    if let Some(rows) = args.preview_every {
        generation = generation.preview_every_rows(rows);
    }
    let progress = Progress::new();
    let (mut cut_off, mut parts) = (None, Vec::new());
    for event in generation.stream()? {
        let event = event?;
        progress.update(&event);
        match event {
            Event::Preview(image) | Event::Image { image, .. } => {
                save_image(&image, &args.output)?;
                parts.extend(args.strip.is_some().then_some(image));
            }
            Event::Malformed { malformed, .. } => cut_off = Some(malformed),
            Event::Done { stats, .. } => {
                if let Some(malformed) = cut_off.take() {
                    return Err(Error::Malformed { malformed, stop: Some(stats.stop) }.into());
                }
                note!("{}, {}x{}", summary(&stats), size.0, size.1);
                let file = &args.output;
                let record = json!({ "file": file, "seed": seed, "size": size, "stats": stats });
                form.result(record, || format!("wrote {}", file.display()))?;
                if let Some(strip) = &args.strip {
                    save_image(&contact_sheet(&parts), strip)?;
                    form.result(json!({ "strip": strip }), || format!("wrote {}", strip.display()))?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// The lines of a file that are not empty.
fn lines(file: &Path) -> crate::Result<Vec<String>> {
    let text = lumina_core::file::read_document_text(file)?;
    let lines: Vec<String> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    if lines.is_empty() {
        return Err(anyhow::anyhow!("{}: no prompts; write one a line", file.display()).into());
    }
    Ok(lines)
}

/// The same requests with `n` consecutive seeds each, in the same passes; each image in a file of its own, and all in
/// one.
fn several(model: &Lumina, requests: &[Request], n: u16, sheet: &Path, form: Form) -> crate::Result<()> {
    let numbered = (1..).zip(requests);
    let (numbers, requests): (Vec<usize>, Vec<Request>) = numbered
        .flat_map(|(number, request)| {
            (0..u64::from(n)).map(move |index| {
                let mut request = request.clone();
                let seed = &mut request.options.sampling.seed;
                *seed = seed.wrapping_add(index);
                (number, request)
            })
        })
        .unzip();
    let has_one_prompt = numbers.iter().all(|&number| number == 1);
    let mut images = Vec::new();
    for ((number, request), output) in numbers.iter().zip(&requests).zip(model.run_batch(&requests)) {
        let output = output?;
        let seed = request.options.sampling.seed;
        let stats = output.stats;
        let Some(image) = output.images.into_iter().next() else {
            note!("no image with seed {seed}: stopped by {}", stats.stop);
            continue;
        };
        let name = sheet.file_stem().unwrap_or_default().to_string_lossy();
        let extension = sheet.extension().map_or_else(|| "png".into(), |extension| extension.to_string_lossy());
        let file = sheet.with_file_name(if has_one_prompt {
            format!("{name}-{seed}.{extension}")
        } else {
            format!("{name}-{number}-{seed}.{extension}")
        });
        save_image(&image, &file)?;
        let record = json!({ "file": file, "seed": seed, "size": image.dimensions(), "stats": stats });
        form.result(record, || format!("wrote {}", file.display()))?;
        images.push(image);
    }
    if images.is_empty() {
        return Err(
            anyhow::anyhow!("no request has an image; raise `--max-new-tokens`, or ask with another `--seed`").into()
        );
    }
    save_image(&contact_sheet(&images), sheet)?;
    form.result(json!({ "contact_sheet": sheet }), || format!("wrote {}", sheet.display()))?;
    Ok(())
}
