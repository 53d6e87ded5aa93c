//! More than a million tokens, and each is that of plain decoding.

use lumina_sampling::speculation::DraftKind;
use lumina_sampling::{ImageSize, Modality, SamplingOptions, Speculation};

use crate::model::{By, Model, N_CODES, plain, speculative};

/// An image-like model: the tokens before and above count, and some tokens are likelier than others everywhere.
const IMAGE: [f32; 4] = [2.0, 0.7, 1.2, 2.0];

/// Compares answers, and counts tokens and passes.
#[derive(Debug, Default)]
struct Count {
    tokens: usize,
    passes: usize,
    accepted: [usize; DraftKind::ALL.len()],
}

impl Count {
    fn compare(
        &mut self,
        options: &SamplingOptions,
        models: &[Model; 2],
        prompt: &[u32],
        settings: &[(Speculation, By)],
    ) {
        let expected = plain(options, models, prompt);
        for &(speculation, by) in settings {
            let options = options.clone().speculation(speculation);
            let answer = speculative(&options, models, prompt, 128, by);
            assert!(answer.tokens == expected, "{options:?}, {by:?}");
            self.tokens += expected.len() - prompt.len();
            self.passes += answer.passes;
            let statistics = answer.speculator.statistics();
            assert_eq!(statistics.passes, answer.passes);
            for (accepted, kind) in self.accepted.iter_mut().zip(DraftKind::ALL) {
                *accepted += statistics.drafts(kind).accepted;
            }
        }
    }

    fn accepted(&self, kind: DraftKind) -> usize {
        self.accepted[kind as usize]
    }
}

/// Options of all kinds for images, from a seed.
fn image_options(seed: u64) -> SamplingOptions {
    let index = seed as usize;
    let size = ImageSize::from_cells(2 + seed as u32 % 7, 3 + seed as u32 % 6).unwrap();
    let mut options = SamplingOptions::default()
        .seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
        .modality(Modality::Image)
        .guidance_scale([1.0, 4.0, 2.5][index % 3])
        .temperature([1.0, 0.5, 1.7][index / 3 % 3])
        .image_top_k([1, 10, 2000, usize::MAX][index / 9 % 4]);
    options.image_size = (!seed.is_multiple_of(5)).then_some(size);
    options.branch = seed % 2;
    options.greedy = seed % 16 == 15;
    options.top_p = (seed % 7 == 6).then_some(0.9);
    options.min_p = (seed % 11 == 10).then_some(0.05);
    options
}

fn image_models(seed: u64) -> [Model; 2] {
    [Model::new(seed as u32, IMAGE), Model::new(!seed as u32, IMAGE.map(|scale| scale / 2.0))]
}

fn windows(seed: u64) -> [Speculation; 4] {
    let all = [1, 2, 3, 5, 8, 13, 16, 24, 32, 48, 64, 128];
    [0, 3, 6, 9].map(|index| Speculation::Window(all[(seed as usize + index) % all.len()]))
}

#[test]
fn images_in_windows() {
    let mut count = Count::default();
    for seed in 0..1200 {
        let settings = windows(seed).map(|window| (window, By::Logits));
        count.compare(&image_options(seed), &image_models(seed), &[0], &settings);
    }
    assert!(count.tokens > 550_000, "{count:?}");
    assert!(count.passes * 2 < count.tokens, "{count:?}");
    for kind in [DraftKind::Forced, DraftKind::Stale, DraftKind::Neighbours] {
        assert!(count.accepted(kind) > 1000, "{count:?}");
    }
}

#[test]
fn images_in_trees() {
    let mut count = Count::default();
    for seed in 2000..2900 {
        let of = |window, depth, width| (Speculation::Tree { window, depth, width }, By::Logits);
        let settings = [of(3, 1, 2), of(16, 2, 4), of(40, 8, 3), of(64, 3, 8)];
        count.compare(&image_options(seed), &image_models(seed), &[0], &settings);
    }
    assert!(count.tokens > 400_000, "{count:?}");
    assert!(count.passes * 2 < count.tokens, "{count:?}");
    assert!(count.accepted(DraftKind::RunnerUp) > 1000, "{count:?}");
}

#[test]
fn images_that_a_device_draws() {
    let mut count = Count::default();
    for seed in 3000..3300 {
        let tree = Speculation::Tree { window: 32, depth: 2, width: 4 };
        let settings = [Speculation::Auto, windows(seed)[1], tree].map(|setting| (setting, By::Draws));
        count.compare(&image_options(seed), &image_models(seed), &[0], &settings);
    }
    assert!(count.tokens > 100_000, "{count:?}");
    assert!(count.accepted(DraftKind::RunnerUp) > 100, "{count:?}");
}

/// Text that repeats itself, and the prompt; with a penalty, which depends on the text before.
#[test]
fn text_with_lookup() {
    let mut count = Count::default();
    let prompt: Vec<u32> = std::iter::once(0).chain((0..200).map(|n| 4 + N_CODES + 14 + n * n % 17)).collect();
    for seed in 0..150u64 {
        let mut options = SamplingOptions::default()
            .seed(seed)
            .modality(Modality::Text)
            .temperature([1.0, 0.5][seed as usize % 2])
            .text_top_k([10, 1, 40, usize::MAX][seed as usize % 4]);
        options.repetition_penalty = (seed % 3 == 2).then_some(1.2);
        options.greedy = seed % 8 == 7;
        let models = [Model::new(seed as u32, [6.0, 3.0, 0.0, 0.0]), Model::new(0, [0.0; 4])];
        let settings = [Speculation::Window(1), Speculation::Window(8), Speculation::Auto];
        let settings = settings.map(|setting| (setting, By::Logits));
        count.compare(&options, &models, &prompt, &settings);
        count.compare(&options, &models, &prompt, &[(Speculation::Window(6), By::Draws)]);
    }
    assert!(count.tokens > 100_000, "{count:?}");
    assert!(count.accepted(DraftKind::Lookup) > 10_000, "{count:?}");
}

/// Text and images in turn, their sizes drawn.
#[test]
fn text_and_images() {
    let mut count = Count::default();
    for seed in 0..60 {
        let options = SamplingOptions::default().seed(seed).guidance_scale([1.0, 3.0][seed as usize % 2]);
        let settings = [Speculation::Window(7), Speculation::Tree { window: 40, depth: 3, width: 4 }];
        let settings = settings.map(|setting| (setting, By::Logits));
        count.compare(&options, &image_models(seed), &[0, 80, 81], &settings);
    }
    assert!(count.tokens > 20_000, "{count:?}");
}

#[test]
fn off_is_one_token_a_pass() {
    for seed in 0..20 {
        let options = image_options(seed).speculation(Speculation::Off);
        let answer = speculative(&options, &image_models(seed), &[0], 128, By::Logits);
        assert_eq!(answer.tokens, plain(&options, &image_models(seed), &[0]));
        assert_eq!(answer.speculator.statistics().tokens, answer.passes);
    }
}
