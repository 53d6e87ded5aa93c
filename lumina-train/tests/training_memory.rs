//! What training keeps in memory: nothing from step to step, and of activations as much as it says. A test binary of
//! its own, as it counts the allocations of a whole process.
#![allow(clippy::unwrap_used, reason = "helpers of tests: a panic is the failure")]

#[path = "training/small.rs"]
#[allow(dead_code, reason = "the tests of steps use all of it")]
mod small;

use std::sync::{Mutex, PoisonError};

use lumina_mgpt::Dropout;
use lumina_nn::Compute;
use lumina_testing::Counting;
use lumina_train::fine_tune::{ActivationMemory, LossOptions, NewModel, Trainable, gradients, loss};
use lumina_train::vq::{CodebookUpdate, VqTrainer, VqTrainingOptions, init_vq};
use lumina_vq::{VqConfig, VqHyperparameters};
use small::{Sequence, folder_of, shape};

#[global_allocator]
static ALLOCATOR: Counting = Counting::new();

/// Bytes are those of the whole process, so one test counts at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// A network of eight layers, whose activations are more than its weights and gradients.
fn deep() -> Trainable {
    let (_folder, model) = folder_of(&NewModel { num_hidden_layers: 8, max_position_embeddings: 512, ..shape() });
    Trainable::open(&model, &Compute::cpu()).unwrap()
}

/// A sequence of which little is predicted, so that logits are few beside activations.
fn sequence() -> Sequence {
    Sequence::new(7, 400, 390)
}

/// The most bytes that a call takes, of which nothing must be kept. What is made once, by each thread at its first
/// work, is kept by one round of calls; what every call keeps, by all of them: the round that keeps least is what
/// counts.
fn peak_of_calls_that_keep_nothing(mut call: impl FnMut()) -> usize {
    const CALLS: usize = 20;
    call();
    let peak = ALLOCATOR.peak_of(&mut call).1;
    let kept = (0..3).map(|_| ALLOCATOR.kept_by(|| (0..CALLS).for_each(|_| call()))).min().unwrap();
    assert!(kept < peak / 64, "{CALLS} calls kept {kept} bytes, one takes {peak}");
    peak
}

#[test]
fn steps_that_train_the_decoder_alone_keep_nothing() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let shape = VqHyperparameters {
        embed_dim: 4,
        n_codes: 32,
        channels: 32,
        multipliers: vec![1, 1],
        n_res_blocks: 1,
        latent_channels: 8,
        resolution: 16,
        ..VqHyperparameters::default()
    };
    let folder = tempfile::tempdir().unwrap();
    init_vq(&VqConfig::new(shape).unwrap(), 5, folder.path(), &Compute::cpu()).unwrap();
    for codebook in [CodebookUpdate::Gradient, CodebookUpdate::Fixed] {
        let options = VqTrainingOptions::default().codebook(codebook);
        let mut trainer = VqTrainer::new(folder.path(), options, &Compute::cpu()).unwrap();
        let images = [30, 200].map(|red| image::RgbImage::from_pixel(32, 32, image::Rgb([red, 60, 90])));
        peak_of_calls_that_keep_nothing(|| assert!(trainer.step(&images).is_ok(), "{codebook:?}"));
    }
}

#[test]
fn losses_of_held_out_data_keep_nothing() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (trainable, sequence) = (deep(), sequence());
    let batch = [sequence.example()];
    peak_of_calls_that_keep_nothing(|| assert!(loss(&trainable.model, &batch, 1e-5).is_ok()));
}

#[test]
fn recomputing_keeps_the_activations_of_one_layer() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (trainable, sequence) = (deep(), sequence());
    let batch = [sequence.example()];
    let [kept, recomputed] = [ActivationMemory::Keep, ActivationMemory::Recompute].map(|activation_memory| {
        let options = LossOptions { z_loss_weight: 1e-5, dropout: Dropout::NONE, activation_memory };
        peak_of_calls_that_keep_nothing(|| assert!(gradients(&trainable.model, &batch, &options).is_ok()))
    });
    assert!(recomputed * 3 < kept, "{recomputed} bytes, all layers {kept}");
}
