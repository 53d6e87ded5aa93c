//! Codes by the look of patches, for images that are made of few kinds of them.

use std::collections::HashMap;
use std::path::Path;

use image::{RgbImage, imageops};
use lumina_checkpoint::{Checkpoint, Dtype, save_bytes, save_safetensors};
use lumina_nn::Compute;
use lumina_vq::{Bands, ImageTokenizer, Maps, preprocess};

use super::init::WEIGHTS;
use crate::{Error, Result};

/// Which patches are of one cluster, and how many clusters get a code.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct PatchClusterOptions {
    /// Patches that differ by less are of one cluster: root mean square over the pixels, in levels of 8 bits.
    pub tolerance: f64,
    /// The most clusters; those whose patches occur most often.
    #[serde(alias = "most")]
    pub max_clusters: usize,
}

/// The tensor with the entries.
const CODEBOOK: &str = "quantize.embedding.weight";

/// The clusters of alike patches that images are made of, each with a number: its code.
///
/// This is for images that are made of few kinds of patches. The group norms of a VQGAN let the whole image influence
/// every latent, so that patches which look the same have different latents. A codebook that is learnt from the latents
/// then has a hundred codes for plain background, which is most of an image, and one code for patches that differ in a
/// corner. Which of the hundred it is carries no information, yet a language model has to predict it; and patches that
/// share a code cannot be told apart.
///
/// Train encoder and decoder without a codebook first ([`VqTrainingOptions::quantize_from`]), make a codebook of the
/// clusters with [`codebook_from_patches`], and train on with [`VqTrainer::with_clusters`] and a high
/// [`VqTrainingOptions::commitment_weight`], which draws the latents of each cluster to its code.
///
/// [`VqTrainer::with_clusters`]: super::VqTrainer::with_clusters
/// [`VqTrainingOptions::quantize_from`]: super::VqTrainingOptions::quantize_from
/// [`VqTrainingOptions::commitment_weight`]: super::VqTrainingOptions::commitment_weight
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatchClusters {
    /// Side of a patch in pixels.
    side: u32,
    /// The cluster of each patch.
    codes: HashMap<Vec<u8>, u32>,
    /// Number of clusters.
    len: usize,
}

impl PatchClusters {
    /// The clusters of the patches of `side` pixels in some images, the most frequent first.
    ///
    /// # Errors
    /// [`Error::NoImages`]; [`Error::OutOfRange`] where no clusters are allowed; [`Error::ImageSize`] where a side of
    /// an image is not a multiple of `side`.
    pub fn of(images: impl IntoIterator<Item = RgbImage>, side: u32, options: PatchClusterOptions) -> Result<Self> {
        if options.max_clusters == 0 {
            let (value, expected) = ("0".to_owned(), "at least 1".to_owned());
            return Err(Error::OutOfRange { field: "max_clusters", value, expected });
        }
        let mut counts: HashMap<Vec<u8>, u64> = HashMap::new();
        for image in images {
            for patch in patches(&image, side)? {
                *counts.entry(patch).or_default() += 1;
            }
        }
        if counts.is_empty() {
            return Err(Error::NoImages);
        }
        let clusters = clusters(counts.into_iter().collect(), options.tolerance);
        let len = clusters.len().min(options.max_clusters);
        let codes = (0..).zip(clusters.into_iter().take(len));
        let codes = codes.flat_map(|(code, cluster)| cluster.patches.into_iter().map(move |patch| (patch, code)));
        Ok(Self { side, codes: codes.collect(), len })
    }

    /// Number of clusters.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Tells these clusters from others: their number, the side of a patch, and a checksum of the patches.
    pub(super) fn fingerprint(&self) -> String {
        // The order of a map is another one each time, so the checksums are added up.
        let patches = self.codes.iter().map(|(patch, code)| {
            let mut crc32 = crc32fast::Hasher::new();
            crc32.update(patch);
            crc32.update(&code.to_le_bytes());
            crc32.finalize()
        });
        let sum = patches.fold(0u32, u32::wrapping_add);
        format!("{} clusters of patches of {} pixels, checksum {sum:08x}", self.len, self.side)
    }

    /// Never: there is at least one cluster.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The code of each patch of an image, row by row; `None` for a patch of no cluster.
    ///
    /// # Errors
    /// [`Error::ImageSize`] where a side of the image is not a multiple of that of a patch.
    pub fn codes(&self, image: &RgbImage) -> Result<Vec<Option<u32>>> {
        Ok(patches(image, self.side)?.map(|patch| self.codes.get(&patch).copied()).collect())
    }
}

/// Writes the image tokenizer of the folder `from` to the folder `to` with a new codebook: for each cluster the mean of
/// the latents that its patches have in the images.
///
/// # Errors
/// [`Error::PatchSide`] where the clusters are of patches of another size, [`Error::EmptyCluster`] where no image has a
/// patch of one, [`Error::ImageSize`]; [`Error::Images`] where the tokenizer cannot be opened, [`Error::Write`] and
/// [`Error::Checkpoint`] for files.
pub fn codebook_from_patches(
    from: impl AsRef<Path>,
    to: impl AsRef<Path>,
    images: impl IntoIterator<Item = RgbImage>,
    clusters: &PatchClusters,
    compute: &Compute,
) -> Result<()> {
    let (from, to) = (from.as_ref(), to.as_ref());
    let tokenizer = ImageTokenizer::open(from, compute)?;
    let (factor, embed) = (tokenizer.config().factor(), tokenizer.config().embed_dim());
    if factor != clusters.side {
        return Err(Error::PatchSide { found: clusters.side, expected: factor });
    }
    let (mut sums, mut counts) = (vec![0.0f64; clusters.len * embed], vec![0.0f64; clusters.len]);
    for image in images {
        let codes = clusters.codes(&image)?;
        let (width, height) = image.dimensions();
        let shape = [1, 3, height as usize, width as usize];
        let pixels = Maps::new(compute, preprocess::to_tensor_values(&image), shape);
        let latents = tokenizer.model().latents(pixels, Bands::Whole)?.read()?;
        for (place, &code) in codes.iter().enumerate() {
            let Some(code) = code.map(|code| code as usize) else { continue };
            counts[code] += 1.0;
            for (dimension, sum) in sums[code * embed..][..embed].iter_mut().enumerate() {
                *sum += f64::from(latents[dimension * codes.len() + place]);
            }
        }
    }
    if let Some(cluster) = counts.iter().position(|&count| count == 0.0) {
        return Err(Error::EmptyCluster { cluster });
    }
    let entries =
        sums.chunks_exact(embed).zip(&counts).flat_map(|(sums, count)| sums.iter().map(move |sum| sum / count));
    let entries: Vec<u8> = entries.flat_map(|entry| (entry as f32).to_le_bytes()).collect();
    std::fs::create_dir_all(to).map_err(|source| Error::Write { file: to.to_owned(), source })?;
    let weights = Checkpoint::open(ImageTokenizer::weights_file(from)?)?;
    let tensors = weights.names().filter_map(|name| weights.get(name)).map(|view| {
        let codebook = (view.name() == CODEBOOK).then(|| entries.clone());
        let (dtype, shape) = match &codebook {
            Some(_) => (Dtype::F32, vec![clusters.len, embed]),
            None => (view.dtype(), view.shape().to_vec()),
        };
        let name = view.name().to_owned();
        let bytes = move || Ok(codebook.map_or_else(|| view.bytes().clone(), Into::into));
        (name, dtype, shape, bytes)
    });
    save_safetensors(to.join(WEIGHTS), tensors)?;
    save_bytes(to.join(ImageTokenizer::CONFIG), tokenizer.config().with_n_codes(clusters.len)?.to_yaml().as_bytes())?;
    Ok(())
}

/// The patches of an image, row by row.
fn patches(image: &RgbImage, side: u32) -> Result<impl Iterator<Item = Vec<u8>>> {
    let (width, height) = image.dimensions();
    if width == 0 || height == 0 || !width.is_multiple_of(side) || !height.is_multiple_of(side) {
        return Err(Error::ImageSize { width, height, multiple: side });
    }
    let places = (0..height / side).flat_map(move |row| (0..width / side).map(move |column| (column, row)));
    Ok(places.map(move |(column, row)| {
        imageops::crop_imm(image, column * side, row * side, side, side).to_image().into_raw()
    }))
}

/// Patches that look alike, the most frequent first.
#[derive(Debug)]
struct Cluster {
    patches: Vec<Vec<u8>>,
    count: u64,
}

/// Clusters of the patches, each given with its number, the most frequent first: a patch belongs to the first cluster
/// whose most frequent patch is like it.
fn clusters(mut patches: Vec<(Vec<u8>, u64)>, tolerance: f64) -> Vec<Cluster> {
    patches.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let mut clusters: Vec<Cluster> = Vec::new();
    for (patch, count) in patches {
        match clusters.iter_mut().find(|cluster| distance(&cluster.patches[0], &patch) < tolerance) {
            Some(cluster) => {
                cluster.count += count;
                cluster.patches.push(patch);
            }
            None => clusters.push(Cluster { patches: vec![patch], count }),
        }
    }
    clusters.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.patches.cmp(&b.patches)));
    clusters
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
    fn patches_that_look_alike_are_one_cluster() {
        let patch = |level: u8, count: u64| (vec![level; 12], count);
        let patches = vec![patch(97, 1), patch(103, 5), patch(100, 9), patch(200, 3), patch(105, 1)];
        let found: Vec<(Vec<u8>, u64)> = clusters(patches.clone(), 4.0)
            .iter()
            .map(|cluster| (cluster.patches.iter().map(|patch| patch[0]).collect(), cluster.count))
            .collect();
        assert_eq!(found, [(vec![100, 103, 97], 15), (vec![200], 3), (vec![105], 1)]);
        assert_eq!(clusters(patches, 0.0).len(), 5, "nothing is alike");
    }
}
