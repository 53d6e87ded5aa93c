//! `lumina download Alpha-VLLM/Lumina-mGPT-7B-768-Omni`
//!
//! Downloads a model from the Hugging Face hub, into the cache that Python shares.

use std::path::PathBuf;

use clap::Args as Arguments;
use lumina_mgpt::Lumina;
use serde_json::json;

use crate::Form;
use crate::progress::DownloadBar;

/// Downloads the files that are needed of a model, and of its tokenizers where they are named. What the cache has is
/// not downloaded again, and a download that was cut off goes on where it ended.
///
/// The cache is that of Python's huggingface_hub: HF_HOME, HF_HUB_CACHE, HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE are
/// read.
#[derive(Debug, Arguments)]
pub struct Args {
    /// The model's name on the hub: OWNER/NAME or OWNER/NAME@REVISION
    model: String,
    /// Name or folder of the image tokenizer, where the model has none
    #[arg(long, value_name = "NAME")]
    image_tokenizer: Option<PathBuf>,
    /// Name or folder of the text tokenizer, where the model has none
    #[arg(long, value_name = "NAME")]
    tokenizer: Option<PathBuf>,
    /// Name or folder of a LoRA adapter
    #[arg(long, value_name = "NAME")]
    adapter: Option<PathBuf>,
}

/// Runs it.
///
/// # Errors
/// What it prints.
pub fn run(args: Args, form: Form) -> crate::Result<()> {
    let bar = DownloadBar::new();
    let mut builder = Lumina::from_pretrained(&args.model).on_download(|progress| bar.update(&progress));
    if let Some(name) = args.image_tokenizer {
        builder = builder.image_tokenizer(name);
    }
    if let Some(name) = args.tokenizer {
        builder = builder.tokenizer(name);
    }
    if let Some(name) = args.adapter {
        builder = builder.adapter(name);
    }
    let folders = builder.download()?;
    if !folders[0].exists() {
        return Err(
            anyhow::anyhow!("`{}` is no name on the hub; give OWNER/NAME, or OWNER/NAME@REVISION", args.model).into()
        );
    }
    for folder in folders {
        form.result(json!({ "folder": folder }), || folder.display().to_string())?;
    }
    Ok(())
}
