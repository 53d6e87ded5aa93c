//! The files that programs read and write.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use image::{ImageFormat, RgbImage};
use lumina_checkpoint::save_bytes;
use lumina_mgpt::InputImage;
use sha2::{Digest, Sha256};

/// The default prompt of programs that draw an image: a scene that the small model knows.
pub const SCENE_PROMPT: &str =
    "a large red circle in the top left and a small blue square in the bottom right on a white background";

/// A file or folder of the test data, which contains small networks with the published layouts and random weights.
pub fn test_data(path: &str) -> PathBuf {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/reference"));
    folder.canonicalize().unwrap_or_else(|_| folder.to_owned()).join(path)
}

/// The folder of the small model in this repository. `train_tiny` trained it on images of simple scenes.
pub fn small_model() -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../model")).to_owned()
}

/// The model that is opened where none is named: the one that the environment variable `LUMINA_MODEL` names, else the
/// small model, where the program runs on the machine that has this repository.
///
/// # Errors
/// What to name.
pub fn default_model() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("LUMINA_MODEL").filter(|path| !path.is_empty()) {
        return Ok(path.into());
    }
    let small = small_model();
    anyhow::ensure!(
        small.is_dir(),
        "no model is named; give a folder, a GGUF file or a name on the hub with `--model`, or set LUMINA_MODEL"
    );
    Ok(small)
}

/// The folder of a model that is named on the hub, downloaded as far as the cache lacks it; a path stays as it is.
///
/// # Errors
/// Those of the download.
pub fn local_model(path: PathBuf) -> crate::Result<PathBuf> {
    #[cfg(feature = "hub")]
    if !path.exists() {
        let bar = crate::progress::DownloadBar::new();
        let builder = lumina_mgpt::Lumina::from_pretrained(&path).on_download(|progress| bar.update(&progress));
        return Ok(builder.download()?.swap_remove(0));
    }
    Ok(path)
}

/// Opens an image; by default a scene that the small model knows.
///
/// # Errors
/// Those of [`InputImage::open`].
pub fn open_image(file: Option<&Path>) -> Result<InputImage> {
    let file = file.map_or_else(|| small_model().join("scene.png"), Path::to_owned);
    Ok(InputImage::open(file)?)
}

/// Writes an image in the format of the file's extension, PNG without one, under a temporary name and renames it
/// ([`save_bytes`]), so that an image viewer never sees an incomplete file.
///
/// # Errors
/// Where the extension is that of no format that is written, and the system's error, with the name of the file.
pub fn save_image(image: &RgbImage, file: &Path) -> Result<()> {
    let save = || -> Result<()> {
        let format = format_of(file)?;
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder)?;
        }
        check_place(file)?;
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, format)?;
        Ok(save_bytes(file, bytes.get_ref())?)
    };
    save().with_context(|| format!("{}: cannot be written", file.display()))
}

/// The SHA-256 of some bytes, in hexadecimal digits.
pub(crate) fn sha256_of(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Bytes in hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Checks that an image can be written to a file of this name: before it is generated, not after.
///
/// # Errors
/// As [`save_image`].
pub fn check_output(file: &Path) -> Result<()> {
    format_of(file).and_then(|_| check_place(file)).with_context(|| format!("{}: cannot be written", file.display()))
}

/// A device or a folder must not be replaced, and nothing can be inside a file.
fn check_place(file: &Path) -> Result<()> {
    if file.file_name().is_none() || (file.exists() && !file.is_file()) {
        anyhow::bail!("it is no file; name one to write, such as out/image.png");
    }
    match file.ancestors().skip(1).find(|folder| folder.exists()) {
        Some(folder) if !folder.is_dir() => anyhow::bail!("{} is no folder", folder.display()),
        _ => Ok(()),
    }
}

fn format_of(file: &Path) -> Result<ImageFormat> {
    let Some(extension) = file.extension() else { return Ok(ImageFormat::Png) };
    match extension.to_string_lossy().to_lowercase().as_str() {
        "png" => Ok(ImageFormat::Png),
        "jpg" | "jpeg" => Ok(ImageFormat::Jpeg),
        "webp" => Ok(ImageFormat::WebP),
        other => anyhow::bail!("images are written as .png, .jpg or .webp, not as .{other}"),
    }
}

/// Images side by side on grey, in rows of at most four. A column is as wide as its widest image, a row as high as its
/// highest.
pub fn contact_sheet(images: &[RgbImage]) -> RgbImage {
    const MARGIN: u32 = 4;
    let columns = images.len().clamp(1, 4);
    let sides = |n: usize, place: fn(usize, usize) -> usize, side: fn(&RgbImage) -> u32| -> Vec<u32> {
        let of = |line| images.iter().enumerate().filter(move |&(index, _)| place(index, columns) == line);
        (0..n).map(|line| of(line).map(|(_, image)| side(image)).max().unwrap_or(0)).collect()
    };
    let widths = sides(columns, |index, columns| index % columns, RgbImage::width);
    let heights = sides(images.len().div_ceil(columns), |index, columns| index / columns, RgbImage::height);
    // Where a column or a row begins, and where the last one ends.
    let start = |sides: &[u32], line: usize| MARGIN + sides[..line].iter().map(|side| side + MARGIN).sum::<u32>();
    let (width, height) = (start(&widths, widths.len()), start(&heights, heights.len()));
    let mut sheet = RgbImage::from_pixel(width, height, image::Rgb([200; 3]));
    for (index, image) in images.iter().enumerate() {
        let (x, y) = (start(&widths, index % columns), start(&heights, index / columns));
        image::imageops::replace(&mut sheet, image, i64::from(x), i64::from(y));
    }
    sheet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extension_is_the_format() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let image = RgbImage::from_pixel(8, 8, image::Rgb([200, 10, 10]));
        for (name, format) in [("a.png", ImageFormat::Png), ("b.JPG", ImageFormat::Jpeg), ("c", ImageFormat::Png)] {
            let file = folder.path().join("new").join(name);
            save_image(&image, &file).expect("it can be written");
            let bytes = std::fs::read(&file).expect("it was written");
            assert_eq!(image::guess_format(&bytes).expect("an image"), format, "{name}");
        }
        let message = format!("{:#}", check_output("x.pdf".as_ref()).expect_err("no format of images"));
        assert!(message.contains("x.pdf") && message.contains(".png, .jpg or .webp"), "{message}");
        for place in [folder.path().to_owned(), folder.path().join("new/a.png/b.png"), "..".into()] {
            let message = format!("{:#}", check_output(&place).expect_err("no place for a file"));
            assert!(message.contains("is no f"), "{message}");
            assert!(save_image(&image, &place).is_err());
        }
        #[cfg(unix)]
        assert!(check_output("/dev/null".as_ref()).is_err());
    }

    #[test]
    fn a_contact_sheet_has_all_images() {
        let image = |red| RgbImage::from_pixel(10, 6, image::Rgb([red, 0, 0]));
        let sheet = contact_sheet(&[image(1), image(2), image(3), image(4), image(5)]);
        assert_eq!(sheet.dimensions(), (4 * 14 + 4, 2 * 10 + 4));
        assert_eq!(
            (sheet.get_pixel(4, 4).0[0], sheet.get_pixel(4 + 14, 4).0[0], sheet.get_pixel(4, 14).0[0]),
            (1, 2, 5)
        );
        assert_eq!(sheet.get_pixel(0, 0).0, [200; 3]);
        let wide = RgbImage::from_pixel(30, 2, image::Rgb([7, 0, 0]));
        let sheet = contact_sheet(&[image(1), image(2), image(3), image(4), wide]);
        assert_eq!((sheet.dimensions(), sheet.get_pixel(4 + 34, 4).0[0]), ((4 + 34 + 3 * 14, 4 + 10 + 6), 2));
        assert_eq!(contact_sheet(&[]).dimensions(), (8, 4));
    }
}
