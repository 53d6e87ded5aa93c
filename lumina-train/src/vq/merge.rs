//! A smaller codebook: codes that stand for the same pixels become one.

use std::path::Path;

use image::{RgbImage, imageops};
use lumina_core::Compute;
use lumina_core::checkpoint::{Checkpoint, Dtype, save_bytes, save_safetensors};
use lumina_vq::ImageTokenizer;

use super::init::{CONFIG, WEIGHTS, weights_file};
use super::tensors::values;
use crate::{Error, Result};

/// How codes are merged.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct MergeOptions {
    /// Codes whose patches differ by less become one: root mean square over the pixels, in levels of 8 bits.
    pub tolerance: f64,
    /// Entries that the codebook has at least. Those for which there is no code are free: so far from all latents that
    /// none chooses them, until training gives them away ([`VqTrainingOptions::revive_after`]) to what is badly coded.
    ///
    /// [`VqTrainingOptions::revive_after`]: super::VqTrainingOptions::revive_after
    pub n_codes: usize,
}

/// What [`merge_codes`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MergeReport {
    /// Entries of the codebook before.
    pub before: usize,
    /// Those of them that the pictures use.
    pub used: usize,
    /// Those that are left.
    pub after: usize,
}

/// The tensor with the entries.
const CODEBOOK: &str = "quantize.embedding.weight";

/// Each number of an entry that nothing is near. It is finite in `f16`, too.
const FAR: f32 = 1e4;

/// What the pictures say about a code.
#[derive(Debug, Clone)]
struct Code {
    index: usize,
    count: f64,
    /// The mean of the patches that it was chosen for, levels of 0 to 255.
    patch: Vec<f64>,
}

/// Writes the image tokenizer of the folder `from` to the folder `to` with fewer codes: of those that `pictures` use, codes
/// whose patches differ by less than `tolerance` become one, and the others go.
///
/// The group norms of a VQGAN let the whole picture into every latent, so that patches that look the same are spread over
/// many codes. Which of them it is says nothing about the patch, yet a language model has to predict it: bits of noise
/// in each token, under which the few that matter drown; and what is rare has no code of its own. Two codes are compared by the mean of the patches that each is
/// chosen for. A code that takes up others is
/// the mean of their entries by use. Train on for a while afterwards, so that encoder and decoder get used to it.
///
/// # Errors
/// [`Error::Setting`] where there are no pictures, [`Error::Images`] where one cannot be encoded, [`Error::Write`] and
/// [`Error::Core`] for files.
pub fn merge_codes(
    from: impl AsRef<Path>,
    to: impl AsRef<Path>,
    pictures: impl IntoIterator<Item = RgbImage>,
    options: MergeOptions,
    compute: &Compute,
) -> Result<MergeReport> {
    let (from, to) = (from.as_ref(), to.as_ref());
    let tokenizer = ImageTokenizer::open(from, compute)?;
    let codes = used_codes(&tokenizer, pictures)?;
    let groups = group(&codes, options.tolerance);
    let report = MergeReport { before: tokenizer.config().n_codes(), used: codes.len(), after: groups.len() };

    let embed = tokenizer.config().embed_dim();
    let entries = values(tokenizer.model().codebook())?;
    let merged = groups.iter().flat_map(|members| mean_entry(members, &entries, embed));
    let n_codes = options.n_codes.max(groups.len());
    let free = std::iter::repeat_n(FAR, (n_codes - groups.len()) * embed);
    let merged: Vec<u8> = merged.chain(free).flat_map(f32::to_le_bytes).collect();

    std::fs::create_dir_all(to).map_err(|source| Error::Write { file: to.to_owned(), source })?;
    let weights = Checkpoint::open(weights_file(from))?;
    let views = weights.names().filter_map(|name| weights.get(name));
    let tensors = views.map(|view| {
        let codebook = (view.name() == CODEBOOK).then(|| merged.clone());
        let (dtype, shape) = match &codebook {
            Some(_) => (Dtype::F32, vec![n_codes, embed]),
            None => (view.dtype(), view.shape().to_vec()),
        };
        let name = view.name().to_owned();
        let bytes = move || Ok(codebook.map_or_else(|| view.bytes().clone(), Into::into));
        (name, dtype, shape, bytes)
    });
    save_safetensors(to.join(WEIGHTS), tensors)?;
    save_bytes(to.join(CONFIG), tokenizer.config().with_n_codes(n_codes)?.to_yaml().as_bytes())?;
    Ok(report)
}

/// The codes that occur in the pictures, the most used first.
fn used_codes(tokenizer: &ImageTokenizer, pictures: impl IntoIterator<Item = RgbImage>) -> Result<Vec<Code>> {
    let factor = tokenizer.config().factor();
    let mut codes: Vec<Code> = (0..tokenizer.config().n_codes())
        .map(|index| Code { index, count: 0.0, patch: vec![0.0; (3 * factor * factor) as usize] })
        .collect();
    for picture in pictures {
        let grid = tokenizer.encode(&picture)?;
        for (place, &code) in (0..).zip(grid.codes()) {
            let (column, row) = (place % grid.columns(), place / grid.columns());
            let patch = imageops::crop_imm(&picture, column * factor, row * factor, factor, factor).to_image();
            let code = &mut codes[code as usize];
            code.count += 1.0;
            code.patch.iter_mut().zip(patch.iter()).for_each(|(sum, &level)| *sum += f64::from(level));
        }
    }
    codes.retain(|code| code.count > 0.0);
    if codes.is_empty() {
        return Err(Error::Setting { field: "pictures", reason: "is empty; give at least one picture".to_owned() });
    }
    for code in &mut codes {
        code.patch.iter_mut().for_each(|sum| *sum /= code.count);
    }
    codes.sort_by(|a, b| b.count.total_cmp(&a.count).then(a.index.cmp(&b.index)));
    Ok(codes)
}

/// The codes in groups that become one each: a code joins the first group whose most used code looks like it.
fn group(codes: &[Code], tolerance: f64) -> Vec<Vec<&Code>> {
    let mut groups: Vec<Vec<&Code>> = Vec::new();
    for code in codes {
        match groups.iter_mut().find(|members| distance(&members[0].patch, &code.patch) < tolerance) {
            Some(members) => members.push(code),
            None => groups.push(vec![code]),
        }
    }
    groups
}

/// The root mean square of the differences.
fn distance(a: &[f64], b: &[f64]) -> f64 {
    let squares: f64 = a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum();
    (squares / a.len() as f64).sqrt()
}

/// The mean of the members' entries by use.
fn mean_entry(members: &[&Code], entries: &[f32], embed: usize) -> Vec<f32> {
    let total: f64 = members.iter().map(|code| code.count).sum();
    let value = |dimension: usize| {
        let sum: f64 = members.iter().map(|code| code.count * f64::from(entries[code.index * embed + dimension])).sum();
        (sum / total) as f32
    };
    (0..embed).map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(index: usize, count: f64, level: f64) -> Code {
        Code { index, count, patch: vec![level; 12] }
    }

    #[test]
    fn codes_that_look_alike_are_grouped_around_the_most_used() {
        let codes =
            [code(4, 9.0, 100.0), code(0, 5.0, 103.0), code(2, 3.0, 200.0), code(1, 1.0, 97.5), code(3, 1.0, 105.0)];
        let groups = group(&codes, 4.0);
        let indices: Vec<Vec<usize>> =
            groups.iter().map(|members| members.iter().map(|code| code.index).collect()).collect();
        assert_eq!(indices, [vec![4, 0, 1], vec![2], vec![3]]);
        assert_eq!(group(&codes, 0.0).len(), 5, "nothing is alike");
    }

    #[test]
    fn a_group_has_the_mean_of_its_entries_by_use() {
        let (a, b) = (code(0, 3.0, 0.0), code(2, 1.0, 0.0));
        let entries = [1.0, 2.0, 9.0, 9.0, 5.0, -2.0];
        assert_eq!(mean_entry(&[&a, &b], &entries, 2), [2.0, 1.0]);
    }
}
