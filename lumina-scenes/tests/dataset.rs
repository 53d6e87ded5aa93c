//! Datasets in memory and on disk.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::Path;

use image::{RgbImage, imageops};
use lumina_core::ImageSize;
use lumina_scenes::dataset::{DatasetOptions, GroundTruth, SceneDataset, SceneTask, write_dataset};
use lumina_scenes::evaluation::{caption_is_correct, evaluate_image};
use lumina_scenes::{Error, Scene, Scenes, Split};
use lumina_tokenizer::Record;

const PLACEHOLDER: &str = "<|image|>";

fn dataset(split: Split, n_records: u64) -> SceneDataset {
    SceneDataset::new(DatasetOptions { seed: 5, split, n_records, ..Default::default() }).unwrap()
}

fn dataset_of(task: SceneTask) -> SceneDataset {
    SceneDataset::new(DatasetOptions { tasks: [(task, 1)].into(), n_records: 40, ..Default::default() }).unwrap()
}

fn texts(record: &Record) -> Vec<&str> {
    record.conversations.iter().map(|turn| turn.value.as_deref().unwrap()).collect()
}

fn contains_held_out(scene: &Scene) -> bool {
    scene.objects().iter().any(|object| object.kind.is_held_out())
}

#[test]
fn held_out_kinds_are_in_their_split_only() {
    let truths = |split, n_records| {
        let dataset = dataset(split, n_records);
        (0..n_records).map(move |index| dataset.ground_truth(index))
    };
    for truth in [Split::Train, Split::Test].into_iter().flat_map(|split| truths(split, 20_000)) {
        assert!(!contains_held_out(&truth.scene));
        if let Some(edit) = truth.edit {
            let edited = edit.apply(&truth.scene).unwrap();
            assert!(!contains_held_out(&edited), "{edit}: {}", edited.caption());
        }
    }
    assert!(truths(Split::HeldOut, 1000).all(|truth| contains_held_out(&truth.scene)));
}

#[test]
fn all_tasks_edits_and_sizes_occur() {
    let mut counts = BTreeMap::<String, usize>::new();
    let mut sizes = HashSet::new();
    let dataset = dataset(Split::Train, 4000);
    for truth in (0..4000).map(|index| dataset.ground_truth(index)) {
        *counts.entry(truth.task.to_string()).or_default() += 1;
        if let Some(edit) = truth.edit {
            let edit = serde_json::to_value(edit).unwrap();
            *counts.entry(format!("edit {}", edit.as_object().unwrap().keys().next().unwrap())).or_default() += 1;
        }
        if let Some(prompt) = &truth.prompt {
            let any = |of: &dyn Fn(&lumina_scenes::Mention) -> bool| prompt.mentions().iter().any(of);
            for (form, is_there) in [
                ("relation", prompt.stated_relation().is_some()),
                ("positions", any(&|mention| mention.position.is_some())),
                ("counts", any(&|mention| mention.count > 1)),
                ("unstated size", any(&|mention| mention.size.is_none())),
                ("unstated colour", any(&|mention| mention.colour.is_none())),
                ("unstated backdrop", prompt.backdrop().is_none()),
            ] {
                *counts.entry(form.to_owned()).or_default() += usize::from(is_there);
            }
        }
        sizes.insert(truth.scene.size());
    }
    assert_eq!(counts.len(), SceneTask::ALL.len() + 10 + 6, "{counts:?}");
    assert!(counts.values().all(|&count| count > 30), "{counts:?}");
    let all = Scenes::new(0, Split::Train, 256).unwrap();
    assert_eq!(sizes, all.sizes().iter().copied().collect());
}

#[test]
fn images_have_the_sizes_asked_for() {
    let dataset = |sizes| SceneDataset::new(DatasetOptions { image_sizes: Some(sizes), ..Default::default() });
    let sizes = vec![(256, 256), (256, 256), (192, 320)];
    let of = |index| dataset(sizes.clone()).unwrap().ground_truth(index).scene.size();
    let n_square = (0..300).filter(|&index| of(index).width_px() == 256).count();
    assert!((150..250).contains(&n_square), "{n_square}");
    assert!(matches!(dataset(vec![(250, 256)]), Err(Error::TargetSize(_))));
    assert!(matches!(dataset(vec![(512, 512)]), Err(Error::Scene { .. })));
}

#[test]
fn more_questions_are_about_the_scene_that_was_seen_last() {
    let options = |more_questions| DatasetOptions { more_questions, ..DatasetOptions::default() };
    let [without, with] = [0, 3].map(|more| SceneDataset::new(options(more)).unwrap());
    for index in 0..300 {
        let (truth, all, first) = (with.ground_truth(index), with.texts(index), without.texts(index));
        assert_eq!(truth, without.ground_truth(index));
        let more = all.strip_prefix(&first[..]).unwrap();
        let is_scene = truth.edit.is_none() && !truth.task.name().ends_with("ation");
        assert_eq!(more.len(), if is_scene { 6 } else { 0 }, "{}", truth.task);
        assert!(more.iter().all(|text| !text.is_empty() && !text.contains(PLACEHOLDER)), "{more:?}");
    }
}

#[test]
fn described_edits_begin_with_the_caption_of_the_edited_scene() {
    let options = |described_edits| DatasetOptions { described_edits, ..DatasetOptions::default() };
    let [without, with] = [false, true].map(|described| SceneDataset::new(options(described)).unwrap());
    let mut n_edits = 0;
    for index in 0..300 {
        let (truth, mut texts) = (with.ground_truth(index), with.texts(index));
        assert_eq!(truth, without.ground_truth(index));
        if let Some(edit) = truth.edit {
            let answer = texts.last_mut().unwrap();
            let caption = answer.strip_suffix(PLACEHOLDER).unwrap();
            assert!(caption_is_correct(caption, &edit.apply(&truth.scene).unwrap()), "{caption}");
            *answer = PLACEHOLDER.to_owned();
            n_edits += 1;
        }
        assert_eq!(texts, without.texts(index));
    }
    assert!(n_edits > 20, "{n_edits}");
}

#[test]
fn records_match_their_ground_truth() {
    let mut n_canonical = 0;
    for (index, record) in (0..).zip(dataset(Split::Test, 600).records()) {
        let (truth, texts) = (&record.ground_truth, texts(&record.record));
        assert_eq!(dataset(Split::Test, 1).texts(index), texts);
        assert_eq!(dataset(Split::Test, 1).ground_truth(index), *truth);
        let n_placeholders: usize = texts.iter().map(|text| text.matches(PLACEHOLDER).count()).sum();
        assert_eq!(n_placeholders, record.images.len());
        assert_eq!(record.images.len(), record.record.image.len());
        let speakers: Vec<&str> = record.record.conversations.iter().map(|turn| turn.from.as_str()).collect();
        assert_eq!(speakers, ["human", "gpt", "human", "gpt"][..texts.len()]);

        let scene = &truth.scene;
        assert_eq!(record.images[0], scene.image());
        let last = texts[texts.len() - 1];
        if let Some(prompt) = &truth.prompt {
            let size = scene.size();
            let start = format!("Generate an image of {size} according to the following prompt:\n");
            let text = texts[0].strip_prefix(&start).unwrap();
            n_canonical += usize::from(text == prompt.to_string());
            assert!(evaluate_image(prompt, size, &record.images[0]).is_correct(), "{prompt}");
            assert_eq!(texts[1], PLACEHOLDER);
        }
        match truth.task {
            SceneTask::Captioning => assert_eq!(texts[0], "Describe the image in detail. <|image|>"),
            SceneTask::DepthEstimation => {
                assert_eq!((texts[0], last), ("Depth estimation. <|image|>", PLACEHOLDER));
                assert_eq!(record.images[1], scene.depth_map());
            }
            SceneTask::SemanticSegmentation => {
                assert_eq!((texts[0], last), ("Segmentic segmentation. <|image|>", PLACEHOLDER));
                assert_eq!(record.images[1], scene.segmentation_map());
            }
            SceneTask::Editing | SceneTask::ImageThenEdit => {
                let edited = truth.edit.unwrap().apply(scene).unwrap();
                assert_eq!(record.images[1], edited.image());
                assert_eq!(last, PLACEHOLDER);
                assert_eq!(texts[0].ends_with(" <|image|>"), truth.task == SceneTask::Editing);
            }
            SceneTask::Question => assert!(texts[0].starts_with("<|image|> "), "{}", texts[0]),
            SceneTask::TextToImage => assert_eq!(texts.len(), 2),
            SceneTask::ImageThenCaption | SceneTask::ImageThenQuestion => assert_eq!(texts.len(), 4),
        }
        let is_caption = matches!(truth.task, SceneTask::Captioning | SceneTask::ImageThenCaption);
        let is_answer = matches!(truth.task, SceneTask::Question | SceneTask::ImageThenQuestion);
        assert_eq!(last == scene.caption().to_string(), is_caption);
        assert_eq!(truth.answer.as_deref() == Some(last), is_answer);
    }
    assert!((80..250).contains(&n_canonical), "{n_canonical}");
}

/// All files of a folder with their content.
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
fn files_equal_the_dataset_in_memory() {
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
        assert_eq!(GroundTruth::from_json(line).unwrap(), made.ground_truth);
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
        let dataset = SceneDataset::new(DatasetOptions { seed, n_records: 30, ..Default::default() }).unwrap();
        write_dataset(folder.path().join(name), &dataset, |_| {}).unwrap();
        contents(&folder.path().join(name))
    };
    let first = write("first", 1);
    assert_eq!(first, write("second", 1));
    assert_ne!(first, write("third", 2));
    // Also if an older dataset is overwritten.
    assert_eq!(write("second", 1), first);
    // A record does not depend on the number of records.
    assert_eq!(dataset(Split::Train, 1).record(17), dataset(Split::Train, 900).record(17));
}

#[test]
fn errors_name_what_cannot_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset_of(SceneTask::TextToImage);
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

    // A failure leaves no records file, neither the old one nor an incomplete new one.
    let halfway = folder.path().join("halfway");
    write_dataset(&halfway, &dataset, |_| {}).unwrap();
    fs::create_dir(halfway.join("images/000020-0.png.partial")).unwrap();
    assert!(write(&halfway).contains("000020-0.png.partial"));
    let left: Vec<_> = fs::read_dir(&halfway).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["images"]);
}

#[test]
fn invalid_options_and_lines_are_errors() {
    let options = |tasks, target_px| DatasetOptions { tasks, target_px, ..Default::default() };
    let none = [(SceneTask::Editing, 0)].into();
    assert!(matches!(SceneDataset::new(options(none, 256)), Err(Error::NoTask)));
    assert!(matches!(SceneDataset::new(options(BTreeMap::new(), 256)), Err(Error::NoTask)));
    let tasks = || [(SceneTask::Editing, u32::MAX), (SceneTask::Captioning, u32::MAX)].into();
    assert!(matches!(SceneDataset::new(options(tasks(), 31)), Err(Error::TargetSize(_))));
    assert!(matches!(SceneDataset::new(options(tasks(), 64)), Err(Error::Scene { .. })));
    assert_eq!(SceneDataset::new(options(tasks(), 128)).unwrap().records().count(), 1000);

    let json = serde_json::to_string(&DatasetOptions::default()).unwrap();
    assert_eq!(serde_json::from_str::<DatasetOptions>(&json).unwrap(), DatasetOptions::default());
    assert_eq!(serde_json::from_str::<DatasetOptions>("{}").unwrap(), DatasetOptions::default());
    assert!(serde_json::from_str::<DatasetOptions>(r#"{"sead": 1}"#).is_err());

    for line in ["", "{}", "[]", r#"{"task":"editing","scene":{"size":[32,32],"background":"white","objects":[]}}"#] {
        assert!(matches!(GroundTruth::from_json(line), Err(Error::GroundTruth(_))), "{line}");
    }
}

#[test]
fn other_targets_have_other_sizes() {
    for target_px in [128, 192] {
        let options = DatasetOptions { target_px, n_records: 300, ..Default::default() };
        let sizes: HashSet<ImageSize> =
            SceneDataset::new(options).unwrap().records().map(|record| record.ground_truth.scene.size()).collect();
        let scenes = Scenes::new(0, Split::Train, target_px).unwrap();
        assert_eq!(sizes, scenes.sizes().iter().copied().collect());
    }
}

/// Objects lie on a grid, so that few different patches occur, however many scenes there are: the README's figures.
#[test]
fn images_and_maps_consist_of_few_patches() {
    let patches = |image: &RgbImage, into: &mut HashSet<Vec<u8>>| {
        for y in (0..image.height()).step_by(16) {
            for x in (0..image.width()).step_by(16) {
                into.insert(imageops::crop_imm(image, x, y, 16, 16).to_image().into_raw());
            }
        }
    };
    let scenes = Scenes::new(8, Split::Train, 256).unwrap();
    let (mut of_plain, mut of_maps, mut scenes_seen) = (HashSet::new(), HashSet::new(), HashSet::new());
    for scene in (0..2000).map(|index| scenes.scene(index)) {
        if !scene.backdrop().shaded {
            patches(&scene.image(), &mut of_plain);
        }
        patches(&scene.depth_map(), &mut of_maps);
        patches(&scene.segmentation_map(), &mut of_maps);
        scenes_seen.insert(scene);
    }
    assert_eq!((of_plain.len(), of_maps.len(), scenes_seen.len()), (6540, 300, 2000));
}
