//! `lumina doctor --model Lumina-mGPT-7B-768`
//!
//! What this machine has, and what a model takes on it.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use clap::Args as Arguments;
use indicatif::DecimalBytes;
use lumina_checkpoint::Checkpoint;
use lumina_kernels::Isa;
use lumina_mgpt::{Compute, Fit, Lumina, Weights, convert};
use rayon::prelude::*;
use serde_json::{Value, json};

use crate::args::PartArgs;
use crate::files::sha256_of;
use crate::{Form, default_model, local_model, say};

/// Says what this machine has: instruction sets, memory and its speed, GPUs. And of a model whether its files are
/// whole, whether it fits, in which format, and how many passes a second are possible at most.
///
/// A format fits where weights, activations and the keys and values of one image with guidance do: as long as the
/// model's context, at most. Speeds are computed: bytes of the weights by the measured speed of memory. In an image a
/// part of the head is not read, so that passes can be a fifth faster. A pass gives a token, or several where drafts of
/// them come out right.
#[derive(Debug, Arguments)]
pub struct Args {
    /// Folder or GGUF file of the model, or its name on the hub [default: LUMINA_MODEL, or in a clone of the repository
    /// its small model]
    #[arg(long, value_name = "PATH")]
    model: Option<PathBuf>,
    /// Where to compute [default: each device that is compiled in and there]
    #[arg(long)]
    device: Option<Compute>,
    #[command(flatten)]
    parts: PartArgs,
    /// Also open the model, which reads all headers and checks that every tensor is there
    #[arg(long)]
    open: bool,
}

/// Runs it.
///
/// # Errors
/// What it prints: a model that cannot be opened.
pub fn run(args: Args, form: Form) -> crate::Result<()> {
    let devices = args.device.map_or_else(Compute::available, |device| vec![device]);
    let bandwidth = memory_bandwidth();
    let machine = machine(&devices, bandwidth);
    let path = match args.model {
        Some(path) => Some(local_model(path)?),
        None => default_model().ok(),
    };
    let model = path.map(|path| model(&path, &devices, bandwidth, &args.parts, args.open)).transpose()?;
    if form == Form::Json {
        return Ok(form.result(json!({ "machine": machine, "model": model }), String::new)?);
    }
    show_machine(&machine)?;
    match model {
        Some(model) => show_model(&model),
        None => Ok(say!("\nNo model is named: give one with --model")?),
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("unknown")
}

fn bytes(value: &Value) -> String {
    value.as_u64().map_or_else(|| "unknown".to_owned(), |bytes| DecimalBytes(bytes).to_string())
}

fn number(value: &Value) -> String {
    value.as_f64().map_or_else(|| "unknown".to_owned(), |number| format!("{number:.1}"))
}

fn words(value: &Value) -> String {
    let words: Vec<&str> = value.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    words.join(", ")
}

fn show_machine(machine: &Value) -> crate::Result<()> {
    say!("This machine")?;
    say!("  processor    {}, {} threads", text(&machine["processor"]), machine["threads"])?;
    say!("  instructions {}", words(&machine["instruction_sets"]))?;
    say!(
        "  memory       {}, {} free, read at {} GB/s",
        bytes(&machine["memory_bytes"]),
        bytes(&machine["free_memory_bytes"]),
        number(&machine["memory_speed_GB_s"])
    )?;
    say!("  devices      {}", words(&machine["devices"]))?;
    for gpu in machine["gpus"].as_array().into_iter().flatten() {
        say!(
            "  {}: memory {}, {} free, copied at {} GB/s",
            text(&gpu["device"]),
            bytes(&gpu["memory_bytes"]),
            bytes(&gpu["free_memory_bytes"]),
            number(&gpu["memory_speed_GB_s"])
        )?;
    }
    Ok(())
}

fn show_model(model: &Value) -> crate::Result<()> {
    say!("\nThe model {}", text(&model["path"]))?;
    say!("  {} tensors, {}", model["tensors"], bytes(&model["files_bytes"]))?;
    match &model["text_tokenizer"] {
        Value::Null => say!("  no text tokenizer: name one with --tokenizer")?,
        tokenizer => say!("  tokenizer.json: SHA-256 {}", text(&tokenizer["sha256"]))?,
    }
    if let Some(seconds) = model["opened"]["seconds"].as_f64() {
        let draws = if model["opened"]["draws_images"] == true { "draws images" } else { "has no image decoder" };
        say!("  opens in {seconds} s, every tensor is there, and it {draws}")?;
    }
    for fit in model["fits"].as_array().into_iter().flatten() {
        say!("\n  on {:<20}     weights  keys, values  fits     passes/s, about", text(&fit["on"]))?;
        for format in fit["formats"].as_array().into_iter().flatten() {
            say!(
                "    {:<20} {:>12} {:>13}  {:<7} {:>16}",
                text(&format["format"]),
                bytes(&format["weights_bytes"]),
                bytes(&format["keys_and_values_bytes"]),
                text(&format["fits"]),
                number(&format["passes_a_second"])
            )?;
        }
    }
    Ok(())
}

/// Bytes of host memory, where the system says so: on Linux.
fn system_memory(key: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// What the machine has.
fn machine(devices: &[Compute], bandwidth: f64) -> Value {
    let name = std::fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("model name"))?;
        Some(line.trim_start_matches([' ', '\t', ':']).to_owned())
    });
    let sets: Vec<String> = Isa::ALL.into_iter().filter(|set| set.is_available()).map(|set| set.to_string()).collect();
    let gpus: Vec<Value> = devices
        .iter()
        .filter(|device| !device.is_host())
        .map(|device| {
            json!({
                "device": device.to_string(),
                "memory_bytes": device.device_memory(),
                "free_memory_bytes": device.free_device_memory(),
                "memory_speed_GB_s": device.copy_bandwidth().ok().map(gigabytes),
            })
        })
        .collect();
    json!({
        "processor": name,
        "threads": rayon::current_num_threads(),
        "instruction_sets": sets,
        "memory_bytes": system_memory("MemTotal:"),
        "free_memory_bytes": system_memory("MemAvailable:"),
        "memory_speed_GB_s": gigabytes(bandwidth),
        "devices": devices.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "gpus": gpus,
    })
}

/// What a model is, and what it takes; it is opened where that is asked for.
fn model(path: &Path, devices: &[Compute], bandwidth: f64, parts: &PartArgs, opens: bool) -> crate::Result<Value> {
    let checkpoint = convert::open(path)?;
    let tensors = checkpoint.names().count();
    let bytes: u64 =
        checkpoint.names().filter_map(|name| checkpoint.get(name)).map(|view| view.bytes().len() as u64).sum();
    let opened = if opens {
        let started = Instant::now();
        let builder = Lumina::from_pretrained(path).compute(Compute::available().swap_remove(0));
        let model = parts.add_to(builder).load()?;
        let decoder = model.image_tokenizer().is_ok_and(|images| images.has_decoder());
        json!({ "seconds": rounded(started.elapsed().as_secs_f64()), "draws_images": decoder })
    } else {
        Value::Null
    };
    let mut fits = Vec::new();
    for device in devices {
        let speed = if device.is_host() { Some(bandwidth) } else { device.copy_bandwidth().ok() };
        let mut formats = Vec::new();
        let formats_of =
            |device: &Compute| [device.format(), Weights::Q8, Weights::Q4].map(|format| device.clone().weights(format));
        for compute in formats_of(device) {
            let fit = Fit::of_checkpoint(&checkpoint, &compute)?;
            formats.push(format_of(&compute, &fit, speed));
        }
        formats.dedup_by_key(|format| format["weights_bytes"].clone());
        fits.push(json!({ "on": device.to_string(), "formats": formats }));
    }
    Ok(json!({
        "path": path.canonicalize().unwrap_or_else(|_| path.to_owned()),
        "tensors": tensors,
        "files_bytes": bytes,
        "text_tokenizer": text_tokenizer(&checkpoint, parts)?,
        "opened": opened,
        "fits": fits,
    }))
}

/// What a format takes, and how fast a pass can be.
fn format_of(compute: &Compute, fit: &Fit, speed: Option<f64>) -> Value {
    let available = if compute.is_host() { system_memory("MemTotal:") } else { fit.available() };
    json!({
        "format": compute.format().to_string(),
        "weights_bytes": fit.weights,
        "keys_and_values_bytes": fit.kv_cache,
        "fits": match available {
            Some(bytes) if fit.fits() && fit.needed() <= bytes => "yes",
            Some(_) => "no",
            None => "unknown",
        },
        "passes_a_second": speed.map(|speed| rounded(speed / fit.weights.max(1) as f64)),
    })
}

/// The digest of `tokenizer.json`, to compare two folders by: of the one that is named, else of the model's.
fn text_tokenizer(checkpoint: &Checkpoint, parts: &PartArgs) -> crate::Result<Option<Value>> {
    let json = match &parts.tokenizer {
        Some(path) => {
            let path = local_model(path.clone())?;
            let file = if path.is_dir() { path.join("tokenizer.json") } else { path };
            Some(std::fs::read(&file).with_context(|| format!("{}: cannot be read", file.display()))?)
        }
        None => checkpoint.document("tokenizer.json").ok().flatten().map(|json| json.to_vec()),
    };
    Ok(json.map(|json| json!({ "sha256": sha256_of(&json), "bytes": json.len() })))
}

/// Bytes a second that all threads together read from memory.
fn memory_bandwidth() -> f64 {
    const BYTES: usize = 512 << 20;
    let buffer = vec![1_u64; BYTES / 8];
    let mut best = f64::INFINITY;
    for _ in 0..3 {
        let started = Instant::now();
        let sum: u64 = buffer.par_chunks(1 << 16).map(|chunk| chunk.iter().sum::<u64>()).sum();
        std::hint::black_box(sum);
        best = best.min(started.elapsed().as_secs_f64());
    }
    BYTES as f64 / best
}

fn gigabytes(bytes: f64) -> f64 {
    rounded(bytes / 1e9)
}

fn rounded(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}
