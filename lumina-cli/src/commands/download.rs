//! `lumina download Alpha-VLLM/Lumina-mGPT-7B-768-Omni`
//!
//! Downloads a model from the Hugging Face hub, into the cache that Python shares.

use clap::Args as Arguments;
use lumina_mgpt::Lumina;
use serde_json::json;

use crate::Form;
use crate::args::PartArgs;
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
    #[command(flatten)]
    parts: PartArgs,
}

/// Runs it.
///
/// # Errors
/// What it prints.
pub fn run(args: Args, form: Form) -> crate::Result<()> {
    let bar = DownloadBar::new();
    let builder = Lumina::from_pretrained(&args.model).on_download(|progress| bar.update(&progress));
    let folders = args.parts.add_to(builder).download()?;
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
