//! `lumina generate-many requests.jsonl out/many --rank 0 --ranks 4`
//!
//! Answers the requests of a file, as one of several processes on any machines; `--merge` then makes one manifest.

mod manifest;
mod merge;
mod requests;
mod settings;

use std::collections::HashMap;
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use clap::Args as Arguments;
use image::{ImageFormat, RgbImage};
use indicatif::{ProgressBar, ProgressStyle};
use lumina_checkpoint::save_bytes;
use lumina_core::shown;
use lumina_mgpt::{
    Answer, Engine, EngineOptions, Error as ModelError, Event, ImageDecoder, Lumina, Output, Prompt, Request,
    RequestId, SystemClock,
};
use lumina_tokenizer::TaskOutput;
use serde_json::json;

use self::manifest::{Entry, ImageFile, Manifest, Outcome};
use self::requests::{Requests, image_file};
use self::settings::Settings;
use crate::args::CheckpointArgs;
use crate::files::sha256_of;
use crate::{Form, RankArgs};

/// Answers the requests of a file, as one of several processes on any machines.
///
/// A manifest has a line for each request: its images, its text, or its error. When all ranks are done, `--merge`
/// checks that nothing is missing and makes one manifest.
#[derive(Debug, Arguments)]
pub struct Args {
    /// A file with a request a line, as JSON
    ///
    /// {"id": "car", "task": "text_to_image", "prompt": "a red car", "size": [768, 768], "options": {"sampling": {"seed":
    /// 7}}}. The id is the number of the line, where it is left out.
    #[arg(required_unless_present = "merge")]
    requests: Option<PathBuf>,
    /// The folder to write to, the same for all ranks
    ///
    /// An image becomes ID.png. The same command continues what was ended in whatever way.
    #[arg(required_unless_present = "merge")]
    output: Option<PathBuf>,
    /// Check that FOLDER has all answers, and write manifest.jsonl there, in the order of the requests
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["requests", "output", "retry_errors"])]
    merge: Option<PathBuf>,
    /// How many requests are answered at once; more take more memory, and change no image
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024))]
    batch: u16,
    /// Ask requests again that failed in an earlier run
    #[arg(long)]
    retry_errors: bool,
    #[command(flatten)]
    rank: RankArgs,
    #[command(flatten)]
    model: CheckpointArgs,
}

/// Runs it.
///
/// # Errors
/// What it prints.
pub fn run(args: Args, form: Form) -> crate::Result<()> {
    match (&args.merge, &args.requests, &args.output) {
        (Some(folder), ..) => merged(folder, form),
        (None, Some(requests), Some(output)) => answer(&args, requests, output, form),
        _ => Err(anyhow!("name a file of requests and a folder, or a folder with `--merge`").into()),
    }
}

fn merged(folder: &Path, form: Form) -> crate::Result<()> {
    let merged = merge::merge(folder)?;
    let (file, requests, images, failed) = (&merged.manifest, merged.requests, merged.images, merged.failed);
    let record = json!({ "file": file, "requests": requests, "images": images, "failed": failed });
    let failures = if failed > 0 { format!(", {failed} failed") } else { String::new() };
    form.result(record, || format!("wrote {}: {requests} requests, {images} images{failures}", file.display()))?;
    Ok(())
}

fn answer(args: &Args, requests: &Path, folder: &Path, form: Form) -> crate::Result<()> {
    let rank = args.rank.get()?;
    let requests = Requests::open(requests)?;
    let settings = Settings::new(&requests, &args.model, rank)?;
    fs::create_dir_all(folder).with_context(|| format!("{}: cannot be made", shown(folder)))?;
    let has_settings = settings.check(folder)?;
    let keep = |entry: &Entry| {
        let there = |image: &ImageFile| fs::metadata(folder.join(&image.file)).is_ok_and(|m| m.len() == image.bytes);
        !(args.retry_errors && entry.is_failed()) && entry.images().iter().all(there)
    };
    let mut manifest = Manifest::open(folder, rank, settings.requests, keep)?;
    if !has_settings {
        settings.publish(folder, rank)?;
    }
    // One by one, so that ranks have as much to do where requests of a kind follow each other.
    let own: Vec<usize> = (0..requests.len()).filter(|&index| rank.has(index as u64)).collect();
    let todo: Vec<usize> = own.iter().copied().filter(|&index| !manifest.has(index as u64 + 1)).collect();
    if !todo.is_empty() {
        let model = args.model.open()?;
        Writer { requests: &requests, folder, manifest: &mut manifest }.run(&model, &todo, args.batch.into())?;
    }
    let (n, failed) = (own.len(), manifest.n_failed());
    let record = json!({
        "folder": folder, "rank": rank.rank(), "ranks": rank.of(), "requests": n, "answered_now": todo.len(),
        "failed": failed,
    });
    let (now, place) = (todo.len(), folder.display());
    form.result(record, || format!("{place}: rank {} of {}: {n} requests, {now} of them now", rank.rank(), rank.of()))?;
    if failed > 0 {
        let name = manifest::name(rank);
        let what = format!("{failed} of {n} requests failed; {name} has their errors, and `--retry-errors` asks again");
        return Err(anyhow!(what).into());
    }
    Ok(())
}

/// Writes answers into a folder.
struct Writer<'a> {
    requests: &'a Requests,
    folder: &'a Path,
    manifest: &'a mut Manifest,
}

/// A request that is being answered.
struct Running {
    index: usize,
    request: Request,
    output: Output,
}

impl Writer<'_> {
    /// Answers requests, `batch` of them in the same passes over the weights. As one ends the next begins.
    fn run(&mut self, model: &Lumina, todo: &[usize], batch: usize) -> Result<()> {
        let clock = Arc::new(SystemClock::new());
        let mut engine = model.engine(EngineOptions::default().max_sequences(batch), clock.clone());
        let mut decoder = ImageDecoder::new(clock);
        let mut running: HashMap<RequestId, Running> = HashMap::new();
        let mut todo = todo.iter().copied();
        let bar = progress_bar(todo.len());
        loop {
            // Images that are being decoded are no longer in the passes, but must not pile up.
            while engine.n_running() + engine.n_waiting() < batch && running.len() < 2 * batch {
                let Some(index) = todo.next() else { break };
                match self.begin(model, &mut engine, index)? {
                    Ok((id, request)) => {
                        drop(running.insert(id, Running { index, request, output: Output::default() }))
                    }
                    Err(error) => {
                        self.fail(index, error)?;
                        bar.inc(1);
                    }
                }
            }
            if engine.is_idle() {
                bar.finish_and_clear();
                return Ok(());
            }
            while let Some(work) = engine.next_work() {
                decoder.submit(work);
            }
            let decoded = if engine.has_passes() { decoder.try_next() } else { decoder.wait() };
            if let Some(decoded) = decoded {
                engine.complete(decoded);
            }
            for (id, event) in engine.step() {
                let is_last = matches!(event, Ok(Event::Done { .. }) | Err(_));
                match event {
                    Ok(event) => drop(running.get_mut(&id).map(|running| running.output.add(event))),
                    Err(error) if is_of_the_machine(&error) => return Err(error).context(CONTINUES),
                    Err(error) => {
                        if let Some(running) = running.remove(&id) {
                            self.fail(running.index, message(error))?;
                        }
                    }
                }
                if is_last {
                    bar.inc(1);
                    if let Some(running) = running.remove(&id) {
                        self.finish(running)?;
                    }
                }
            }
        }
    }

    /// Hands a request to the engine; the inner error is the request's.
    fn begin(&self, model: &Lumina, engine: &mut Engine, index: usize) -> Result<Result<(RequestId, Request), String>> {
        let written = match self.requests.get(index) {
            Ok(written) => written,
            Err(reason) => return Ok(Err(reason)),
        };
        let mut request = match model.read_request(&written.json) {
            Ok(request) => request,
            Err(error) => return Ok(Err(message(error))),
        };
        if request.options.deadline_ms.is_some() {
            let reason =
                "`deadline_ms` is given, and the answer would depend on the speed of the machine; leave it out";
            return Ok(Err(reason.to_owned()));
        }
        // Nobody sees them.
        request.options.preview_every_rows = None;
        match engine.submit(&request) {
            Ok(id) => Ok(Ok((id, request))),
            Err(error) if is_of_the_machine(&error) => Err(error).context(CONTINUES),
            Err(error) => Ok(Err(message(error))),
        }
    }

    fn fail(&mut self, index: usize, error: String) -> Result<()> {
        self.append(index, Outcome::Failed { error })
    }

    /// Writes the images of an answer, and then its line.
    fn finish(&mut self, running: Running) -> Result<()> {
        let Running { index, request, output } = running;
        let seed = request.options.sampling.seed;
        let (stop, text) = (output.stats.stop, output.text.clone());
        let images = match images_of(&request, output) {
            Ok(images) => images,
            Err(error) => return self.fail(index, message(error)),
        };
        let id = self.requests.id(index).context("a request that was read has an id")?;
        let mut files = Vec::with_capacity(images.len());
        for (place, image) in images.iter().enumerate() {
            let mut bytes = Cursor::new(Vec::new());
            image.write_to(&mut bytes, ImageFormat::Png)?;
            let (file, bytes) = (image_file(id, place), bytes.into_inner());
            save_bytes(self.folder.join(&file), &bytes).context(CONTINUES)?;
            let (size, sha256) = (image.dimensions(), sha256_of(&bytes));
            files.push(ImageFile { file, size, bytes: bytes.len() as u64, sha256 });
        }
        self.append(index, Outcome::Answered { seed, stop, text, images: files })
    }

    fn append(&mut self, index: usize, outcome: Outcome) -> Result<()> {
        let id = self.requests.id(index).map(str::to_owned);
        self.manifest.append(&Entry { line: index as u64 + 1, id, outcome })
    }
}

/// What the user can do where the machine fails.
const CONTINUES: &str = "the run has ended before its end; the same command continues it";

/// The images of an answer, if it is whole.
fn images_of(request: &Request, mut output: Output) -> Result<Vec<RgbImage>, ModelError> {
    let draws = matches!(&request.prompt, Prompt::Task(task, _) if task.spec().output == TaskOutput::Image);
    if !output.malformed.is_empty() || (draws && output.images.is_empty()) {
        output.images.clear();
        return RgbImage::from_output(output).map(|image| vec![image]);
    }
    Ok(output.images)
}

/// Whether an error says nothing of the request: another run may answer it.
fn is_of_the_machine(error: &ModelError) -> bool {
    use ModelError::{DecoderLost, KvMemory, Pass, Thread};
    matches!(error, Pass(_) | DecoderLost | Thread { .. } | KvMemory { .. })
}

/// An error and its causes in a line.
fn message(error: ModelError) -> String {
    format!("{:#}", anyhow!(error))
}

fn progress_bar(requests: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} requests, {eta} left");
    ProgressBar::new(requests as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
