//! Data sets: what is in them, and what is on disk.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::Path;

use image::{RgbImage, imageops};
use lumina_core::{ImageSize, crop_sizes};
use lumina_scenes::dataset::{Dataset, DatasetOptions, SceneTask, Truth, write_dataset};
use lumina_scenes::evaluation::judge;
use lumina_scenes::{Description, Error, HELD_OUT, Scene, Scenes, Split};
use lumina_tokenizer::Record;

const PLACEHOLDER: &str = "<|image|>";

fn dataset(split: Split, n_records: u64) -> Dataset {
    Dataset::new(DatasetOptions { seed: 5, split, n_records, ..Default::default() }).unwrap()
}

fn only(task: SceneTask) -> Dataset {
    Dataset::new(DatasetOptions { tasks: [(task, 1)].into(), n_records: 40, ..Default::default() }).unwrap()
}

fn texts(record: &Record) -> Vec<&str> {
    record.conversations.iter().map(|turn| turn.value.as_deref().unwrap()).collect()
}

fn holds_held_out(scene: &Scene) -> bool {
    scene.objects().iter().any(|object| HELD_OUT.contains(&object.kind))
}

#[test]
fn what_is_held_out_is_only_there() {
    for split in [Split::Train, Split::Test] {
        for record in dataset(split, 3000).records() {
            assert!(!holds_held_out(&record.truth.scene));
            if let Some(edit) = record.truth.edit {
                let edited = edit.apply(&record.truth.scene).unwrap();
                assert!(!holds_held_out(&edited), "{edit}: {}", edited.description());
            }
        }
    }
    assert!(dataset(Split::HeldOut, 1000).records().all(|record| holds_held_out(&record.truth.scene)));
}

#[test]
fn all_tasks_edits_and_sizes_come() {
    let mut counts = BTreeMap::<String, usize>::new();
    let mut sizes = HashSet::new();
    for record in dataset(Split::Train, 2000).records() {
        *counts.entry(record.truth.task.to_string()).or_default() += 1;
        if let Some(edit) = record.truth.edit {
            let instruction = edit.to_string();
            let sort =
                if instruction.contains("background") { "background" } else { instruction.split(' ').next().unwrap() };
            *counts.entry(sort.to_owned()).or_default() += 1;
        }
        if let Some(prompt) = &record.truth.prompt {
            let sort = if prompt.stated_relation().is_some() { "relation" } else { "positions" };
            *counts.entry(sort.to_owned()).or_default() += 1;
        }
        sizes.insert(record.truth.scene.size());
    }
    assert_eq!(counts.len(), SceneTask::ALL.len() + 4 + 2, "{counts:?}");
    assert!(counts.values().all(|&count| count > 50), "{counts:?}");
    assert_eq!(sizes, crop_sizes(96).unwrap().into_iter().collect());
}

#[test]
fn records_hold_what_they_say() {
    for record in dataset(Split::Test, 600).records() {
        let (truth, texts) = (&record.truth, texts(&record.record));
        let n_placeholders: usize = texts.iter().map(|text| text.matches(PLACEHOLDER).count()).sum();
        assert_eq!(n_placeholders, record.images.len());
        assert_eq!(record.images.len(), record.record.image.len());
        let speakers: Vec<&str> = record.record.conversations.iter().map(|turn| turn.from.as_str()).collect();
        assert_eq!(speakers, ["human", "gpt", "human", "gpt"][..texts.len()]);

        let scene = &truth.scene;
        let first = match truth.task {
            SceneTask::TextToImage | SceneTask::ImageThenEdit | SceneTask::ImageThenCaption => {
                let size = scene.size();
                let start = format!("Generate an image of {size} according to the following prompt:\n");
                let prompt: Description = texts[0].strip_prefix(&start).unwrap().parse().unwrap();
                assert_eq!(Some(&prompt), truth.prompt.as_ref());
                assert!(judge(&prompt, size, &record.images[0]).all(), "{prompt}");
                assert_eq!(texts[1], PLACEHOLDER);
                texts[0]
            }
            SceneTask::Captioning => "Describe the image in detail. <|image|>",
            SceneTask::DepthEstimation => "Depth estimation. <|image|>",
            SceneTask::SemanticSegmentation => "Segmentic segmentation. <|image|>",
            SceneTask::Editing => &format!("{} <|image|>", truth.edit.unwrap()),
        };
        assert_eq!(texts[0], first);
        assert_eq!(record.images[0], scene.picture());
        let last = texts[texts.len() - 1];
        match truth.task {
            SceneTask::Captioning => assert_eq!(last, scene.description().to_string()),
            SceneTask::ImageThenCaption => {
                assert_eq!(texts[2..], ["Describe the image in detail.", &scene.description().to_string()]);
            }
            SceneTask::DepthEstimation => assert_eq!(record.images[1], scene.depth()),
            SceneTask::SemanticSegmentation => assert_eq!(record.images[1], scene.segmentation()),
            SceneTask::Editing | SceneTask::ImageThenEdit => {
                let edited = truth.edit.unwrap().apply(scene).unwrap();
                assert_eq!(record.images[1], edited.picture());
                assert_eq!(last, PLACEHOLDER);
            }
            SceneTask::TextToImage => assert_eq!(texts.len(), 2),
        }
        if truth.task == SceneTask::ImageThenEdit {
            assert_eq!(texts[2], truth.edit.unwrap().to_string());
        }
    }
}

/// All files of a folder and what is in them.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            files.extend(contents(&path).into_iter().map(|(inner, bytes)| (format!("{name}/{inner}"), bytes)));
        } else {
            files.insert(name, fs::read(path).unwrap());
        }
    }
    files
}

#[test]
fn what_is_on_disk_is_what_was_made() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(Split::Train, 60);
    let mut seen = Vec::new();
    let path = write_dataset(folder.path().join("new/set"), &dataset, |done| seen.push(done)).unwrap();
    assert_eq!(seen, (1..=60).collect::<Vec<_>>());
    let lines = fs::read_to_string(&path).unwrap();
    assert_eq!(lines.lines().count(), 60);
    for (line, made) in lines.lines().zip(dataset.records()) {
        let record = Record::from_json(line).unwrap();
        assert_eq!(record, made.record);
        assert_eq!(Truth::from_json(line).unwrap(), made.truth);
        for (name, made) in record.image.iter().zip(&made.images) {
            assert!(name.is_relative());
            assert_eq!(&image::open(path.parent().unwrap().join(name)).unwrap().into_rgb8(), made);
        }
    }
    let files = contents(path.parent().unwrap());
    let n_images: usize = dataset.records().map(|record| record.images.len()).sum();
    assert_eq!(files.len(), n_images + 1, "no temporary files are left");
}

#[test]
fn one_seed_gives_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, seed| {
        let dataset = Dataset::new(DatasetOptions { seed, n_records: 30, ..Default::default() }).unwrap();
        write_dataset(folder.path().join(name), &dataset, |_| {}).unwrap();
        contents(&folder.path().join(name))
    };
    let first = write("first", 1);
    assert_eq!(first, write("second", 1));
    assert_ne!(first, write("third", 2));
    // Over an older one, too.
    assert_eq!(write("second", 1), first);
    // And a record does not depend on how many there are.
    assert_eq!(dataset(Split::Train, 1).record(17), dataset(Split::Train, 900).record(17));
}

#[test]
fn what_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = only(SceneTask::TextToImage);
    let write = |path: &Path| match write_dataset(path, &dataset, |_| {}) {
        Err(error @ Error::Write { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    };
    let file = folder.path().join("file");
    fs::write(&file, "in the way").unwrap();
    let message = write(&file);
    assert!(message.contains("file") && message.contains("cannot be written"), "{message}");
    assert!(write(&file.join("inside")).contains("inside"));

    let taken = folder.path().join("taken");
    fs::create_dir_all(taken.join("records.jsonl")).unwrap();
    assert!(write(&taken).contains("records.jsonl"));

    // A failure on the way leaves no records file, neither the old one nor half of a new one.
    let halfway = folder.path().join("halfway");
    write_dataset(&halfway, &dataset, |_| {}).unwrap();
    fs::create_dir(halfway.join("images/000020-0.png.partial")).unwrap();
    assert!(write(&halfway).contains("000020-0.png.partial"));
    let left: Vec<_> = fs::read_dir(&halfway).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["images"]);
}

#[test]
fn bad_options_and_bad_lines_are_errors() {
    let options = |tasks, target_px| DatasetOptions { tasks, target_px, ..Default::default() };
    let none = [(SceneTask::Editing, 0)].into();
    assert!(matches!(Dataset::new(options(none, 96)), Err(Error::NoTask)));
    assert!(matches!(Dataset::new(options(BTreeMap::new(), 96)), Err(Error::NoTask)));
    let tasks = || [(SceneTask::Editing, u32::MAX), (SceneTask::Captioning, u32::MAX)].into();
    assert!(matches!(Dataset::new(options(tasks(), 31)), Err(Error::TargetSize(_))));
    assert_eq!(Dataset::new(options(tasks(), 96)).unwrap().records().count(), 1000);

    let json = serde_json::to_string(&DatasetOptions::default()).unwrap();
    assert_eq!(serde_json::from_str::<DatasetOptions>(&json).unwrap(), DatasetOptions::default());
    assert_eq!(serde_json::from_str::<DatasetOptions>("{}").unwrap(), DatasetOptions::default());
    assert!(serde_json::from_str::<DatasetOptions>(r#"{"sead": 1}"#).is_err());

    for line in ["", "{}", "[]", r#"{"task":"editing","scene":{"size":[32,32],"background":"white","objects":[]}}"#] {
        assert!(matches!(Truth::from_json(line), Err(Error::Truth(_))), "{line}");
    }
}

#[test]
fn other_targets_have_their_sizes() {
    for target_px in [64, 128] {
        let options = DatasetOptions { target_px, n_records: 300, ..Default::default() };
        let sizes: HashSet<ImageSize> =
            Dataset::new(options).unwrap().records().map(|record| record.truth.scene.size()).collect();
        assert_eq!(sizes, crop_sizes(target_px).unwrap().into_iter().collect());
    }
}

/// What the README says of the work that an image tokenizer has.
#[test]
fn pictures_and_maps_are_made_of_few_patches() {
    let patches = |picture: &RgbImage, into: &mut HashSet<Vec<u8>>| {
        for y in (0..picture.height()).step_by(16) {
            for x in (0..picture.width()).step_by(16) {
                into.insert(imageops::crop_imm(picture, x, y, 16, 16).to_image().into_raw());
            }
        }
    };
    let scenes = Scenes::new(8, Split::Train, 96).unwrap();
    let (mut of_pictures, mut of_maps, mut scenes_seen) = (HashSet::new(), HashSet::new(), HashSet::new());
    for scene in (0..5000).map(|index| scenes.scene(index)) {
        patches(&scene.picture(), &mut of_pictures);
        patches(&scene.depth(), &mut of_maps);
        patches(&scene.segmentation(), &mut of_maps);
        scenes_seen.insert(scene);
    }
    assert_eq!(of_pictures.len(), 406);
    assert_eq!(of_maps.len(), 42);
    assert!(scenes_seen.len() > 4000, "{}", scenes_seen.len());
}
