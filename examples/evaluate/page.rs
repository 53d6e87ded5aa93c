//! An HTML page of questions and answers.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use image::RgbImage;
use lumina_examples::{contact_sheet, save_image};

/// A question with its evaluated answer.
pub(crate) struct Entry {
    pub(crate) question: String,
    pub(crate) images: Vec<RgbImage>,
    pub(crate) is_correct: bool,
    pub(crate) remark: String,
}

/// The answers of one task as HTML.
struct Section {
    name: String,
    wrong: Vec<String>,
    correct: Vec<String>,
    /// The images of the first answers.
    first: Vec<Vec<RgbImage>>,
}

/// How many answers of a section are kept for sheets of images.
const N_FIRST: usize = 8;

/// An HTML page with its folder of images.
pub(crate) struct Page {
    folder: PathBuf,
    sections: Vec<Section>,
    n_images: usize,
}

impl Page {
    pub(crate) fn new(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder.join("images")).with_context(|| {
            format!("{}: the folder cannot be made; is there a file of that name?", folder.display())
        })?;
        Ok(Self { folder: folder.to_owned(), sections: Vec::new(), n_images: 0 })
    }

    /// Adds an answer to a section, which is created if needed.
    pub(crate) fn add(&mut self, section: &str, entry: Entry) -> Result<()> {
        let class = if entry.is_correct { "correct" } else { "wrong" };
        let mut html = format!("<figure class=\"{class}\">");
        for image in &entry.images {
            let name = format!("images/{:05}.png", self.n_images);
            save_image(image, &self.folder.join(&name))?;
            self.n_images += 1;
            let (width, height) = image.dimensions();
            write!(html, "<img src=\"{name}\" width=\"{width}\" height=\"{height}\">")?;
        }
        write!(
            html,
            "<figcaption>{}<b>{}</b></figcaption></figure>",
            escaped(&entry.question),
            escaped(&entry.remark)
        )?;
        let index = self.sections.iter().position(|existing| existing.name == section).unwrap_or_else(|| {
            self.sections.push(Section {
                name: section.to_owned(),
                wrong: Vec::new(),
                correct: Vec::new(),
                first: Vec::new(),
            });
            self.sections.len() - 1
        });
        let Section { wrong, correct, first, .. } = &mut self.sections[index];
        if first.len() < N_FIRST {
            first.push(entry.images);
        }
        if entry.is_correct {
            correct.push(html)
        } else {
            wrong.push(html)
        }
        Ok(())
    }

    /// Writes the page: the table, then the answers of each task, wrong ones first.
    pub(crate) fn write(&self, rows: &[(String, String)]) -> Result<PathBuf> {
        let mut html = String::from(
            "<!doctype html><meta charset=\"utf-8\"><title>Evaluation</title><style>\
             body{font:14px sans-serif;margin:2em}\
             figure{display:inline-block;vertical-align:top;margin:6px;padding:6px;max-width:560px}\
             img{margin:2px}\
             .correct{background:#e8f5e9}.wrong{background:#ffebee}\
             b{display:block;color:#b71c1c}td{padding:2px 12px}</style><table>",
        );
        for (name, value) in rows {
            write!(html, "<tr><td>{}<td>{}", escaped(name), escaped(value))?;
        }
        html.push_str("</table>");
        for Section { name, wrong, correct, .. } in &self.sections {
            write!(html, "<h2>{}: {} wrong, {} correct</h2>", escaped(name), wrong.len(), correct.len())?;
            wrong.iter().chain(correct).for_each(|entry| html.push_str(entry));
        }
        // The first answers, right or wrong.
        let first = |section, n| self.first(section, n);
        self.sheet("scenes.png", first("text_to_image", N_FIRST))?;
        let maps = first("depth_estimation", 1).chain(first("semantic_segmentation", 1));
        self.sheet("tasks.png", maps.chain(first("editing", 6)))?;
        let file = self.folder.join("index.html");
        fs::write(&file, html).with_context(|| format!("{}: cannot be written", file.display()))?;
        Ok(file)
    }
}

impl Page {
    /// The images of the first answers of a section.
    fn first(&self, section: &str, n: usize) -> impl Iterator<Item = &RgbImage> {
        let section = self.sections.iter().filter(move |existing| existing.name == section);
        section.flat_map(move |section| section.first.iter().take(n).flatten())
    }

    /// Writes images in a sheet.
    fn sheet<'a>(&self, name: &str, images: impl Iterator<Item = &'a RgbImage>) -> Result<()> {
        let images: Vec<RgbImage> = images.cloned().collect();
        if images.is_empty() { Ok(()) } else { save_image(&contact_sheet(&images), &self.folder.join(name)) }
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
