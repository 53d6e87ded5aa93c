//! Records to token shards.

use std::error::Error as _;
use std::ops::Range;
use std::path::Path;

use image::RgbImage;
use lumina_core::CodeGrid;
use lumina_tokenizer::{Record, UniRep};
use lumina_vq::ImageTokenizer;
use lumina_vq::preprocess::{Orientation, Preprocessor};
use rayon::prelude::*;

use super::random_crop::{CropChoice, Crops};
use super::records::Records;
use super::shard_writer::{Outcome, ShardWriter, SkippedRecord, read_skipped};
use crate::{Error, ObserverResult, Result};

/// How records are pre-tokenised, and which of them.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct PretokenizeOptions {
    /// Images get about as many pixels as a square of this side: 512, 768, 1024.
    pub target_px: u32,
    /// How images are cropped.
    pub crop: CropChoice,
    /// Whether images are rotated by their EXIF data; the original does not.
    pub orientation: Orientation,
    /// The part of the records that this is, from 0.
    pub rank: u64,
    /// How many parts there are. They are contiguous, each of `ceil(n / splits)` records (the last ones may be
    /// shorter), as in the original.
    pub splits: u64,
    /// Records that are written at a time: what a kill can cost.
    pub window: usize,
    /// The most images of one size that go through the image tokenizer together.
    // The settings in a shard's folder have this name; with another one a shard could not be continued.
    #[serde(rename = "pictures_per_pass")]
    pub images_per_pass: usize,
}

impl PretokenizeOptions {
    /// All records, images cropped at random (seed 0) to the best size, 32 records at a time.
    pub fn new(target_px: u32) -> Self {
        Self {
            target_px,
            crop: CropChoice::Random { seed: 0, best_of: 1 },
            orientation: Orientation::Ignore,
            rank: 0,
            splits: 1,
            window: 32,
            images_per_pass: 8,
        }
    }

    /// What names of the rank's files begin with.
    fn stem(&self) -> String {
        format!("{}-of-{}", self.rank, self.splits)
    }

    /// The records of this rank.
    fn range(&self, n_records: u64) -> Range<u64> {
        range_of(self.rank, self.splits, n_records)
    }

    fn check(&self) -> Result<()> {
        if self.rank >= self.splits {
            let (value, expected) = (self.rank.to_string(), format!("below {}, the number of splits", self.splits));
            return Err(Error::OutOfRange { field: "rank", value, expected });
        }
        for (field, value) in [("window", self.window), ("images_per_pass", self.images_per_pass)] {
            if value == 0 {
                return Err(Error::OutOfRange { field, value: "0".to_owned(), expected: "at least 1".to_owned() });
            }
        }
        Ok(())
    }
}

/// The records of a rank. There is at least one split.
pub(super) fn range_of(rank: u64, splits: u64, n_records: u64) -> Range<u64> {
    let per_rank = n_records.div_ceil(splits);
    let bound = |rank: u64| rank.saturating_mul(per_rank).min(n_records);
    bound(rank)..bound(rank.saturating_add(1))
}

/// The progress of a rank, earlier runs included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PretokenizeProgress {
    /// Records done, bad ones included.
    pub done: u64,
    /// Records of this rank.
    pub total: u64,
    /// Bad records among those done.
    pub skipped: u64,
    /// Tokens written.
    pub tokens: u64,
}

/// What [`Pretokenizer::run`] reports to its observer.
#[derive(Debug, Clone, Copy)]
pub enum PretokenizeEvent<'a> {
    /// A bad record was skipped. It is also in the list `…-skipped.jsonl`.
    Skipped {
        /// Its index in its file.
        index: u64,
        /// What is wrong with it.
        reason: &'a str,
    },
    /// The progress, at the beginning (that of earlier runs) and after each window.
    Progress(PretokenizeProgress),
}

/// Turns records into token shards.
///
/// The files of a rank are described in [the module](super). A run that was ended, in whatever way, is continued by the
/// same call, and the files become those that one run would have made. A call for a rank that is finished changes
/// nothing. Image tokenizer and text tokenizer have to be the same too, which is not checked.
///
/// Mirrors `pre_tokenize.py` of the original.
#[derive(Debug)]
pub struct Pretokenizer<'a> {
    images: &'a ImageTokenizer,
    unirep: &'a UniRep,
    preprocessor: Preprocessor,
    options: PretokenizeOptions,
}

impl<'a> Pretokenizer<'a> {
    /// A pre-tokenizer with these tokenizers.
    ///
    /// # Errors
    /// [`Error::OutOfRange`], and [`Error::Images`] for the target.
    pub fn new(images: &'a ImageTokenizer, unirep: &'a UniRep, options: PretokenizeOptions) -> Result<Self> {
        options.check()?;
        let preprocessor = Preprocessor::new(options.target_px)?.orientation(options.orientation);
        Ok(Self { images, unirep, preprocessor, options })
    }

    /// Makes the shard of this rank in a folder, or continues it, until it is done or `observe` stops the run. A shard
    /// that was stopped is continued by the same call.
    ///
    /// # Errors
    /// A bad record is not an error. [`Error::Write`] and [`Error::Checkpoint`] where the folder cannot be written,
    /// [`Error::Busy`] where another process writes the same rank, [`Error::OtherRun`] where the rank was begun with
    /// other options or records, [`Error::Data`] where something else is in the way, [`Error::Images`] where the image
    /// tokenizer fails; the observer's.
    pub fn run<O: ObserverResult>(
        &self,
        records: &Records<'_>,
        folder: impl AsRef<Path>,
        mut observe: impl FnMut(PretokenizeEvent<'_>) -> O,
    ) -> Result<PretokenizeProgress, O::Error> {
        let window = self.options.window as u64;
        let range = self.options.range(records.len() as u64);
        let settings = serde_json::json!({ "records": records.fingerprint(), "options": &self.options }).to_string();
        let mut shard = ShardWriter::open(folder.as_ref(), &self.options.stem(), &settings, range.clone(), window)?;
        let mut stopped = false;
        loop {
            let written = shard.written();
            let done = written.items + written.skipped;
            let total = range.end - range.start;
            let progress = PretokenizeProgress { done, total, skipped: written.skipped, tokens: written.tokens };
            stopped |= observe(PretokenizeEvent::Progress(progress)).into_flow()?.is_break();
            if stopped || done == total {
                shard.finish()?;
                return Ok(progress);
            }
            let first = range.start + done;
            let outcomes = self.window(records, first..range.end.min(first + window))?;
            shard.append(first, &outcomes)?;
            for (index, outcome) in (first..).zip(&outcomes) {
                if let Err(reason) = outcome {
                    stopped |= observe(PretokenizeEvent::Skipped { index, reason }).into_flow()?.is_break();
                }
            }
        }
    }

    /// The bad records of this rank so far, which have no tokens: those of all runs on the folder.
    ///
    /// # Errors
    /// [`Error::Core`] where their list cannot be read.
    pub fn skipped(&self, folder: impl AsRef<Path>) -> Result<Vec<SkippedRecord>> {
        read_skipped(folder.as_ref(), &self.options.stem())
    }

    /// The results of a window of records. The batch that an image is in changes the last bit of the encoder's sums, so
    /// a window that is made again has to be the same.
    fn window(&self, records: &Records<'_>, range: Range<u64>) -> Result<Vec<Outcome>> {
        let loaded: Vec<_> = range.into_par_iter().map(|id| self.load(records, id).map_err(reason)).collect();
        let images = loaded.iter().flatten().flat_map(|(_, images)| images).collect::<Vec<_>>();
        let mut codes = self.encode(&images)?.into_iter();
        let with_codes: Vec<_> = loaded
            .into_iter()
            .map(|loaded| {
                loaded.map(|(record, images)| (record, codes.by_ref().take(images.len()).collect::<Vec<_>>()))
            })
            .collect();
        let encode = |(record, codes): (Record, Vec<CodeGrid>)| {
            let encoded = self.unirep.encode_record(&record, &codes).and_then(|encoded| encoded.for_training());
            encoded.map_err(|error| reason(error.into()))
        };
        Ok(with_codes.into_par_iter().map(|record| record.and_then(encode)).collect())
    }

    /// A record with its images, cropped.
    fn load(&self, records: &Records<'_>, id: u64) -> Result<(Record, Vec<RgbImage>)> {
        let (record, images) = records.load(id as usize)?;
        let mut crops = Crops::new(self.options.crop, id);
        let prepare = |image| {
            let (size, crop) = crops.draw(&self.preprocessor, image)?;
            Ok(self.preprocessor.prepare_as(image, size, crop)?)
        };
        let prepared = images.iter().map(prepare).collect::<Result<_>>()?;
        Ok((record, prepared))
    }

    /// The codes of images of any sizes. Those of one size are encoded together.
    fn encode(&self, images: &[&RgbImage]) -> Result<Vec<CodeGrid>> {
        let mut of_size: Vec<((u32, u32), Vec<usize>)> = Vec::new();
        for (place, image) in images.iter().enumerate() {
            match of_size.iter_mut().find(|(size, _)| *size == image.dimensions()) {
                Some((_, places)) => places.push(place),
                None => of_size.push((image.dimensions(), vec![place])),
            }
        }
        let mut codes: Vec<(usize, CodeGrid)> = Vec::with_capacity(images.len());
        for places in of_size.iter().flat_map(|(_, places)| places.chunks(self.options.images_per_pass)) {
            let batch: Vec<RgbImage> = places.iter().map(|&place| images[place].clone()).collect();
            codes.extend(places.iter().copied().zip(self.images.encode_batch(&batch)?));
        }
        codes.sort_unstable_by_key(|&(place, _)| place);
        Ok(codes.into_iter().map(|(_, codes)| codes).collect())
    }
}

/// An error with its causes, in one line.
fn reason(error: Error) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    std::iter::once(error.to_string()).chain(causes.map(ToString::to_string)).collect::<Vec<_>>().join(": ")
}
