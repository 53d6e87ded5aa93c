//! The numbers: sizes of networks and data, and how long each stage trains.

use lumina_mgpt::{Preset, Task, Words};
use lumina_scenes::dataset::{DatasetOptions, SceneTask};
use lumina_scenes::known_words;
use lumina_train::fine_tune::{FineTuneOptions, NewModel};
use lumina_train::optim::{EpochSchedule, MuonOptions, StepSchedule};
use lumina_train::vq::{CodebookStart, CodebookUpdate, VqTrainingOptions};
use lumina_vq::VqHyperparameters;

/// The sizes of the images that the model draws. In each a row is of another length, and a model learns where a token
/// is for each of them anew.
const SIZES: [(u32, u32); 5] = [(256, 256), (320, 192), (192, 320), (384, 160), (160, 384)];

/// Sizes of fewer tokens, to learn from.
const MIDDLE_SIZES: [(u32, u32); 5] = [(192, 192), (224, 160), (160, 224), (288, 128), (128, 288)];

/// Low images whose rows are as long as those of the large ones, of two target sizes: what is learnt of rows there
/// holds here, and more of the image is object.
const ROW_SIZES: [&[(u32, u32)]; 2] = [&[(256, 96), (192, 128), (160, 160)], &[(320, 96), (384, 96)]];

/// The numbers of a training from nothing.
pub(crate) struct Plan {
    /// Target size of the images in pixels.
    pub(crate) target_px: u32,
    pub(crate) vq: VqHyperparameters,
    /// The runs of its training. Each begins with the network of the one before.
    pub(crate) vq_training: Vec<VqTrainingOptions>,
    /// Before a run that trains the decoder only: codes are left out that occur in fewer than `.1` of `.0` images.
    pub(crate) vq_pruning: (u64, u32),
    /// Images of a step of the image tokenizer, each a part of a scene of this width and height.
    pub(crate) vq_batch: usize,
    pub(crate) vq_crop_px: u32,
    /// How many scenes are reconstructed in the end.
    pub(crate) vq_test_scenes: u64,
    /// The most pieces of text that the text tokenizer learns.
    pub(crate) merges: usize,
    pub(crate) model: NewModel,
    /// Text to image alone, with small images.
    pub(crate) fp_sft: Part,
    /// All tasks, small images first. In each part the learning rate rises and falls.
    pub(crate) omni_sft: Vec<Part>,
    /// The model's weights are the means of those after the last parts, with these weights.
    pub(crate) mean_of_parts: Vec<f32>,
}

/// A part of the training of the transformer, with data of its own: each record is seen once.
pub(crate) struct Part {
    pub(crate) name: &'static str,
    /// Each of another target size.
    pub(crate) data: Vec<DatasetOptions>,
    pub(crate) training: FineTuneOptions,
}

/// How long everything trains.
struct Lengths {
    vq_steps: [u64; 3],
    vq_pruning: (u64, u32),
    /// Records of FP-SFT.
    fp_sft: u64,
    /// Records of each part of Omni-SFT: with small images, with larger ones, and with those of the target size. In the
    /// last four parts with low images of two target sizes, and with those.
    omni_sft: [[u64; 3]; 8],
}

impl Plan {
    /// Some hours on two cores.
    pub(crate) fn full() -> Self {
        Self::of(&Lengths {
            vq_steps: [6000, 8000, 3000],
            vq_pruning: (4000, 3),
            fp_sft: 100_000,
            omni_sft: [
                [70_000, 0, 0],
                [26_000, 15_000, 34_000],
                [8_000, 8_000, 32_000],
                [100_000, 0, 11_000],
                [17_000, 11_500, 15_500],
                [30_000, 20_000, 36_000],
                [18_000, 12_000, 36_000],
                [18_000, 12_000, 36_000],
            ],
        })
    }

    /// Everything, with few steps and a smaller model.
    pub(crate) fn smoke() -> Self {
        let mut plan = Self::of(&Lengths {
            vq_steps: [12, 12, 12],
            vq_pruning: (8, 1),
            fp_sft: 64,
            omni_sft: [
                [64, 0, 0],
                [32, 32, 64],
                [32, 32, 64],
                [64, 0, 32],
                [32, 32, 64],
                [32, 32, 64],
                [32, 32, 64],
                [32, 32, 64],
            ],
        });
        plan.vq_test_scenes = 20;
        plan.model.hidden_size = 64;
        plan.model.intermediate_size = 160;
        plan.model.num_attention_heads = 2;
        plan.model.num_key_value_heads = 2;
        plan.model.num_hidden_layers = 2;
        plan
    }

    fn of(lengths: &Lengths) -> Self {
        let target_px = lumina_scenes::DEFAULT_TARGET_PX;
        let vq = VqHyperparameters {
            embed_dim: 16,
            n_codes: 2048,
            channels: 16,
            multipliers: vec![1, 1, 2, 4, 4],
            n_res_blocks: 1,
            latent_channels: 64,
            resolution: target_px as usize,
            // The same patch has the same code wherever it is: flat regions have one code, not one for each image.
            is_local: true,
            ..VqHyperparameters::default()
        };
        let vq_run = |steps: u64, learning_rate| {
            VqTrainingOptions::default()
                .steps(steps)
                .learning_rate(learning_rate)
                .betas((0.9, 0.99))
                .schedule(StepSchedule::Cosine { warmup_steps: steps / 20, floor: 0.01 })
                .l2_weight(1.0)
                .codebook(CodebookUpdate::Ema { decay: 0.99 })
                .revive_after(Some(150))
                .max_gradient_norm(Some(1.0))
                .checkpoint_every(250)
        };
        let [first, second, decoder] = lengths.vq_steps;
        let vq_training = vec![
            vq_run(first, 1e-3).codebook_start(CodebookStart::Latents).quantize_from(first / 20),
            // Again from a high rate, with the codes that are there: what is rare is reconstructed at last.
            vq_run(second, 7e-4),
            // The decoder alone, with the codes that occur.
            vq_run(decoder, 5e-4).codebook(CodebookUpdate::Fixed).revive_after(None),
        ];
        Self {
            target_px,
            vq,
            vq_training,
            vq_pruning: lengths.vq_pruning,
            vq_batch: 16,
            vq_crop_px: 64,
            vq_test_scenes: 1000,
            merges: 700,
            model: model(target_px),
            fp_sft: fp_sft(lengths.fp_sft, target_px),
            omni_sft: omni_sft(lengths.omni_sft, target_px),
            mean_of_parts: vec![1.0, 3.0],
        }
    }
}

fn model(target_px: u32) -> NewModel {
    let mut preset = Preset::default().with_words(Words::of(known_words()));
    preset.target_size_px = Some(target_px);
    // Those with which it scores best in `evaluate`, a little warmer, so that seeds differ in what a prompt leaves
    // open.
    (preset.guidance_scale, preset.image_top_k, preset.temperature) = (Some(1.3), Some(50), Some(0.2));
    preset.text_top_k = Some(1);
    preset.tasks = Some(vec![
        Task::TextToImage,
        Task::Captioning,
        Task::DepthEstimation,
        Task::SemanticSegmentation,
        Task::Editing,
        Task::FreeForm,
    ]);
    preset.described_tasks = Some(vec![Task::Editing]);
    preset.image_sizes = Some(SIZES.to_vec());
    NewModel {
        preset,
        hidden_size: 192,
        intermediate_size: 512,
        num_hidden_layers: 6,
        num_attention_heads: 6,
        num_key_value_heads: 6,
        max_position_embeddings: 1024,
        ..NewModel::default()
    }
}

fn fp_sft(n_records: u64, target_px: u32) -> Part {
    // A small image has a quarter of the tokens, and what prompts ask for is learnt from it as well.
    let data = data(1, n_records, target_px / 2, &[(SceneTask::TextToImage, 1)]);
    part("fp-sft-128", 24, vec![data], (3e-3, 1e-3))
}

fn omni_sft(n_records: [[u64; 3]; 8], target_px: u32) -> Vec<Part> {
    let [first, second, third, fourth, fifth, sixth, seventh, eighth] = n_records;
    let (half, three_quarters) = (target_px / 2, target_px / 4 * 3);
    // The square, which is what one gets without asking, is twice as likely.
    let large = (target_px, Some([&SIZES[..1], &SIZES].concat()));
    let [low, low_and_wide] = ROW_SIZES.map(|sizes| Some(sizes.to_vec()));
    let rows = [(target_px / 8 * 5, low), (three_quarters, low_and_wide), large.clone()];
    let sizes = [(half, None), (three_quarters, Some(MIDDLE_SIZES.to_vec())), large];
    vec![
        part("omni-sft-128", 24, omni_data([3, 0, 0], first, &sizes), (2e-3, 1e-3)),
        // Of large images alone a model would learn their rows anew, and forget what it knew.
        part("omni-sft-256", 16, omni_data([5, 6, 4], second, &sizes), (2e-3, 1e-5)),
        part("omni-sft-256-again", 16, omni_data([9, 8, 7], third, &sizes), (2e-3, 1e-3)),
        // What objects look like is learnt from edges, which are more of a small image: of the tokens of large ones,
        // nine in ten are the same hundred.
        part("omni-sft-last", 16, omni_data([10, 0, 11], fourth, &sizes), (2e-3, 1e-3)),
        part("omni-sft-rows", 16, omni_data([12, 13, 14], fifth, &rows), (2e-3, 1e-3)),
        part("omni-sft-end", 16, omni_data([15, 16, 17], sixth, &rows), (2e-3, 1e-5)),
        part("omni-sft-edits", 16, omni_data([18, 19, 20], seventh, &rows), (1.5e-3, 1e-5)),
        part("omni-sft-described", 16, omni_data([21, 22, 23], eighth, &rows), (1.5e-3, 1e-5)),
    ]
}

/// A target size and its image sizes: all, if none are named.
type Sizes = (u32, Option<Vec<(u32, u32)>>);

/// Records of all tasks, of each of three target sizes with a seed of its own.
fn omni_data(seeds: [u64; 3], n_records: [u64; 3], sizes: &[Sizes; 3]) -> Vec<DatasetOptions> {
    // A record that draws an image before another task has more answers to learn from.
    let tasks = [
        (SceneTask::TextToImage, 10),
        (SceneTask::Captioning, 3),
        (SceneTask::DepthEstimation, 2),
        (SceneTask::SemanticSegmentation, 2),
        (SceneTask::Editing, 8),
        (SceneTask::Question, 3),
        (SceneTask::ImageThenEdit, 18),
        (SceneTask::ImageThenCaption, 6),
    ];
    let all = seeds.into_iter().zip(n_records).zip(sizes).filter(|((_, n_records), _)| *n_records > 0);
    all.map(|((seed, n_records), (target_px, image_sizes))| DatasetOptions {
        image_sizes: image_sizes.clone(),
        more_questions: 3,
        described_edits: true,
        ..data(seed, n_records, *target_px, &tasks)
    })
    .collect()
}

fn part(
    name: &'static str,
    batch_size: usize,
    data: Vec<DatasetOptions>,
    (learning_rate, min_learning_rate): (f64, f64),
) -> Part {
    let training = FineTuneOptions {
        schedule: EpochSchedule { learning_rate, min_learning_rate, warmup_epochs: 0.05, epochs: 1 },
        // Some three thousand tokens a step or more. A step of Muon costs as much as five hundred.
        batch_size,
        muon: Some(MuonOptions::default()),
        max_tokens: 1024,
        max_gradient_norm: 1.0,
        dropout: 0.0,
        checkpoint_every: 250,
        ..FineTuneOptions::default()
    };
    Part { name, data, training }
}

fn data(seed: u64, n_records: u64, target_px: u32, tasks: &[(SceneTask, u32)]) -> DatasetOptions {
    DatasetOptions { seed, n_records, target_px, tasks: tasks.iter().copied().collect(), ..DatasetOptions::default() }
}
