//! Command-line arguments that several commands and programs share.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use lumina_mgpt::{Answer, Compute, Dtype, Generation, Lumina, LuminaBuilder, Task, Weights, keep_freed_memory};

use crate::default_model;

/// The checkpoint, the compute target and the sampling options.
#[derive(Debug, Args)]
pub struct ModelArgs {
    #[command(flatten)]
    checkpoint: CheckpointArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
}

impl ModelArgs {
    /// What opens the checkpoint.
    ///
    /// # Errors
    /// If no model is named, or no backend is compiled in.
    pub fn builder(&self) -> Result<LuminaBuilder<'static>> {
        self.checkpoint.builder()
    }

    /// Opens the checkpoint.
    ///
    /// # Errors
    /// Those of [`LuminaBuilder::load`].
    pub fn open(&self) -> Result<Lumina> {
        self.checkpoint.open()
    }

    /// Where to compute.
    pub fn compute(&self) -> Compute {
        self.checkpoint.compute.open()
    }

    /// The folder, file or name of the checkpoint.
    ///
    /// # Errors
    /// Where none is named, and there is no default.
    pub fn model(&self) -> Result<PathBuf> {
        self.checkpoint.model()
    }

    /// The seed that was given.
    pub fn seed(&self) -> u64 {
        self.sampling.seed
    }

    /// Applies the sampling options that were given. The others keep the defaults of the checkpoint, or of the task.
    pub fn apply_sampling<'m, T: Answer>(&self, generation: Generation<'m, T>) -> Generation<'m, T> {
        self.sampling.apply(generation)
    }
}

/// The checkpoint and the compute target.
#[derive(Debug, Args)]
#[command(next_help_heading = "Model")]
pub(crate) struct CheckpointArgs {
    /// Folder or GGUF file of a Lumina-mGPT or Chameleon checkpoint, or its name on the hub [default: LUMINA_MODEL, or
    /// in a clone of the repository its small model]
    #[arg(long, value_name = "PATH")]
    model: Option<PathBuf>,
    #[command(flatten)]
    parts: PartArgs,
    /// Pixels a side that the checkpoint was trained for: 512, 768 or 1024 [default: what it states, else 768]
    #[arg(long, value_name = "PIXELS")]
    target_size: Option<u32>,
    #[command(flatten)]
    compute: ComputeArgs,
}

impl CheckpointArgs {
    fn builder(&self) -> Result<LuminaBuilder<'static>> {
        let mut builder = Lumina::from_pretrained(self.model()?).compute(self.compute.open());
        if let Some(px) = self.target_size {
            builder = builder.target_size_px(px);
        }
        Ok(self.parts.add_to(builder))
    }

    pub(crate) fn open(&self) -> Result<Lumina> {
        let style = ProgressStyle::with_template("{spinner} opening, {bytes} {wide_msg}");
        let bar = ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        let builder = self.builder()?;
        #[cfg(feature = "hub")]
        let downloads = crate::progress::DownloadBar::new();
        #[cfg(feature = "hub")]
        let builder = builder.on_download(|progress| downloads.update(&progress));
        let model = builder.on_progress(|step| {
            bar.set_position(step.bytes);
            bar.set_message(step.tensor);
        });
        let model = model.load()?;
        bar.finish_and_clear();
        Ok(model)
    }

    pub(crate) fn model(&self) -> Result<PathBuf> {
        self.model.clone().map_or_else(default_model, Ok)
    }

    /// Where to compute.
    pub(crate) fn compute(&self) -> Compute {
        self.compute.open()
    }

    /// The size that was given, in pixels a side.
    pub(crate) fn target_size_px(&self) -> Option<u32> {
        self.target_size
    }

    /// Where the model is, and its parts that are named: folders or files, downloaded as far as the hub's cache lacks
    /// them.
    ///
    /// # Errors
    /// Those of the download.
    pub(crate) fn paths(&self) -> Result<Vec<PathBuf>> {
        #[cfg(feature = "hub")]
        {
            let downloads = crate::progress::DownloadBar::new();
            Ok(self.builder()?.on_download(|progress| downloads.update(&progress)).download()?)
        }
        #[cfg(not(feature = "hub"))]
        {
            let parts = [&self.parts.tokenizer, &self.parts.image_tokenizer, &self.parts.adapter];
            Ok([self.model()?].into_iter().chain(parts.into_iter().flatten().cloned()).collect())
        }
    }
}

/// The parts of a model that are elsewhere.
#[derive(Debug, Args)]
pub(crate) struct PartArgs {
    /// Folder or name of the image tokenizer (vqgan.yaml and its weights), if it is not in the model's folder
    #[arg(long, value_name = "FOLDER")]
    image_tokenizer: Option<PathBuf>,
    /// Folder or name of a LoRA adapter for the model, saved by the example `finetune` or by PEFT
    #[arg(long, value_name = "FOLDER", hide_short_help = true)]
    adapter: Option<PathBuf>,
    /// Folder or name of tokenizer.json, if it is not in the model's folder
    #[arg(long, value_name = "FOLDER")]
    pub(crate) tokenizer: Option<PathBuf>,
}

impl PartArgs {
    /// What opens the model, with these parts.
    pub(crate) fn add_to<'a>(&self, mut builder: LuminaBuilder<'a>) -> LuminaBuilder<'a> {
        if let Some(folder) = &self.image_tokenizer {
            builder = builder.image_tokenizer(folder);
        }
        if let Some(folder) = &self.adapter {
            builder = builder.adapter(folder);
        }
        if let Some(folder) = &self.tokenizer {
            builder = builder.tokenizer(folder);
        }
        builder
    }
}

/// The compute target.
#[derive(Debug, Args)]
#[command(next_help_heading = "Compute")]
pub struct ComputeArgs {
    /// Where to compute: cpu, or a GPU that is compiled in, such as cuda or wgpu [default: cpu]
    ///
    /// cuda:1 is the second GPU, cuda:all shares the layers of a large model among all GPUs, and cuda+cpu keeps in host
    /// memory what does not fit. flex and ndarray are other backends on the CPU.
    #[arg(long, visible_alias = "compute")]
    device: Option<Compute>,
    /// Data type of activations: f32, f16 or bf16
    #[arg(long, value_name = "TYPE", default_value = "f32", value_parser = dtype, hide_short_help = true)]
    dtype: Dtype,
    /// Format of linear weights: as-stored, compute-type, bf16, f16, q8 or q4 [default: the device's]
    #[arg(long, value_name = "FORMAT")]
    weights: Option<Weights>,
    /// Data type of the KV cache: f32, bf16 or q8_0, on a GPU also f16 [default: the device's]
    #[arg(long, value_name = "TYPE", value_parser = kv_dtype, hide_short_help = true)]
    kv_cache: Option<Dtype>,
    /// Round activations to bf16 if the CPU has instructions for it (AVX-512 BF16, AMX): halves the time of prompts
    #[arg(long, hide_short_help = true)]
    bf16_activations: bool,
}

impl ComputeArgs {
    /// The requested compute target. Also keeps freed memory in the process, which makes later passes faster.
    pub fn open(&self) -> Compute {
        keep_freed_memory(1 << 30);
        let device = self.device.clone().unwrap_or_else(Compute::cpu);
        let device = match self.dtype {
            Dtype::F32 => device,
            // Memory-mapped weights require f32 activations.
            #[cfg(feature = "flex")]
            other => device.in_tensors().dtype(other),
            // Opening a model says what it takes.
            #[cfg(not(feature = "flex"))]
            other => device.dtype(other),
        };
        let device = match self.kv_cache {
            Some(dtype) => device.kv_cache(dtype),
            None => device,
        };
        let device = if self.bf16_activations { device.bf16_activations() } else { device };
        match self.weights {
            Some(weights) => device.weights(weights),
            None => device,
        }
    }
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Sampling")]
struct SamplingArgs {
    /// The same seed gives the same answer; another seed another one, where the prompt leaves something open
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// How strongly images follow the prompt: 1 is without guidance [default: the checkpoint's, else the task's]
    #[arg(long, value_name = "SCALE")]
    guidance: Option<f32>,
    /// Draw image tokens from the K most likely ones [default: the checkpoint's, else the task's]
    #[arg(long, value_name = "K")]
    image_top_k: Option<usize>,
    /// Draw text tokens from the K most likely ones [default: the checkpoint's, else the task's]
    #[arg(long, value_name = "K")]
    text_top_k: Option<usize>,
    /// How random draws are: below 1 favours likely tokens [default: the checkpoint's, else the task's]
    #[arg(long, value_name = "T")]
    temperature: Option<f32>,
    /// Take the most likely token each time, without draws
    #[arg(long)]
    greedy: bool,
    /// The most tokens to generate [default: enough for the task]
    #[arg(long, value_name = "N")]
    max_new_tokens: Option<usize>,
}

impl SamplingArgs {
    fn apply<'m, T: Answer>(&self, generation: Generation<'m, T>) -> Generation<'m, T> {
        let mut generation = generation.seed(self.seed);
        if let Some(scale) = self.guidance {
            generation = generation.guidance(scale);
        }
        if let Some(k) = self.image_top_k {
            generation = generation.image_top_k(k);
        }
        if let Some(k) = self.text_top_k {
            generation = generation.text_top_k(k);
        }
        if let Some(temperature) = self.temperature {
            generation = generation.temperature(temperature);
        }
        if let Some(max_new_tokens) = self.max_new_tokens {
            generation = generation.max_new_tokens(max_new_tokens);
        }
        if self.greedy { generation.greedy() } else { generation }
    }
}

/// Checks that the instruction is there, if the task takes one, and not otherwise.
///
/// # Errors
/// What to do with `--instruction`.
pub fn check_instruction(task: Task, given: bool) -> Result<()> {
    match (task.spec().takes_text(), given) {
        (true, false) => {
            bail!("task `{task}` takes a text: give it with `--instruction`, as in --instruction \"a car\"")
        }
        (false, true) => bail!("task `{task}` takes no text: leave `--instruction` out"),
        _ => Ok(()),
    }
}

/// Parses a size such as `768x512`. The library checks its range.
///
/// # Errors
/// The expected form.
pub fn width_x_height(text: &str) -> Result<(u32, u32), String> {
    let sides = text.split_once('x').and_then(|(width, height)| Some((width.parse().ok()?, height.parse().ok()?)));
    sides.ok_or_else(|| "expected WIDTHxHEIGHT in pixels, such as 768x512".to_owned())
}

fn dtype(name: &str) -> Result<Dtype, String> {
    one_of(&[Dtype::F32, Dtype::F16, Dtype::BF16], name)
}

fn kv_dtype(name: &str) -> Result<Dtype, String> {
    one_of(&Compute::GPU_KV_CACHE_DTYPES, name)
}

fn one_of(choices: &[Dtype], name: &str) -> Result<Dtype, String> {
    let known = choices.iter().copied().find(|dtype| dtype.to_string() == name);
    let names = choices.iter().map(Dtype::to_string).collect::<Vec<_>>().join(", ");
    known.ok_or_else(|| format!("expected one of {names}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_of_the_instruction_is_named() {
        for (task, given) in [(Task::Editing, false), (Task::DepthEstimation, true)] {
            let message = check_instruction(task, given).unwrap_err().to_string();
            assert!(message.contains("`--instruction`") && message.contains(&task.to_string()), "{message}");
            check_instruction(task, !given).unwrap();
        }
    }
}
