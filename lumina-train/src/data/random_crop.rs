//! The size and the part of an image that go into an item.

use lumina_core::ImageSize;
use lumina_vq::preprocess::{Crop, InputImage, Preprocessor};
use rand_chacha::ChaCha12Rng;

use super::random::{below, generator};
use crate::Result;

/// How images are cropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CropChoice {
    /// To the size that suits best, in the middle, as at inference.
    Center,
    /// To one of the sizes that suit best, anywhere. What is drawn depends on the seed and the item alone.
    Random {
        /// The seed.
        seed: u64,
        /// Of how many sizes one is drawn, best first: 1 always takes the best, as the original's training.
        best_of: u32,
    },
}

/// Draws the crops of one item, an image after the other.
pub(super) struct Crops {
    choice: CropChoice,
    random: ChaCha12Rng,
}

impl Crops {
    pub(super) fn new(choice: CropChoice, item: u64) -> Self {
        let seed = match choice {
            CropChoice::Center => 0,
            CropChoice::Random { seed, .. } => seed,
        };
        Self { choice, random: generator(b"crop    ", seed, item) }
    }

    /// Size and crop of the item's next image.
    pub(super) fn draw(&mut self, preprocessor: &Preprocessor, image: &InputImage) -> Result<(ImageSize, Crop)> {
        let ranked = preprocessor.ranked_sizes(image);
        match self.choice {
            CropChoice::Center => Ok((ranked[0], Crop::Center)),
            CropChoice::Random { best_of, .. } => {
                let n_sizes = u64::from(best_of).clamp(1, ranked.len() as u64);
                let size = ranked[below(&mut self.random, n_sizes) as usize];
                let fit = preprocessor.fit(image, size)?;
                let mut offset = |max: u32| below(&mut self.random, u64::from(max) + 1) as u32;
                let left = offset(fit.max_left());
                Ok((size, Crop::At { left, top: offset(fit.max_top()) }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn draws_depend_on_seed_and_item_and_cover_all_crops() {
        let preprocessor = Preprocessor::new(128).unwrap();
        let image = InputImage::from(image::RgbImage::new(150, 100));
        let draw = |choice, item| Crops::new(choice, item).draw(&preprocessor, &image).unwrap();
        let sizes_of = |best_of| -> BTreeSet<ImageSize> {
            (0..200).map(|item| draw(CropChoice::Random { seed: 1, best_of }, item).0).collect()
        };
        let ranked = preprocessor.ranked_sizes(&image);
        assert_eq!(draw(CropChoice::Center, 0), (ranked[0], Crop::Center));
        assert_eq!(sizes_of(0), BTreeSet::from([ranked[0]]));
        assert_eq!(sizes_of(3), ranked[..3].iter().copied().collect());
        assert_eq!(sizes_of(u32::MAX).len(), ranked.len());

        let fit = preprocessor.fit(&image, ranked[0]).unwrap();
        let at = |seed, item| match draw(CropChoice::Random { seed, best_of: 1 }, item).1 {
            Crop::At { left, top } => (left, top),
            Crop::Center => (0, 0),
        };
        let drawn: BTreeSet<_> = (0..400).map(|item| at(1, item)).collect();
        let possible = (fit.max_left() + 1) * (fit.max_top() + 1);
        assert!(possible > 1 && possible < 60 && drawn.len() == possible as usize, "{drawn:?} of {possible}");
        assert!((0..20).any(|item| at(1, item) != at(2, item)));
        assert!((0..20).all(|item| at(1, item) == at(1, item)));
    }
}
