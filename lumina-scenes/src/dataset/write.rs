//! A data set on disk.

use std::fs::{self, File};
use std::io::{BufWriter, Cursor, ErrorKind, Write};
use std::path::{Path, PathBuf};

use image::ImageFormat;
use lumina_tokenizer::Record;

use super::{Dataset, SceneRecord, Truth};
use crate::{Error, Result};

/// The records file of a data set: a JSON record a line.
pub const RECORDS: &str = "records.jsonl";
/// The folder of a data set's pictures, beside the records file.
pub const IMAGES: &str = "images";

/// A line: a [`Record`], with what its answers are judged by under keys that `Record` passes over.
#[derive(serde::Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    record: &'a Record,
    #[serde(flatten)]
    truth: &'a Truth,
}

/// Writes a data set into a folder, which is made where there is none, and gives the path of its records file.
///
/// [`RECORDS`] has a line a record: a [`Record`] of `lumina-tokenizer` with the keys of [`Truth`] beside its own. The
/// pictures are PNG files in [`IMAGES`], named by record and place, `000012-0.png`; their paths in the records are
/// relative to the folder. The same options give the same bytes.
///
/// `progress` is called after each record with how many are written. Every file is written under a temporary name and
/// renamed, the records file last; one that was there before is removed first, so where there is a records file, all of
/// its pictures are there too.
///
/// ```
/// use lumina_scenes::dataset::{Dataset, DatasetOptions, Truth, write_dataset};
///
/// # let folder = tempfile::tempdir()?;
/// let dataset = Dataset::new(DatasetOptions { n_records: 3, ..Default::default() })?;
/// let records = write_dataset(&folder, &dataset, |_done| {})?;
/// let lines = std::fs::read_to_string(records)?;
/// for (line, written) in lines.lines().zip(dataset.records()) {
///     assert_eq!(lumina_tokenizer::Record::from_json(line)?, written.record);
///     assert_eq!(Truth::from_json(line)?, written.truth);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`Error::Write`] and [`Error::Encode`] with the file at fault.
pub fn write_dataset(folder: impl AsRef<Path>, dataset: &Dataset, mut progress: impl FnMut(u64)) -> Result<PathBuf> {
    let folder = folder.as_ref();
    let path = folder.join(RECORDS);
    let images = folder.join(IMAGES);
    fs::create_dir_all(&images).map_err(failed(&images))?;
    match fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(&path)(error)),
        _ => {}
    }
    let partial = partial_name(&path);
    let written = write_records(folder, &partial, dataset, &mut progress)
        .and_then(|()| fs::rename(&partial, &path).map_err(failed(&path)));
    if written.is_err() {
        // What went wrong is of more interest than what cannot be cleared away.
        let _ = fs::remove_file(&partial);
    }
    written.map(|()| path)
}

/// Writes the records to a file, and their pictures into the folder.
fn write_records(folder: &Path, file: &Path, dataset: &Dataset, progress: &mut dyn FnMut(u64)) -> Result<()> {
    let mut lines = BufWriter::new(File::create(file).map_err(failed(file))?);
    for (done, record) in (1..).zip(dataset.records()) {
        write_images(folder, &record)?;
        let line = Line { record: &record.record, truth: &record.truth };
        let written = serde_json::to_writer(&mut lines, &line).map_err(std::io::Error::from);
        written.and_then(|()| lines.write_all(b"\n")).map_err(failed(file))?;
        progress(done);
    }
    let lines = lines.into_inner().map_err(|error| failed(file)(error.into_error()))?;
    lines.sync_all().map_err(failed(file))
}

fn write_images(folder: &Path, record: &SceneRecord) -> Result<()> {
    for (image, name) in record.images.iter().zip(&record.record.image) {
        let path = folder.join(name);
        let partial = partial_name(&path);
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, ImageFormat::Png).map_err(|source| Error::Encode { path: path.clone(), source })?;
        fs::write(&partial, bytes.into_inner()).map_err(failed(&partial))?;
        fs::rename(&partial, &path).map_err(failed(&path))?;
    }
    Ok(())
}

fn partial_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> Error + '_ {
    move |source| Error::Write { path: path.to_owned(), source }
}
