//! A small model, batches for it, and its values.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use lumina_nn::Compute;
use lumina_testing::{lcg, small_tokenizer};
use lumina_tokenizer::IGNORED;
use lumina_train::fine_tune::{Example, FineTuneOptions, NewModel, Trainable, Trainer};
use lumina_train::optim::EpochSchedule;
use tempfile::TempDir;

/// Steps of an epoch, more than these tests make.
pub(crate) const STEPS: u64 = 100;

/// The shape: two layers, half as many key heads as query heads.
pub(crate) fn shape() -> NewModel {
    NewModel {
        hidden_size: 32,
        intermediate_size: 48,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        max_position_embeddings: 64,
        initializer_range: 0.1,
        ..NewModel::default()
    }
}

/// A temporary folder with a new model of this shape in its folder `model`.
pub(crate) fn folder_of(shape: &NewModel) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let (tokenizer, model) = (folder.path().join("tokenizer"), folder.path().join("model"));
    small_tokenizer(16, &tokenizer);
    shape.create(&tokenizer, &model, &Compute::cpu()).unwrap();
    (folder, model)
}

/// A constant learning rate and dropout.
pub(crate) fn options() -> FineTuneOptions {
    FineTuneOptions {
        schedule: EpochSchedule { learning_rate: 1e-3, min_learning_rate: 1e-3, warmup_epochs: 0.0, epochs: 1 },
        dropout: 0.1,
        ..FineTuneOptions::default()
    }
}

/// A sequence that owns its tokens, with labels for all but the first `given`.
#[derive(Debug, Clone)]
pub(crate) struct Sequence {
    pub(crate) tokens: Vec<u32>,
    pub(crate) labels: Vec<i64>,
}

impl Sequence {
    pub(crate) fn new(seed: u32, len: usize, given: usize) -> Self {
        // The generator's low bits have short periods.
        let tokens: Vec<u32> = lcg(seed).take(len).map(|state| (state >> 8) % 1424).collect();
        let label = |(position, &token)| if position < given { IGNORED } else { i64::from(token) };
        let labels = tokens.iter().enumerate().map(label).collect();
        Self { tokens, labels }
    }

    pub(crate) fn example(&self) -> Example<'_> {
        Example { tokens: &self.tokens, labels: &self.labels }
    }
}

/// The sequences of a step's passes: two rows a pass, of different lengths, other ones in each step.
pub(crate) fn sequences(step: u64, passes: usize) -> Vec<[Sequence; 2]> {
    let seed = |pass: usize| 1000 * step as u32 + 10 * pass as u32;
    (0..passes).map(|pass| [Sequence::new(seed(pass), 9, 2), Sequence::new(seed(pass) + 1, 6, 1)]).collect()
}

/// The sequences as passes.
pub(crate) fn passes(sequences: &[[Sequence; 2]]) -> Vec<Vec<Example<'_>>> {
    sequences.iter().map(|pass| pass.iter().map(Sequence::example).collect()).collect()
}

/// Makes steps up to this one.
pub(crate) fn train(trainer: &mut Trainer, until: u64) {
    while trainer.position().step < until {
        let sequences = sequences(trainer.position().step, trainer.passes());
        trainer.step(&passes(&sequences), STEPS).unwrap();
    }
}

/// The files of a folder with their bytes.
pub(crate) fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries.map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())).collect()
}

/// Weights and moments as they would be saved.
pub(crate) fn state(trainer: &Trainer) -> [Vec<u8>; 2] {
    let folder = tempfile::tempdir().unwrap();
    trainer.save(&folder.path().join("state")).unwrap();
    let mut files = files(&folder.path().join("state"));
    ["model.safetensors", "optimizer.safetensors"].map(|name| files.remove(name).unwrap())
}

/// The gradients by the names of their parameters.
pub(crate) fn by_name(trainable: &Trainable, grads: &GradientsParams) -> BTreeMap<String, Vec<f32>> {
    struct Collect<'a> {
        names: &'a HashMap<ParamId, String>,
        grads: &'a GradientsParams,
        values: BTreeMap<String, Vec<f32>>,
    }
    impl ModuleVisitor for Collect<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let grad = self.grads.get::<D>(param.id).unwrap();
            assert_eq!(grad.dims(), param.val().dims());
            self.values.insert(self.names[&param.id].clone(), grad.into_data().try_into_vec().unwrap());
        }
    }
    let mut collect = Collect { names: &trainable.names, grads, values: BTreeMap::new() };
    trainable.model.visit(&mut collect);
    collect.values
}
