//! A page of questions and answers.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use image::RgbImage;
use lumina_examples::save_png;

/// A question with its answer.
pub(crate) struct Entry {
    pub(crate) question: String,
    pub(crate) pictures: Vec<RgbImage>,
    pub(crate) right: bool,
    pub(crate) says: String,
}

/// An HTML page and the folder of its pictures.
pub(crate) struct Page {
    folder: PathBuf,
    /// The answers of each task: wrong ones, and right ones.
    parts: Vec<(String, Vec<String>, Vec<String>)>,
    n_pictures: usize,
}

impl Page {
    pub(crate) fn new(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder.join("pictures")).with_context(|| folder.display().to_string())?;
        Ok(Self { folder: folder.to_owned(), parts: Vec::new(), n_pictures: 0 })
    }

    /// Adds an answer to the part of this name.
    pub(crate) fn add(&mut self, part: &str, entry: Entry) -> Result<()> {
        let class = if entry.right { "right" } else { "wrong" };
        let mut html = format!("<figure class=\"{class}\">");
        for picture in &entry.pictures {
            let name = format!("pictures/{:05}.png", self.n_pictures);
            save_png(picture, &self.folder.join(&name))?;
            self.n_pictures += 1;
            let (width, height) = (picture.width() * 2, picture.height() * 2);
            write!(html, "<img src=\"{name}\" width=\"{width}\" height=\"{height}\">")?;
        }
        write!(html, "<figcaption>{}<b>{}</b></figcaption></figure>", escaped(&entry.question), escaped(&entry.says))?;
        if !self.parts.iter().any(|(name, ..)| name == part) {
            self.parts.push((part.to_owned(), Vec::new(), Vec::new()));
        }
        for (name, wrong, right) in &mut self.parts {
            if name == part {
                if entry.right {
                    right.push(html)
                } else {
                    wrong.push(html)
                }
                break;
            }
        }
        Ok(())
    }

    /// Writes the page with the table above.
    pub(crate) fn write(&self, rows: &[(String, String)]) -> Result<PathBuf> {
        let mut html = String::from(
            "<!doctype html><meta charset=\"utf-8\"><title>Evaluation</title><style>body{font:14px sans-serif;margin:2em}\
             figure{display:inline-block;vertical-align:top;margin:6px;padding:6px;width:280px}img{image-rendering:pixelated;margin:2px}\
             .right{background:#e8f5e9}.wrong{background:#ffebee}b{display:block;color:#b71c1c}td{padding:2px 12px}</style><table>",
        );
        for (name, value) in rows {
            write!(html, "<tr><td>{}<td>{}", escaped(name), escaped(value))?;
        }
        html.push_str("</table>");
        for (name, wrong, right) in &self.parts {
            write!(html, "<h2>{}: {} wrong, {} right</h2>", escaped(name), wrong.len(), right.len())?;
            wrong.iter().chain(right).for_each(|entry| html.push_str(entry));
        }
        let file = self.folder.join("index.html");
        fs::write(&file, html).with_context(|| file.display().to_string())?;
        Ok(file)
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
