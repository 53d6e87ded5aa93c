//! The structure that ARCHITECTURE.md promises: which crate depends on which, no circles between the modules of
//! `lumina-mgpt`, and no line over the limit of `rustfmt.toml`.
#![allow(clippy::unwrap_used, reason = "helpers of tests: a panic is the failure")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Each crate with those of the workspace that it may depend on.
const CRATES: [(&str, &[&str]); 14] = [
    ("lumina-core", &[]),
    ("lumina-kernels", &[]),
    ("lumina-cube", &[]),
    ("lumina-checkpoint", &["lumina-core", "lumina-kernels"]),
    ("lumina-nn", &["lumina-core", "lumina-kernels", "lumina-cube", "lumina-checkpoint"]),
    ("lumina-tokenizer", &["lumina-core"]),
    ("lumina-sampling", &["lumina-core"]),
    ("lumina-hub", &["lumina-core"]),
    ("lumina-vq", &["lumina-core", "lumina-checkpoint", "lumina-nn"]),
    (
        "lumina-mgpt",
        &[
            "lumina-core",
            "lumina-kernels",
            "lumina-checkpoint",
            "lumina-nn",
            "lumina-tokenizer",
            "lumina-sampling",
            "lumina-hub",
            "lumina-vq",
        ],
    ),
    (
        "lumina-train",
        &["lumina-core", "lumina-checkpoint", "lumina-nn", "lumina-tokenizer", "lumina-vq", "lumina-mgpt"],
    ),
    (
        "lumina-cli",
        &["lumina-core", "lumina-kernels", "lumina-checkpoint", "lumina-tokenizer", "lumina-mgpt", "lumina-serve"],
    ),
    ("lumina-scenes", &["lumina-core", "lumina-tokenizer"]),
    ("lumina-serve", &["lumina-core", "lumina-tokenizer", "lumina-sampling", "lumina-vq", "lumina-mgpt"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

#[test]
fn crates_depend_in_one_direction() {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(root()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.starts_with("lumina-") {
            found.insert(name);
        }
    }
    let listed: BTreeSet<String> = CRATES.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(found, listed, "a crate is not listed in this test");
    for (name, allowed) in CRATES {
        let manifest = std::fs::read_to_string(root().join(name).join("Cargo.toml")).unwrap();
        let dependencies = manifest.split("\n[").find(|section| section.starts_with("dependencies]")).unwrap();
        for line in dependencies.lines().filter(|line| line.starts_with("lumina-")) {
            let dependency = line.split([' ', '=']).next().unwrap();
            assert!(allowed.contains(&dependency), "{name} depends on {dependency}");
        }
    }
}

#[test]
fn no_line_is_over_the_limit() {
    let limit = std::fs::read_to_string(root().join("rustfmt.toml")).unwrap();
    let limit: usize = limit.lines().find_map(|line| line.strip_prefix("max_width = ")).unwrap().parse().unwrap();
    let mut over = Vec::new();
    for file in rust_files(&root()) {
        let text = std::fs::read_to_string(&file).unwrap();
        for (index, line) in text.lines().enumerate() {
            // Texts and tables are what they are: an error message, a record of a data set, a row of a table.
            let is_whole = line.contains('"')
                || line.trim_start().trim_start_matches('/').starts_with(['!', ' ']) && line.contains(" | ");
            if line.chars().count() > limit && !is_whole {
                over.push(format!("{}:{}", file.display(), index + 1));
            }
        }
    }
    assert!(over.is_empty(), "lines over {limit} columns:\n{}", over.join("\n"));
}

/// A program prints an error and then its sources, each once: see "Errors" in CONTRIBUTING.md.
#[test]
fn messages_leave_their_sources_out() {
    let mut n_sources = 0;
    for (name, _) in CRATES {
        for file in rust_files(&root().join(name).join("src")) {
            let source = std::fs::read_to_string(&file).unwrap();
            for variant in source.split("#[error(").skip(1) {
                // The message and its arguments, then the fields, up to the end of the variant.
                let (message, rest) = variant.split_once(")]\n").unwrap();
                let fields = rest.split("#[error(").next().unwrap();
                let fields = fields.split("\n    }").next().unwrap();
                let has_source = fields.contains("#[source]") || fields.contains(" source:");
                n_sources += usize::from(has_source);
                let repeats = message.contains("source") || (fields.contains("(#[source]") && message.contains("{0"));
                assert!(!(has_source && repeats), "{}: {message}", file.display());
            }
        }
    }
    assert!(n_sources >= 20, "{n_sources}");
}

/// The Rust files below a folder, without what is built.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            files.extend(rust_files(&path));
        } else if name.ends_with(".rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// The modules of a crate: each with the paths that its `use` lines name, and what it hands on by `pub use`.
struct Modules {
    uses: BTreeMap<Vec<String>, BTreeSet<Vec<String>>>,
    exports: BTreeMap<Vec<String>, Vec<String>>,
}

impl Modules {
    fn of(source: &Path) -> Self {
        let mut modules = Self { uses: BTreeMap::new(), exports: BTreeMap::new() };
        for file in rust_files(source) {
            let relative = file.strip_prefix(source).unwrap().with_extension("");
            let mut module: Vec<String> = relative.iter().map(|part| part.to_string_lossy().into_owned()).collect();
            module.pop_if(|last| last == "mod" || last == "lib");
            let text = std::fs::read_to_string(&file).unwrap();
            // Tests may use what they like.
            let text = text.split("#[cfg(test)]\nmod tests").next().unwrap().to_owned();
            modules.uses.entry(module.clone()).or_default();
            for statement in text.split(';') {
                let Some(at) = statement.rfind("use ") else { continue };
                let before = statement[..at].rsplit('\n').next().unwrap().trim();
                if !matches!(before, "" | "pub" | "pub(crate)" | "pub(super)") {
                    continue;
                }
                for path in flattened(&statement[at + 4..]) {
                    let Some(path) = absolute(&module, &path, source) else { continue };
                    // What is handed on is not used.
                    if before.is_empty() {
                        modules.uses.entry(module.clone()).or_default().insert(path);
                    } else {
                        let mut name = module.clone();
                        name.extend(path.last().cloned());
                        modules.exports.insert(name, path);
                    }
                }
            }
        }
        modules
    }

    /// The module that a path leads to, through what others hand on.
    fn resolve(&self, path: &[String]) -> Option<Vec<String>> {
        let mut path = path.to_vec();
        for _ in 0..8 {
            match self.exports.get(&path) {
                Some(next) if *next != path => path = next.clone(),
                _ => break,
            }
        }
        (0..=path.len()).rev().map(|len| path[..len].to_vec()).find(|module| self.uses.contains_key(module))
    }

    /// Whom each module uses.
    fn edges(&self) -> BTreeMap<Vec<String>, BTreeSet<Vec<String>>> {
        let edges = self.uses.iter().map(|(module, paths)| {
            let used = paths.iter().filter_map(|path| self.resolve(path));
            (module.clone(), used.filter(|used| used != module && !used.is_empty()).collect())
        });
        edges.filter(|(module, _): &(Vec<String>, _)| !module.is_empty()).collect()
    }
}

/// `a::{b, c::{d, e as f}}` → `a::b`, `a::c::d`, `a::c::e`.
fn flattened(statement: &str) -> Vec<Vec<String>> {
    let statement: String = statement.split_whitespace().collect::<Vec<_>>().join(" ");
    let Some(open) = statement.find('{') else {
        let path = statement.split(" as ").next().unwrap();
        return vec![path.split("::").map(|part| part.trim().to_owned()).collect()];
    };
    let prefix: Vec<String> =
        statement[..open].trim_end_matches("::").split("::").map(|part| part.trim().to_owned()).collect();
    let inner = &statement[open + 1..statement.rfind('}').unwrap()];
    let (mut depth, mut start, mut all) = (0, 0, Vec::new());
    for (at, letter) in inner.char_indices().chain([(inner.len(), ',')]) {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                let item = inner[start..at].trim();
                start = at + 1;
                if !item.is_empty() {
                    all.extend(flattened(item).into_iter().map(|path| [prefix.clone(), path].concat()));
                }
            }
            _ => {}
        }
    }
    all
}

/// A path from the root of the crate; `None` where it leads to another crate.
fn absolute(module: &[String], path: &[String], source: &Path) -> Option<Vec<String>> {
    let rest = |path: &[String]| path.iter().filter(|part| *part != "self").cloned().collect::<Vec<_>>();
    match path.first().map(String::as_str) {
        Some("crate") => Some(rest(&path[1..])),
        Some("self") => Some([module, &rest(path)[..]].concat()),
        Some("super") => {
            let up = path.iter().take_while(|part| *part == "super").count();
            Some([&module[..module.len().saturating_sub(up)], &rest(&path[up..])[..]].concat())
        }
        Some(first) => {
            // A child module may be named without `self`.
            let child: PathBuf = module.iter().chain([&first.to_owned()]).collect();
            let is_child = source.join(&child).is_dir() || source.join(&child).with_extension("rs").exists();
            is_child.then(|| [module, path].concat())
        }
        None => None,
    }
}

#[test]
fn modules_of_lumina_mgpt_have_no_circles() {
    let source = root().join("lumina-mgpt/src");
    let edges = Modules::of(&source).edges();
    assert!(edges.values().any(|used| !used.is_empty()), "no `use` was understood");
    let name = |module: &[String]| module.join("::");
    for start in edges.keys() {
        // Whom `start` reaches, and by way of whom.
        let mut from: BTreeMap<&Vec<String>, &Vec<String>> = BTreeMap::new();
        let mut open = vec![start];
        while let Some(module) = open.pop() {
            for used in edges.get(module).into_iter().flatten() {
                if used == start {
                    let mut way = vec![name(start), name(module)];
                    let mut at = module;
                    while let Some(&before) = from.get(at) {
                        way.push(name(before));
                        at = before;
                    }
                    way.reverse();
                    panic!("a circle of modules: {}", way.join(" → "));
                }
                if !from.contains_key(used) {
                    from.insert(used, module);
                    open.push(used);
                }
            }
        }
    }
}

#[test]
fn uses_are_understood() {
    let paths = |statement| flattened(statement).iter().map(|path| path.join("::")).collect::<Vec<_>>();
    assert_eq!(paths("a::b"), ["a::b"]);
    assert_eq!(paths("a::{self, b, c::{d, e as f},}"), ["a::self", "a::b", "a::c::d", "a::c::e"]);
}
