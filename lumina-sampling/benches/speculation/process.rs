//! A synthetic process in the place of a model.

use std::sync::Arc;

use lumina_core::{TokenRole, reserved_token_name};
use lumina_sampling::Vocabulary;

/// `<s>`, image-start and two sizes.
pub(crate) const HEADER: usize = 4;
/// The id of the first image token.
pub(crate) const FIRST_ID: u32 = 4;

/// Dimensions of the embeddings.
const DIMENSIONS: usize = 16;
/// Image tokens.
pub(crate) const N_TOKENS: usize = 8192;
/// Candidates of a draw.
pub(crate) const TOP_K: usize = 2000;

/// An image as a model might generate it: logits that are a pure function of the tokens before.
///
/// A context vector is summed up of what the image is there (waves over the image, and noise by position), of what lies
/// above (embeddings of the upper neighbours' tokens), and of what the tokens before in the row have changed (vectors
/// of their own, decreasing slowly with the distance). Logits are its products with the tokens' embeddings.
pub(crate) struct Process {
    image: u32,
    rows: usize,
    columns: usize,
    settings: Settings,
    /// Unit vectors, `[dimensions, tokens]`.
    embeddings: Vec<f32>,
    transitions: Vec<f32>,
    /// For each dimension three waves: two slopes, a phase and a size.
    waves: Vec<[[f32; 4]; 3]>,
}

/// Sizes of the parts of the context.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// The factor of the logits.
    sharpness: f32,
    waves: f32,
    noise: f32,
    /// The token before.
    left: f32,
    /// The one before that; further ones are each less by the decay.
    tail: f32,
    decay: f32,
    /// The upper neighbours.
    up: f32,
}

/// The tokens before count more evenly. SJD has more tokens a pass on it than on a model, and MC-SJD
/// gains less over it.
pub(crate) const DIFFUSE: Settings =
    Settings { sharpness: 11.0, waves: 0.7, noise: 0.3, left: 0.15, tail: 0.15, decay: 0.97, up: 0.3 };

/// With these, SJD has as many tokens a pass as is published for Lumina-mGPT 7B.
pub(crate) const CALIBRATED: Settings =
    Settings { sharpness: 11.0, waves: 0.7, noise: 0.3, left: 0.35, tail: 0.1, decay: 0.95, up: 0.3 };

/// Numbers with mean 0 and variance 1, roughly normal.
fn normal(seed: u32) -> impl Iterator<Item = f32> {
    let mut uniform = lumina_testing::lcg(seed).map(|state| (state >> 8) as f32 / (1 << 24) as f32);
    std::iter::repeat_with(move || uniform.by_ref().take(12).sum::<f32>() - 6.0)
}

fn unit_vectors(seed: u32) -> Vec<f32> {
    let mut vectors: Vec<f32> = normal(seed).take(DIMENSIONS * N_TOKENS).collect();
    for token in 0..N_TOKENS {
        let norm = (0..DIMENSIONS).map(|d| vectors[d * N_TOKENS + token].powi(2)).sum::<f32>().sqrt();
        (0..DIMENSIONS).for_each(|d| vectors[d * N_TOKENS + token] /= norm);
    }
    vectors
}

impl Process {
    pub(crate) fn new(image: u32, rows: usize, columns: usize, settings: Settings) -> Self {
        let values: Vec<f32> = normal(image * 7919 + 1).take(12 * DIMENSIONS).collect();
        let waves = values.as_chunks::<4>().0.as_chunks::<3>().0.to_vec();
        let (embeddings, transitions) = (unit_vectors(77), unit_vectors(78));
        Self { image, rows, columns, settings, embeddings, transitions, waves }
    }

    /// Tokens of the rows and their ends.
    pub(crate) fn n_places(&self) -> usize {
        self.rows * (self.columns + 1)
    }

    /// Whether the token at a place is the end of a row.
    pub(crate) fn is_row_end(&self, place: usize) -> bool {
        place % (self.columns + 1) == self.columns
    }

    /// The logits at a place, `[tokens]`. `before(n)` is the token `n` places before, none for the end of a row.
    pub(crate) fn logits(&self, place: usize, before: impl Fn(usize) -> Option<usize>, logits: &mut Vec<f32>) {
        let Settings { sharpness, waves, noise, left, tail, decay, up } = self.settings;
        let row_tokens = self.columns + 1;
        let (x, y) = ((place % row_tokens) as f32 / 8.0, (place / row_tokens) as f32 / 8.0);
        let scale = 1.0 / (DIMENSIONS as f32).sqrt();
        let noise_seed = self.image ^ (place as u32).wrapping_mul(0x9e37_79b9);
        let mut context = [0f32; DIMENSIONS];
        for ((value, three), normal) in context.iter_mut().zip(&self.waves).zip(normal(noise_seed)) {
            let wave = |[a, b, phase, size]: [f32; 4]| size * (a * x + b * y + 3.0 * phase).sin();
            *value = scale * (waves * 0.8 * three.iter().copied().map(wave).sum::<f32>() + noise * normal);
        }
        let lefts = (1..=48).map(|n| (n, if n == 1 { left } else { tail * decay.powi(n as i32 - 2) }));
        let above = [(row_tokens, 1.0), (row_tokens + 1, 0.5), (row_tokens - 1, 0.5), (2 * row_tokens, 0.5)];
        let lefts = lefts.map(|(back, weight)| (&self.transitions, back, weight));
        let above = above.into_iter().map(|(back, part)| (&self.embeddings, back, part * up));
        for (vectors, back, weight) in lefts.chain(above) {
            let Some(token) = (back <= place).then(|| before(back)).flatten() else { continue };
            for (d, value) in context.iter_mut().enumerate() {
                *value += weight * vectors[d * N_TOKENS + token];
            }
        }
        logits.clear();
        logits.resize(N_TOKENS, 0.0);
        for (value, embeddings) in context.iter().zip(self.embeddings.chunks_exact(N_TOKENS)) {
            let factor = value * sharpness;
            logits.iter_mut().zip(embeddings).for_each(|(logit, embedding)| *logit += factor * embedding);
        }
    }
}

/// Names and ids as in the published models.
pub(crate) fn vocabulary() -> Arc<Vocabulary> {
    let fixed = [("<s>", 0), ("<pad>", 1), ("<eoss>", 8196), ("<racm3:break>", 8197), ("<|image|>", 65_535)];
    let images = (0..8192).map(|code| (TokenRole::Code(code).name().expect("a name"), FIRST_ID + code));
    let reserved = (8706..9200).map(|number| (reserved_token_name(number).into(), number + 4));
    let tokens: Vec<_> = images.chain(reserved).chain(fixed.map(|(name, id)| (name.into(), id))).collect();
    Arc::new(Vocabulary::from_tokens(tokens.iter().map(|(name, id)| (name.as_ref(), *id))).expect("complete"))
}
