//! The numbers: sizes of networks and data, and how long each stage trains.

use lumina_core::crop_sizes;
use lumina_mgpt::{Preset, Task};
use lumina_scenes::dataset::{DatasetOptions, SceneTask};
use lumina_train::fine_tune::{FineTuneOptions, NewModel};
use lumina_train::optim::{EpochSchedule, StepSchedule};
use lumina_train::vq::{CodebookUpdate, PatchClusterOptions, VqTrainingOptions};
use lumina_vq::VqHyperparameters;

/// The numbers of a training from nothing.
pub(crate) struct Plan {
    /// Target size of the images in pixels.
    pub(crate) target_px: u32,
    pub(crate) vq: VqHyperparameters,
    /// The training of the image tokenizer, part by part.
    pub(crate) vq_parts: Vec<VqPart>,
    /// Images of a step of the image tokenizer.
    pub(crate) vq_batch: usize,
    /// Which patches are of one cluster.
    pub(crate) clusters: PatchClusterOptions,
    /// Steps whose images the clusters are made of.
    pub(crate) cluster_steps: u64,
    /// The most pieces of text that the text tokenizer learns.
    pub(crate) merges: usize,
    pub(crate) model: NewModel,
    /// Text to image alone, small images first.
    pub(crate) fp_sft: [Part; 2],
    /// All tasks. In each part the learning rate rises and falls once more.
    pub(crate) omni_sft: [Part; 4],
}

/// A part of the training of the image tokenizer.
pub(crate) struct VqPart {
    /// Make a codebook of patch clusters first, and use their codes.
    pub(crate) clusters: bool,
    pub(crate) images: TrainingImages,
    pub(crate) options: VqTrainingOptions,
}

/// The images that the image tokenizer is trained on.
#[derive(Clone, Copy)]
pub(crate) enum TrainingImages {
    /// Single cells with an object in them.
    Cells,
    /// Those and whole images in turn.
    Mixed,
    /// Whole images.
    Whole,
}

/// A part of the training of the transformer.
pub(crate) struct Part {
    pub(crate) name: &'static str,
    /// The name of the data, which parts may share, and their contents.
    pub(crate) data: (&'static str, DatasetOptions),
    /// Other data, and the fraction of it that is trained on as well, drawn again in each epoch.
    pub(crate) also: Option<(&'static str, f64)>,
    pub(crate) training: FineTuneOptions,
}

impl Plan {
    /// Three hours on two cores, half of them Omni-SFT.
    pub(crate) fn full() -> Self {
        Self::of(1500, [(16_000, 3), (24_000, 5), (24_000, 5), (32_000, 5)])
    }

    /// Everything, with few steps and a smaller model.
    pub(crate) fn smoke() -> Self {
        let mut plan = Self::of(12, [(320, 1), (320, 1), (320, 1), (160, 1)]);
        plan.model.hidden_size = 64;
        plan.model.intermediate_size = 160;
        plan.model.num_attention_heads = 2;
        plan.model.num_key_value_heads = 2;
        plan.model.num_hidden_layers = 2;
        plan
    }

    /// `parts` are records and epochs of FP-SFT at two sizes, and of Omni-SFT with two sets of data.
    fn of(vq_steps: u64, parts: [(u64, u64); 4]) -> Self {
        let target_px = lumina_scenes::DEFAULT_TARGET_PX;
        let vq = VqHyperparameters {
            embed_dim: 16,
            n_codes: 1024,
            // Group norms have 32 groups: with fewer than two channels in each, images would lose their mean
            // brightness.
            channels: 64,
            multipliers: vec![1, 1, 1, 1, 1],
            n_res_blocks: 0,
            latent_channels: 64,
            resolution: target_px as usize,
            ..VqHyperparameters::default()
        };
        let part = |clusters, images, steps: u64, learning_rate, commitment| {
            let options = VqTrainingOptions::default()
                .steps(steps)
                .learning_rate(learning_rate)
                .betas((0.9, 0.99))
                .schedule(StepSchedule::Cosine { warmup_steps: steps / 12, floor: 0.01 })
                .l2_weight(1.0)
                .codebook(CodebookUpdate::Ema { decay: 0.99 })
                .commitment_weight(commitment)
                .checkpoint_every(250);
            VqPart { clusters, images, options }
        };
        let mut vq_parts = vec![
            // Encoder and decoder without a codebook, so that latents of different patches differ.
            part(false, TrainingImages::Cells, vq_steps, 1.5e-3, 0.0),
            // Each patch cluster gets a code, and its latents are drawn to it.
            part(true, TrainingImages::Mixed, vq_steps / 3, 6e-4, 1.0),
            part(true, TrainingImages::Mixed, vq_steps / 3, 8e-4, 1.0),
            part(true, TrainingImages::Mixed, vq_steps / 5, 5e-4, 1.0),
            // The decoder learns to use the codes.
            part(false, TrainingImages::Whole, vq_steps / 5, 6e-4, 1.0),
        ];
        let options = vq_parts[0].options.clone();
        vq_parts[0].options = options.quantize_from(vq_steps);
        if let Some(last) = vq_parts.last_mut() {
            last.options = last.options.clone().codebook(CodebookUpdate::Fixed);
        }
        let mut preset = Preset::default();
        preset.target_size_px = Some(target_px);
        // The options with which it scores best in `evaluate`.
        (preset.guidance_scale, preset.image_top_k, preset.temperature) = (Some(1.5), Some(5), Some(0.4));
        preset.tasks = Some(vec![
            Task::TextToImage,
            Task::Captioning,
            Task::DepthEstimation,
            Task::SemanticSegmentation,
            Task::Editing,
            Task::FreeForm,
        ]);
        let sizes = crop_sizes(target_px).into_iter().flatten().map(|size| (size.width_px(), size.height_px()));
        preset.image_sizes = Some(sizes.collect());
        let model = NewModel {
            preset,
            hidden_size: 160,
            intermediate_size: 432,
            num_hidden_layers: 6,
            num_attention_heads: 5,
            num_key_value_heads: 5,
            max_position_embeddings: 512,
            ..NewModel::default()
        };
        let data = |seed, n_records, target_px, tasks: &[(SceneTask, u32)]| DatasetOptions {
            seed,
            n_records,
            target_px,
            tasks: tasks.iter().copied().collect(),
            ..DatasetOptions::default()
        };
        let training = |learning_rate, min_learning_rate, epochs| FineTuneOptions {
            schedule: EpochSchedule { learning_rate, min_learning_rate, warmup_epochs: 0.2, epochs },
            batch_size: 32,
            max_tokens: 512,
            max_gradient_norm: 1.0,
            dropout: 0.0,
            checkpoint_every: 250,
            ..FineTuneOptions::default()
        };
        let drawing = [(SceneTask::TextToImage, 1)];
        let tasks = [
            (SceneTask::TextToImage, 5),
            (SceneTask::Captioning, 3),
            (SceneTask::DepthEstimation, 2),
            (SceneTask::SemanticSegmentation, 2),
            (SceneTask::Editing, 3),
            (SceneTask::ImageThenEdit, 2),
            (SceneTask::ImageThenCaption, 1),
        ];
        // Answers that depend on all of an image take the longest to learn, so there are more of them.
        let practice = [
            (SceneTask::TextToImage, 5),
            (SceneTask::Captioning, 4),
            (SceneTask::DepthEstimation, 1),
            (SceneTask::SemanticSegmentation, 1),
            (SceneTask::Editing, 5),
            (SceneTask::ImageThenEdit, 3),
            (SceneTask::ImageThenCaption, 2),
        ];
        let [(n_small, small), (n_whole, whole), (n_omni, all), (n_practice, last)] = parts;
        let omni = |name, training| Part {
            name,
            data: ("omni-sft", data(3, n_omni, target_px, &tasks)),
            // Text to image takes many examples as well.
            also: Some(("fp-sft-96", 0.3)),
            training,
        };
        Self {
            target_px,
            vq_parts,
            vq_batch: 8,
            clusters: PatchClusterOptions { tolerance: 10.0, max_clusters: vq.n_codes },
            cluster_steps: vq_steps.min(300),
            vq,
            merges: 480,
            model,
            fp_sft: [
                Part {
                    name: "fp-sft-64",
                    data: ("fp-sft-64", data(1, n_small, target_px * 2 / 3, &drawing)),
                    also: None,
                    training: training(2.5e-3, 1.5e-3, small),
                },
                Part {
                    name: "fp-sft-96",
                    data: ("fp-sft-96", data(2, n_whole, target_px, &drawing)),
                    also: None,
                    training: training(2e-3, 1e-3, whole),
                },
            ],
            omni_sft: [
                omni("omni-sft", training(1.5e-3, 1.5e-5, all)),
                omni("omni-sft-again", training(1e-3, 1e-5, all.div_ceil(3))),
                omni("omni-sft-more", training(7e-4, 7e-6, all.div_ceil(5))),
                Part {
                    name: "omni-sft-last",
                    data: ("omni-sft-practice", data(4, n_practice, target_px, &practice)),
                    also: None,
                    training: training(1.2e-3, 1e-5, last),
                },
            ],
        }
    }
}
