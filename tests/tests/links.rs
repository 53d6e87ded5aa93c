//! Every relative link of the documents leads to a file, and every anchor to a heading of it.
#![allow(clippy::unwrap_used, reason = "helpers of tests: a panic is the failure")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The Markdown files of a folder, sorted.
fn documents_of(folder: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = files.filter(|file| file.extension().is_some_and(|it| it == "md")).collect();
    files.sort();
    files
}

/// Those of the repository, of each of its folders, and of the book.
fn documents() -> Vec<PathBuf> {
    let mut documents = documents_of(&root());
    for entry in std::fs::read_dir(root()).unwrap() {
        let folder = entry.unwrap().path();
        if folder.is_dir() && !folder.ends_with("target") {
            documents.extend(documents_of(&folder));
        }
    }
    documents.extend(documents_of(&root().join("docs/src")));
    documents
}

/// The lines that are no code.
fn prose(text: &str) -> Vec<&str> {
    let mut in_code = false;
    let is_prose = |line: &&str| {
        let is_fence = line.trim_start().starts_with("```");
        in_code ^= is_fence;
        !in_code && !is_fence
    };
    text.lines().filter(is_prose).collect()
}

/// The targets of links and images, as `[text](target)`.
fn links(text: &str) -> Vec<String> {
    // A link may be broken between its text and the end of the line.
    let prose = prose(text).join("\n");
    let targets = prose.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.map(|target| target.split_whitespace().next().unwrap_or_default().to_owned()).collect()
}

/// The anchors of a document, as GitHub and mdBook make them of its headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for heading in prose(text).into_iter().filter(|line| line.starts_with('#')) {
        let title = heading.trim_start_matches('#').trim().to_lowercase();
        // Of a link, the text.
        let title = title.split("](").map(|part| part.rsplit(')').next().unwrap()).collect::<String>();
        let kept = title.chars().filter(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_'));
        let slug: String = kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect();
        let mut anchor = slug.clone();
        for number in 1.. {
            if anchors.insert(anchor.clone()) {
                break;
            }
            anchor = format!("{slug}-{number}");
        }
    }
    anchors
}

#[test]
fn relative_links_lead_somewhere() {
    let book = root().join("docs/src");
    let (mut n_links, mut broken) = (0, Vec::new());
    for document in documents() {
        let text = std::fs::read_to_string(&document).unwrap();
        for link in links(&text).into_iter().filter(|link| !link.contains("://") && !link.starts_with("mailto:")) {
            n_links += 1;
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if path.is_empty() { document.clone() } else { document.parent().unwrap().join(path) };
            // What is outside the book is not in it once it is built.
            let leaves_book = document.starts_with(&book) && path.starts_with("..");
            let has_anchor = || {
                let text = std::fs::read_to_string(&target).unwrap_or_default();
                anchors(&text).contains(anchor)
            };
            if leaves_book || !target.exists() || !(anchor.is_empty() || has_anchor()) {
                broken.push(format!("{}: {link}", document.strip_prefix(root()).unwrap().display()));
            }
        }
    }
    assert!(n_links > 100, "{n_links} links were understood");
    assert!(broken.is_empty(), "links that lead nowhere:\n{}", broken.join("\n"));
}

#[test]
fn merges_are_finished() {
    let unfinished = documents().into_iter().filter(|file| {
        let text = std::fs::read_to_string(file).unwrap();
        text.lines().any(|line| line.starts_with("<<<<<<< ") || line.starts_with(">>>>>>> "))
    });
    assert_eq!(unfinished.collect::<Vec<_>>(), Vec::<PathBuf>::new(), "these files have marks of a merge");
}

#[test]
fn the_summary_lists_every_page_once() {
    let book = root().join("docs/src");
    let summary = std::fs::read_to_string(book.join("SUMMARY.md")).unwrap();
    let mut listed = links(&summary);
    listed.sort();
    let pages = documents_of(&book).into_iter().map(|page| page.file_name().unwrap().to_string_lossy().into_owned());
    let pages: Vec<String> = pages.filter(|page| page != "SUMMARY.md").collect();
    assert_eq!(listed, pages);
}

#[test]
fn links_and_anchors_are_understood() {
    let text = "# A `b` c\n## A b c\n## At 512×512, [now](x.md)\n```text\n# no [link](y)\n```\n[a](b.md#c \"title\") ![](d.png)";
    assert_eq!(links(text), ["x.md", "b.md#c", "d.png"]);
    let anchors: Vec<String> = anchors(text).into_iter().collect();
    assert_eq!(anchors, ["a-b-c", "a-b-c-1", "at-512512-now"]);
}
