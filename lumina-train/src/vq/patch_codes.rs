//! A codebook with one code for each sort of patch.

use std::collections::HashMap;
use std::path::Path;

use burn::tensor::{Tensor, TensorData};
use image::{RgbImage, imageops};
use lumina_core::Compute;
use lumina_core::checkpoint::{Checkpoint, Dtype, save_bytes, save_safetensors};
use lumina_vq::{ImageTokenizer, preprocess};

use super::init::{CONFIG, WEIGHTS, weights_file};
use super::tensors::values;
use crate::{Error, Result};

/// Which patches get a code.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct PatchCodesOptions {
    /// Patches that differ by less are of one sort: root mean square over the pixels, in levels of 8 bits.
    pub tolerance: f64,
    /// Entries of the codebook at most; the sorts that occur most often get them.
    pub most: usize,
}

/// What [`codes_from_patches`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PatchCodesReport {
    /// Patches that differ in any pixel.
    pub patches: usize,
    /// Sorts of patches.
    pub sorts: usize,
    /// Entries of the codebook: as many as sorts, unless there are more than allowed.
    pub codes: usize,
}

/// The tensor with the entries.
const CODEBOOK: &str = "quantize.embedding.weight";

/// Patches of one look.
#[derive(Debug, Clone)]
struct Sort {
    /// One of them, levels of 8 bits.
    patch: Vec<u8>,
    count: f64,
    /// The sum of their latents.
    latents: Vec<f64>,
}

/// Writes the image tokenizer of the folder `from` to the folder `to` with a new codebook: a code for each sort of patch that
/// `pictures` are made of, the mean of the latents of such patches.
///
/// This is for pictures that are made of few sorts of patches. The group norms of a VQGAN let the whole picture into every
/// latent, so that what looks the same is spread: a codebook that follows the latents gives plain background, which is
/// most of a picture, a hundred codes, and patches that differ in a corner share one. Which of the hundred it is says
/// nothing, yet a language model has to predict it; and what shares a code cannot be told apart by any. Begin with an encoder
/// and a decoder that agree without a codebook ([`VqTrainingOptions::quantize_from`]), and train on afterwards with a high
/// [`VqTrainingOptions::commitment_weight`], which draws the latents to their codes.
///
/// [`VqTrainingOptions::quantize_from`]: super::VqTrainingOptions::quantize_from
/// [`VqTrainingOptions::commitment_weight`]: super::VqTrainingOptions::commitment_weight
///
/// # Errors
/// [`Error::Setting`] where there are no pictures or codes, [`Error::Images`] where one cannot be encoded, [`Error::Write`]
/// and [`Error::Core`] for files.
pub fn codes_from_patches(
    from: impl AsRef<Path>,
    to: impl AsRef<Path>,
    pictures: impl IntoIterator<Item = RgbImage>,
    options: PatchCodesOptions,
    compute: &Compute,
) -> Result<PatchCodesReport> {
    let (from, to) = (from.as_ref(), to.as_ref());
    if options.most == 0 {
        return Err(Error::Setting { field: "most", reason: "is 0; a codebook has at least one entry".to_owned() });
    }
    let tokenizer = ImageTokenizer::open(from, compute)?;
    let patches = patches(&tokenizer, pictures, compute)?;
    let n_patches = patches.len();
    let mut sorts = sorts(patches, options.tolerance);
    let n_sorts = sorts.len();
    sorts.truncate(options.most);
    let report = PatchCodesReport { patches: n_patches, sorts: n_sorts, codes: sorts.len() };

    let entries = sorts.iter().flat_map(|sort| sort.latents.iter().map(|sum| (sum / sort.count) as f32));
    let entries: Vec<u8> = entries.flat_map(f32::to_le_bytes).collect();
    std::fs::create_dir_all(to).map_err(|source| Error::Write { file: to.to_owned(), source })?;
    let weights = Checkpoint::open(weights_file(from))?;
    let tensors = weights.names().filter_map(|name| weights.get(name)).map(|view| {
        let codebook = (view.name() == CODEBOOK).then(|| entries.clone());
        let (dtype, shape) = match &codebook {
            Some(_) => (Dtype::F32, vec![sorts.len(), tokenizer.config().embed_dim()]),
            None => (view.dtype(), view.shape().to_vec()),
        };
        let name = view.name().to_owned();
        let bytes = move || Ok(codebook.map_or_else(|| view.bytes().clone(), Into::into));
        (name, dtype, shape, bytes)
    });
    save_safetensors(to.join(WEIGHTS), tensors)?;
    save_bytes(to.join(CONFIG), tokenizer.config().with_n_codes(sorts.len())?.to_yaml().as_bytes())?;
    Ok(report)
}

/// The different patches of the pictures, each a sort of its own.
fn patches(
    tokenizer: &ImageTokenizer,
    pictures: impl IntoIterator<Item = RgbImage>,
    compute: &Compute,
) -> Result<Vec<Sort>> {
    let (factor, embed) = (tokenizer.config().factor(), tokenizer.config().embed_dim());
    let mut found: HashMap<Vec<u8>, Sort> = HashMap::new();
    for picture in pictures {
        let (width, height) = picture.dimensions();
        if width == 0 || height == 0 || !width.is_multiple_of(factor) || !height.is_multiple_of(factor) {
            let reason = format!("hold one of {width}x{height}; both sides must be multiples of {factor}");
            return Err(Error::Setting { field: "pictures", reason });
        }
        let (columns, rows) = (width / factor, height / factor);
        let pixels = TensorData::new(preprocess::to_tensor_values(&picture), [1, 3, height as usize, width as usize]);
        let latents = values(tokenizer.model().latents(Tensor::from_data(pixels, compute.options())))?;
        let plane = (columns * rows) as usize;
        for place in 0..columns * rows {
            let (x, y) = (place % columns * factor, place / columns * factor);
            let patch = imageops::crop_imm(&picture, x, y, factor, factor).to_image().into_raw();
            let sort = found.entry(patch).or_insert_with_key(|patch| Sort {
                patch: patch.clone(),
                count: 0.0,
                latents: vec![0.0; embed],
            });
            sort.count += 1.0;
            for (dimension, sum) in sort.latents.iter_mut().enumerate() {
                *sum += f64::from(latents[dimension * plane + place as usize]);
            }
        }
    }
    match found.len() {
        0 => Err(Error::Setting { field: "pictures", reason: "is empty; give at least one picture".to_owned() }),
        _ => Ok(found.into_values().collect()),
    }
}

/// Patches that look alike together, the most frequent first: a patch joins the first sort whose most frequent patch it
/// is like.
fn sorts(mut patches: Vec<Sort>, tolerance: f64) -> Vec<Sort> {
    let frequent_first = |a: &Sort, b: &Sort| b.count.total_cmp(&a.count).then_with(|| a.patch.cmp(&b.patch));
    patches.sort_by(frequent_first);
    let mut sorts: Vec<Sort> = Vec::new();
    for patch in patches {
        match sorts.iter_mut().find(|sort| distance(&sort.patch, &patch.patch) < tolerance) {
            Some(sort) => {
                sort.count += patch.count;
                sort.latents.iter_mut().zip(patch.latents).for_each(|(sum, other)| *sum += other);
            }
            None => sorts.push(patch),
        }
    }
    sorts.sort_by(frequent_first);
    sorts
}

/// The root mean square of the differences.
fn distance(a: &[u8], b: &[u8]) -> f64 {
    let squares: u64 = a.iter().zip(b).map(|(a, b)| u64::from(a.abs_diff(*b)).pow(2)).sum();
    (squares as f64 / a.len() as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_that_look_alike_are_one_sort() {
        let patch =
            |level: u8, count: f64| Sort { patch: vec![level; 12], count, latents: vec![count * f64::from(level)] };
        let patches = vec![patch(97, 1.0), patch(103, 5.0), patch(100, 9.0), patch(200, 3.0), patch(105, 1.0)];
        let found: Vec<(u8, f64, f64)> =
            sorts(patches.clone(), 4.0).iter().map(|sort| (sort.patch[0], sort.count, sort.latents[0])).collect();
        assert_eq!(found, [(100, 15.0, 97.0 + 515.0 + 900.0), (200, 3.0, 600.0), (105, 1.0, 105.0)]);
        assert_eq!(sorts(patches, 0.0).len(), 5, "nothing is alike");
    }
}
