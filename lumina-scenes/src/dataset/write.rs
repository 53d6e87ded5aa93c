//! Writes a dataset to disk.

use std::fs::{self, File};
use std::io::{BufWriter, Cursor, ErrorKind, Write};
use std::path::{Path, PathBuf};

use image::ImageFormat;
use lumina_tokenizer::Record;

use super::ground_truth::GroundTruth;
use super::record::{IMAGES_FOLDER, SceneRecord};
use super::scene_dataset::SceneDataset;
use crate::{Error, Result};

/// The name of the records file of a dataset: one JSON record per line.
pub const RECORDS_FILE: &str = "records.jsonl";

/// A line of the records file: a [`Record`], plus the ground truth under keys that `Record` ignores.
#[derive(serde::Serialize)]
struct RecordLine<'a> {
    #[serde(flatten)]
    record: &'a Record,
    #[serde(flatten)]
    ground_truth: &'a GroundTruth,
}

/// Writes a dataset into a folder, which is created if needed, and returns the path of its records file.
///
/// Each line of [`RECORDS_FILE`] is a [`Record`] of `lumina-tokenizer` with the additional keys of [`GroundTruth`]. The
/// images are PNG files in [`IMAGES_FOLDER`], named by record and index, such as `000012-0.png`; the records contain
/// their paths relative to the folder. The same options give the same bytes.
///
/// `progress` is called after each record with the number of records written. Every file is written under a temporary
/// name and then renamed, the records file last; an older records file is removed first. So if there is a records file,
/// all of its images exist.
///
/// ```
/// use lumina_scenes::dataset::{DatasetOptions, GroundTruth, SceneDataset, write_dataset};
///
/// # let folder = tempfile::tempdir()?;
/// let dataset = SceneDataset::new(DatasetOptions { n_records: 3, ..Default::default() })?;
/// let records = write_dataset(&folder, &dataset, |_done| {})?;
/// let lines = std::fs::read_to_string(records)?;
/// for (line, written) in lines.lines().zip(dataset.records()) {
///     assert_eq!(lumina_tokenizer::Record::from_json(line)?, written.record);
///     assert_eq!(GroundTruth::from_json(line)?, written.ground_truth);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`Error::Write`] and [`Error::Encode`] with the file.
pub fn write_dataset(
    folder: impl AsRef<Path>,
    dataset: &SceneDataset,
    mut progress: impl FnMut(u64),
) -> Result<PathBuf> {
    let folder = folder.as_ref();
    let path = folder.join(RECORDS_FILE);
    let images = folder.join(IMAGES_FOLDER);
    fs::create_dir_all(&images).map_err(write_error(&images))?;
    match fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(write_error(&path)(error)),
        _ => {}
    }
    let partial = partial_name(&path);
    let written = write_records(folder, &partial, dataset, &mut progress)
        .and_then(|()| fs::rename(&partial, &path).map_err(write_error(&path)));
    if written.is_err() {
        // The first error matters more than a failed cleanup.
        let _ = fs::remove_file(&partial);
    }
    written.map(|()| path)
}

/// Writes the records to a file, and their images into the folder.
fn write_records(folder: &Path, file: &Path, dataset: &SceneDataset, progress: &mut dyn FnMut(u64)) -> Result<()> {
    let mut lines = BufWriter::new(File::create(file).map_err(write_error(file))?);
    for (done, record) in (1..).zip(dataset.records()) {
        write_images(folder, &record)?;
        let line = RecordLine { record: &record.record, ground_truth: &record.ground_truth };
        let written = serde_json::to_writer(&mut lines, &line).map_err(std::io::Error::from);
        written.and_then(|()| lines.write_all(b"\n")).map_err(write_error(file))?;
        progress(done);
    }
    let lines = lines.into_inner().map_err(|error| write_error(file)(error.into_error()))?;
    lines.sync_all().map_err(write_error(file))
}

fn write_images(folder: &Path, record: &SceneRecord) -> Result<()> {
    for (image, name) in record.images.iter().zip(&record.record.image) {
        let path = folder.join(name);
        let partial = partial_name(&path);
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, ImageFormat::Png).map_err(|source| Error::Encode { path: path.clone(), source })?;
        fs::write(&partial, bytes.into_inner()).map_err(write_error(&partial))?;
        fs::rename(&partial, &path).map_err(write_error(&path))?;
    }
    Ok(())
}

fn partial_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

fn write_error(path: &Path) -> impl FnOnce(std::io::Error) -> Error + '_ {
    move |source| Error::Write { path: path.to_owned(), source }
}
