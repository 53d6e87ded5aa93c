//! Scenes as a training set: conversations with their pictures, in memory or on disk.

mod record;
mod task;
mod write;

use std::collections::BTreeMap;

pub use record::{SceneRecord, Truth};
pub use task::SceneTask;
pub use write::{IMAGES, RECORDS, write_dataset};

use crate::random::{Draws, Purpose};
use crate::{DEFAULT_TARGET_PX, Error, Result, Scenes, Split};

/// What a data set is made of.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DatasetOptions {
    /// The seed of all choices.
    pub seed: u64,
    /// Which scenes.
    pub split: Split,
    /// How many records [`write_dataset`] writes.
    pub n_records: u64,
    /// The target size of the pictures, in pixels.
    pub target_px: u32,
    /// How often each task comes, in proportion; a task that is not named never does.
    pub tasks: BTreeMap<SceneTask, u32>,
}

impl Default for DatasetOptions {
    /// A thousand training records of all tasks, half of them text to image and captioning.
    fn default() -> Self {
        let tasks = SceneTask::ALL.into_iter().zip([5, 3, 2, 2, 2, 1, 1]).collect();
        Self { seed: 0, split: Split::Train, n_records: 1000, target_px: DEFAULT_TARGET_PX, tasks }
    }
}

/// Records of scenes, each computed from the options and its index alone.
///
/// ```
/// use lumina_scenes::Split;
/// use lumina_scenes::dataset::{Dataset, DatasetOptions, SceneTask};
///
/// let tasks = [(SceneTask::TextToImage, 1)].into();
/// let dataset = Dataset::new(DatasetOptions { split: Split::Test, tasks, ..Default::default() })?;
/// let record = dataset.record(0);
/// let question = record.record.conversations[0].value.as_deref();
/// assert!(question.is_some_and(|text| text.starts_with("Generate an image of ")));
/// assert_eq!(record.images, [record.truth.scene.picture()]);
/// # Ok::<(), lumina_scenes::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Dataset {
    options: DatasetOptions,
    scenes: Scenes,
}

impl Dataset {
    /// The data set of these options.
    ///
    /// # Errors
    /// [`Error::TargetSize`] where there are no picture sizes for the target, [`Error::NoTask`].
    pub fn new(options: DatasetOptions) -> Result<Self> {
        let scenes = Scenes::new(options.seed, options.split, options.target_px)?;
        if options.tasks.values().all(|&weight| weight == 0) {
            return Err(Error::NoTask);
        }
        Ok(Self { options, scenes })
    }

    /// What it is made of.
    pub fn options(&self) -> &DatasetOptions {
        &self.options
    }

    /// The record at an index. They do not end: the number in the options is for [`write_dataset`].
    pub fn record(&self, index: u64) -> SceneRecord {
        const PROOF: &str = "`new` has seen a positive weight";
        let DatasetOptions { seed, split, tasks, .. } = &self.options;
        let mut draws = Draws::new(*seed, *split, Purpose::Record, index);
        let position = draws.weighted(tasks.values().copied()).expect(PROOF);
        let task = tasks.keys().nth(position).copied().expect(PROOF);
        SceneRecord::draw(index, task, self.scenes.scene(index), *split, &mut draws)
    }

    /// The records that [`write_dataset`] writes.
    pub fn records(&self) -> impl Iterator<Item = SceneRecord> + '_ {
        (0..self.options.n_records).map(|index| self.record(index))
    }
}
