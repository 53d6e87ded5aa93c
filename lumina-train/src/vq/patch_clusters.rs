//! Codes by the look of patches, for pictures that are made of few sorts of them.

use std::collections::HashMap;
use std::path::Path;

use burn::tensor::{Tensor, TensorData};
use image::{RgbImage, imageops};
use lumina_checkpoint::{Checkpoint, Dtype, save_bytes, save_safetensors};
use lumina_nn::Compute;
use lumina_vq::{ImageTokenizer, preprocess};

use super::init::{CONFIG, WEIGHTS, weights_file};
use crate::tensors::values;
use crate::{Error, Result};

/// Which patches are of one sort, and how many sorts get a code.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct PatchSortsOptions {
    /// Patches that differ by less are of one sort: root mean square over the pixels, in levels of 8 bits.
    pub tolerance: f64,
    /// Sorts at most; those that occur most often.
    pub most: usize,
}

/// The tensor with the entries.
const CODEBOOK: &str = "quantize.embedding.weight";

/// The sorts of patches that pictures are made of, each with a number: its code.
///
/// This is for pictures that are made of few sorts of patches. The group norms of a VQGAN let the whole picture into every
/// latent, so that what looks the same is spread: a codebook that follows the latents gives plain background, which is
/// most of a picture, a hundred codes, and patches that differ in a corner share one. Which of the hundred it is says
/// nothing, yet a language model has to predict it; and what shares a code cannot be told apart by any.
///
/// Begin with an encoder and a decoder that agree without a codebook ([`VqTrainingOptions::quantize_from`]), make a codebook
/// of the sorts with [`codes_from_patches`], and train on with [`VqTrainer::assign`] and a high
/// [`VqTrainingOptions::commitment_weight`], which draws the latents of each sort to its code.
///
/// [`VqTrainer::assign`]: super::VqTrainer::assign
/// [`VqTrainingOptions::quantize_from`]: super::VqTrainingOptions::quantize_from
/// [`VqTrainingOptions::commitment_weight`]: super::VqTrainingOptions::commitment_weight
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatchSorts {
    /// Side of a patch in pixels.
    side: u32,
    /// The sort of each patch that was seen.
    codes: HashMap<Vec<u8>, u32>,
    /// Number of sorts.
    len: usize,
}

impl PatchSorts {
    /// The sorts of patches of `side` pixels in some pictures, the most frequent first.
    ///
    /// # Errors
    /// [`Error::Setting`] where there are no pictures or sorts, or a side of a picture is no multiple of `side`.
    pub fn of(pictures: impl IntoIterator<Item = RgbImage>, side: u32, options: PatchSortsOptions) -> Result<Self> {
        if options.most == 0 {
            return Err(Error::Setting { field: "most", reason: "is 0; there is at least one sort".to_owned() });
        }
        let mut counts: HashMap<Vec<u8>, u64> = HashMap::new();
        for picture in pictures {
            for patch in patches(&picture, side)? {
                *counts.entry(patch).or_default() += 1;
            }
        }
        if counts.is_empty() {
            return Err(no_pictures());
        }
        let sorts = sorts(counts.into_iter().collect(), options.tolerance);
        let len = sorts.len().min(options.most);
        let codes = (0..).zip(sorts.into_iter().take(len));
        let codes = codes.flat_map(|(code, sort)| sort.patches.into_iter().map(move |patch| (patch, code)));
        Ok(Self { side, codes: codes.collect(), len })
    }

    /// Number of sorts.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never: there is at least one sort.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The code of each patch of a picture, row by row; `None` for a patch that is of no sort.
    ///
    /// # Errors
    /// [`Error::Setting`] where a side of the picture is no multiple of that of a patch.
    pub fn codes(&self, picture: &RgbImage) -> Result<Vec<Option<u32>>> {
        Ok(patches(picture, self.side)?.map(|patch| self.codes.get(&patch).copied()).collect())
    }
}

/// Writes the image tokenizer of the folder `from` to the folder `to` with a new codebook: for each sort of patch the mean of
/// the latents that its patches have in `pictures`.
///
/// # Errors
/// [`Error::Setting`] where the sorts are of patches of another size, or one is in no picture; [`Error::Images`] where the
/// tokenizer cannot be opened, [`Error::Write`] and [`Error::Checkpoint`] for files.
pub fn codes_from_patches(
    from: impl AsRef<Path>,
    to: impl AsRef<Path>,
    pictures: impl IntoIterator<Item = RgbImage>,
    sorts: &PatchSorts,
    compute: &Compute,
) -> Result<()> {
    let (from, to) = (from.as_ref(), to.as_ref());
    let tokenizer = ImageTokenizer::open(from, compute)?;
    let (factor, embed) = (tokenizer.config().factor(), tokenizer.config().embed_dim());
    if factor != sorts.side {
        let reason = format!("are of {} pixels a side; a code of this tokenizer is {factor}", sorts.side);
        return Err(Error::Setting { field: "sorts", reason });
    }
    let (mut sums, mut counts) = (vec![0.0f64; sorts.len * embed], vec![0.0f64; sorts.len]);
    for picture in pictures {
        let codes = sorts.codes(&picture)?;
        let (width, height) = picture.dimensions();
        let pixels = TensorData::new(preprocess::to_tensor_values(&picture), [1, 3, height as usize, width as usize]);
        let latents = values(tokenizer.model().latents(Tensor::from_data(pixels, compute.options())))?;
        for (place, &code) in codes.iter().enumerate() {
            let Some(code) = code.map(|code| code as usize) else { continue };
            counts[code] += 1.0;
            for (dimension, sum) in sums[code * embed..][..embed].iter_mut().enumerate() {
                *sum += f64::from(latents[dimension * codes.len() + place]);
            }
        }
    }
    if let Some(missing) = counts.iter().position(|&count| count == 0.0) {
        let reason = format!("have no patch of sort {missing}; give those that the sorts are of");
        return Err(Error::Setting { field: "pictures", reason });
    }
    let entries =
        sums.chunks_exact(embed).zip(&counts).flat_map(|(sums, count)| sums.iter().map(move |sum| sum / count));
    let entries: Vec<u8> = entries.flat_map(|entry| (entry as f32).to_le_bytes()).collect();
    std::fs::create_dir_all(to).map_err(|source| Error::Write { file: to.to_owned(), source })?;
    let weights = Checkpoint::open(weights_file(from))?;
    let tensors = weights.names().filter_map(|name| weights.get(name)).map(|view| {
        let codebook = (view.name() == CODEBOOK).then(|| entries.clone());
        let (dtype, shape) = match &codebook {
            Some(_) => (Dtype::F32, vec![sorts.len, embed]),
            None => (view.dtype(), view.shape().to_vec()),
        };
        let name = view.name().to_owned();
        let bytes = move || Ok(codebook.map_or_else(|| view.bytes().clone(), Into::into));
        (name, dtype, shape, bytes)
    });
    save_safetensors(to.join(WEIGHTS), tensors)?;
    save_bytes(to.join(CONFIG), tokenizer.config().with_n_codes(sorts.len)?.to_yaml().as_bytes())?;
    Ok(())
}

fn no_pictures() -> Error {
    Error::Setting { field: "pictures", reason: "is empty; give at least one picture".to_owned() }
}

/// The patches of a picture, row by row.
fn patches(picture: &RgbImage, side: u32) -> Result<impl Iterator<Item = Vec<u8>>> {
    let (width, height) = picture.dimensions();
    if width == 0 || height == 0 || !width.is_multiple_of(side) || !height.is_multiple_of(side) {
        let reason = format!("hold one of {width}x{height}; both sides must be multiples of {side}");
        return Err(Error::Setting { field: "pictures", reason });
    }
    let places = (0..height / side).flat_map(move |row| (0..width / side).map(move |column| (column, row)));
    Ok(places.map(move |(column, row)| {
        imageops::crop_imm(picture, column * side, row * side, side, side).to_image().into_raw()
    }))
}

/// Patches of one look, the most frequent first.
#[derive(Debug)]
struct Sort {
    patches: Vec<Vec<u8>>,
    count: u64,
}

/// Patches that look alike together, the most frequent first: a patch joins the first sort whose most frequent patch it
/// is like.
fn sorts(mut patches: Vec<(Vec<u8>, u64)>, tolerance: f64) -> Vec<Sort> {
    patches.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let mut sorts: Vec<Sort> = Vec::new();
    for (patch, count) in patches {
        match sorts.iter_mut().find(|sort| distance(&sort.patches[0], &patch) < tolerance) {
            Some(sort) => {
                sort.count += count;
                sort.patches.push(patch);
            }
            None => sorts.push(Sort { patches: vec![patch], count }),
        }
    }
    sorts.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.patches.cmp(&b.patches)));
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
        let patch = |level: u8, count: u64| (vec![level; 12], count);
        let patches = vec![patch(97, 1), patch(103, 5), patch(100, 9), patch(200, 3), patch(105, 1)];
        let found: Vec<(Vec<u8>, u64)> = sorts(patches.clone(), 4.0)
            .iter()
            .map(|sort| (sort.patches.iter().map(|patch| patch[0]).collect(), sort.count))
            .collect();
        assert_eq!(found, [(vec![100, 103, 97], 15), (vec![200], 3), (vec![105], 1)]);
        assert_eq!(sorts(patches, 0.0).len(), 5, "nothing is alike");
    }
}
