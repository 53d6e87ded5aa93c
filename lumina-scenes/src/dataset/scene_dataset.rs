//! A dataset of records about scenes.

use std::collections::BTreeMap;

use lumina_core::ImageSize;

use super::ground_truth::GroundTruth;
use super::record::{SceneRecord, Texts};
use super::task::SceneTask;
use crate::random::{RngPurpose, SeededRng};
use crate::{DEFAULT_TARGET_PX, Error, Result, Scenes, Split, Wording};

/// The options of a dataset.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DatasetOptions {
    /// The seed of all random choices.
    pub seed: u64,
    /// The split of the scenes.
    pub split: Split,
    /// How many records [`write_dataset`](super::write_dataset) writes.
    pub n_records: u64,
    /// The target size of the images, in pixels.
    pub target_px: u32,
    /// Width and height of the images in pixels, if not all sizes of the target are wanted
    /// ([`Scenes::with_sizes`]).
    pub image_sizes: Option<Vec<(u32, u32)>>,
    /// The relative frequency of each task. Tasks that are not listed do not occur.
    pub tasks: BTreeMap<SceneTask, u32>,
    /// How many further turns ask about the image, where it is the scene itself: a further question costs a few
    /// tokens, and teaches as much as a record of its own. They are not evaluated.
    pub more_questions: u8,
    /// Whether the answer to an edit begins with the canonical caption of the edited scene. What an instruction means
    /// is then found out in words, and the image follows from them.
    pub described_edits: bool,
}

impl Default for DatasetOptions {
    /// A thousand training records of all tasks.
    fn default() -> Self {
        let tasks = SceneTask::ALL.into_iter().zip([8, 4, 2, 2, 4, 4, 1, 1, 1]).collect();
        Self {
            seed: 0,
            split: Split::Train,
            n_records: 1000,
            target_px: DEFAULT_TARGET_PX,
            image_sizes: None,
            tasks,
            more_questions: 0,
            described_edits: false,
        }
    }
}

/// Records about scenes, each computed from the options and its index alone.
///
/// ```
/// use lumina_scenes::Split;
/// use lumina_scenes::dataset::{DatasetOptions, SceneDataset, SceneTask};
///
/// let tasks = [(SceneTask::TextToImage, 1)].into();
/// let dataset = SceneDataset::new(DatasetOptions { split: Split::Test, tasks, ..Default::default() })?;
/// let record = dataset.record(0);
/// let question = record.record.conversations[0].value.as_deref();
/// assert!(question.is_some_and(|text| text.starts_with("Generate an image of ")));
/// assert_eq!(record.images, [record.ground_truth.scene.image()]);
/// # Ok::<(), lumina_scenes::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct SceneDataset {
    options: DatasetOptions,
    scenes: Scenes,
}

impl SceneDataset {
    /// The dataset with these options.
    ///
    /// # Errors
    /// [`Error::NoTask`], [`Error::TargetSize`] if there is no image of a size, and those of [`Scenes::new`] and
    /// [`Scenes::with_sizes`].
    pub fn new(options: DatasetOptions) -> Result<Self> {
        let mut scenes = Scenes::new(options.seed, options.split, options.target_px)?;
        if let Some(sizes) = &options.image_sizes {
            let size = |&(width, height): &(u32, u32)| ImageSize::new(width, height).map_err(Error::TargetSize);
            scenes = scenes.with_sizes(sizes.iter().map(size).collect::<Result<_>>()?)?;
        }
        if options.tasks.values().all(|&weight| weight == 0) {
            return Err(Error::NoTask);
        }
        Ok(Self { options, scenes })
    }

    /// The options.
    pub fn options(&self) -> &DatasetOptions {
        &self.options
    }

    /// The record at an index. Any index is valid: the number in the options applies to
    /// [`write_dataset`](super::write_dataset).
    pub fn record(&self, index: u64) -> SceneRecord {
        SceneRecord::new(index, self.texts_and_truth(index))
    }

    /// The texts of the record at an index, questions and answers in turn, without drawing its images.
    pub fn texts(&self, index: u64) -> Vec<String> {
        self.texts_and_truth(index).turns
    }

    /// What the answers of the record at an index are evaluated against, without drawing its images.
    pub fn ground_truth(&self, index: u64) -> GroundTruth {
        self.texts_and_truth(index).ground_truth
    }

    fn texts_and_truth(&self, index: u64) -> Texts {
        const PROOF: &str = "`new` requires a positive weight";
        let DatasetOptions { seed, split, tasks, .. } = &self.options;
        let mut rng = SeededRng::new(*seed, *split, RngPurpose::Record, index);
        let position = rng.weighted_index(tasks.values().copied()).expect(PROOF);
        let task = tasks.keys().nth(position).copied().expect(PROOF);
        let mut wording = Wording::of_record(*seed, *split, index);
        let mut texts = Texts::random(task, self.scenes.scene(index), *split, &mut rng, &mut wording);
        if self.options.described_edits {
            texts.describe_edit();
        }
        for _ in 0..self.options.more_questions {
            texts.ask_more(&mut rng, &mut wording);
        }
        texts
    }

    /// The records that [`write_dataset`](super::write_dataset) writes.
    pub fn records(&self) -> impl Iterator<Item = SceneRecord> + '_ {
        (0..self.options.n_records).map(|index| self.record(index))
    }
}
