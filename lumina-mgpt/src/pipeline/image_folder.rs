//! Where an image tokenizer is, in a folder or in a repository.

use std::path::{Path, PathBuf};

use lumina_vq::ImageTokenizer;

/// The top, the subfolder of Meta's download, and that of `Alpha-VLLM/Chameleon_7B_mGPT` on the hub.
pub(super) const IMAGE_FOLDERS: [&str; 3] = ["", "tokenizer/", "original_tokenizers/"];

/// The folder of the image tokenizer, where it is in one of [`IMAGE_FOLDERS`].
pub(super) fn folder_with_config(folder: &Path) -> Option<PathBuf> {
    let mut folders = IMAGE_FOLDERS.into_iter().map(|name| folder.join(name));
    folders.find(|folder| folder.join(ImageTokenizer::CONFIG).exists())
}
