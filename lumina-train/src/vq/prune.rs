//! A codebook without the codes that hardly occur.

use std::path::Path;

use image::RgbImage;
use lumina_checkpoint::{Checkpoint, save_bytes, save_safetensors};
use lumina_nn::Compute;
use lumina_vq::{ImageTokenizer, VqConfig, is_training_state};

use super::init::WEIGHTS;
use crate::checkpoint::FolderLock;
use crate::{Error, Result};

/// The tensor with an entry in each row.
const CODEBOOK: &str = "quantize.embedding.weight";
/// How many patches of a local tokenizer are remembered while images are counted: about 100 MB.
const KNOWN_PATCHES: usize = 100_000;

/// Writes the image tokenizer of `folder` to `target` without the codes that occur in fewer than `at_least` of the
/// images, or in none, and returns how many codes are left. All others keep their order, and the networks stay as
/// they are.
///
/// Codes that do not occur are tokens that a transformer cannot learn. What they were nearest to gets the nearest of
/// the others, so the images should be as many as show all that is to be coded. Train the decoder afterwards, with
/// [`CodebookUpdate::Fixed`](super::CodebookUpdate::Fixed): it then knows these codes alone.
///
/// # Errors
/// [`Error::NoImages`]; [`Error::NoCodes`] where `at_least` is more than the number of images, for example;
/// [`Error::Images`] where one cannot be encoded or the folder cannot be opened; [`Error::Checkpoint`] and
/// [`Error::FolderBusy`] where the files cannot be read or written.
pub fn prune_codebook(
    folder: impl AsRef<Path>,
    target: impl AsRef<Path>,
    images: impl IntoIterator<Item = RgbImage>,
    at_least: u32,
    compute: &Compute,
) -> Result<usize> {
    let (folder, target) = (folder.as_ref(), target.as_ref());
    let tokenizer = ImageTokenizer::open(folder, compute)?.with_known_patches(KNOWN_PATCHES);
    // In how many images each code occurs.
    let mut counts = vec![0u32; tokenizer.config().n_codes()];
    let mut n_images = 0;
    for image in images {
        n_images += 1;
        let mut codes = tokenizer.encode(&image)?.codes().to_vec();
        codes.sort_unstable();
        codes.dedup();
        codes.into_iter().for_each(|code| counts[code as usize] += 1);
    }
    let kept: Vec<usize> = (0..counts.len()).filter(|&code| counts[code] >= at_least.max(1)).collect();
    match n_images {
        0 => return Err(Error::NoImages),
        n_images if kept.is_empty() => return Err(Error::NoCodes { n_images, at_least }),
        _ => {}
    }
    let config = VqConfig::open(&folder.join(ImageTokenizer::CONFIG))?.with_n_codes(kept.len())?;
    let weights = Checkpoint::open(ImageTokenizer::weights_file(folder)?)?;
    let _lock = FolderLock::new(target)?;
    let views = weights.names().filter(|name| !is_training_state(name)).filter_map(|name| weights.get(name));
    let tensors = views.map(|view| {
        let (name, dtype, mut shape) = (view.name().to_owned(), view.dtype(), view.shape().to_vec());
        let rows = (name == CODEBOOK).then(|| kept.clone());
        if let Some(rows) = &rows {
            shape[0] = rows.len();
        }
        let bytes = move || {
            let Some(rows) = rows else { return Ok(view.bytes().clone()) };
            let entry = view.bytes().len() / view.shape()[0];
            let of_row = |&row: &usize| &view.bytes()[row * entry..][..entry];
            Ok(rows.iter().flat_map(of_row).copied().collect::<Vec<u8>>().into())
        };
        (name, dtype, shape, bytes)
    });
    save_safetensors(target.join(WEIGHTS), tensors)?;
    save_bytes(target.join(ImageTokenizer::CONFIG), config.to_yaml().as_bytes())?;
    Ok(kept.len())
}
