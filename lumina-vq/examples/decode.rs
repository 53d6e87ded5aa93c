//! Decodes the image files whose paths come in, one a line, and writes their pixels: what `tests/images/compare.py`
//! holds against Pillow.
//!
//! For each file there is a line `ok WIDTH HEIGHT MODE`, followed by the bytes of RGB, or a line `error MESSAGE`.

use std::io::{self, Write};

use lumina_vq::preprocess::InputImage;

fn main() -> io::Result<()> {
    let mut out = io::stdout().lock();
    for file in io::stdin().lines() {
        match InputImage::open(file?) {
            Ok(image) => {
                writeln!(out, "ok {} {} {}", image.width(), image.height(), image.mode())?;
                out.write_all(&image.to_rgb())?;
            }
            Err(error) => {
                let source = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
                writeln!(out, "error {}", format!("{error}{source}").replace('\n', " "))?;
            }
        }
        out.flush()?;
    }
    Ok(())
}
