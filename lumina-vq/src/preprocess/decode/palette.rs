//! Palettes of PNG, GIF and TIFF files.

use super::encoded::EncodedImage;
use crate::Result;

/// The colours of a palette's 256 indices.
pub(super) struct Palette(pub(super) [[u8; 4]; 256]);

impl Palette {
    /// A palette from the RGB triples of a file. The remaining indices are black, as in Pillow.
    pub(super) fn new(rgb: &[u8]) -> Self {
        let mut colors = [[0, 0, 0, 255]; 256];
        for (color, rgb) in colors.iter_mut().zip(rgb.as_chunks::<3>().0) {
            color[..3].copy_from_slice(rgb);
        }
        Self(colors)
    }

    /// Whether the first `n` colours are the greys 0, 1, 2, …: the indices are then grey values.
    pub(super) fn is_grey(&self, n: usize) -> bool {
        self.0.iter().zip(0..=255u8).take(n).all(|(color, grey)| color[..3] == [grey; 3])
    }

    fn is_opaque(&self) -> bool {
        self.0.iter().all(|color| color[3] == 255)
    }

    /// The colours of indices: the number of channels, 3 or 4, and the samples.
    pub(super) fn look_up(&self, encoded: &EncodedImage<'_>, indices: &[u8]) -> Result<(usize, Vec<u8>)> {
        let channels = if self.is_opaque() { 3 } else { 4 };
        let mut samples = encoded.zeroed(channels * indices.len())?;
        for (sample, &index) in samples.chunks_exact_mut(channels).zip(indices) {
            sample.copy_from_slice(&self.0[usize::from(index)][..channels]);
        }
        Ok((channels, samples))
    }
}
