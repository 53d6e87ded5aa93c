//! The model in the repository works as the README says. The thresholds allow for the small number of questions;
//! `evaluate` measures the exact figures.
#![allow(clippy::unwrap_used, reason = "a test's panic is its failure")]

use std::collections::BTreeSet;

use image::RgbImage;
use lumina_examples::{dataset_for, scenes_for, small_model};
use lumina_mgpt::{InputImage, Lumina, Output, Request, Task};
use lumina_scenes::dataset::{GroundTruth, SceneRecord, SceneTask};
use lumina_scenes::evaluation::{AnswerEvaluation, DepthScore, SegmentationScore, caption_is_correct, evaluate_image};
use lumina_scenes::{DEFAULT_TARGET_PX, Scene, Scenes, Split};

fn open() -> (Lumina, Scenes) {
    let model = Lumina::from_pretrained(small_model()).load().unwrap();
    let scenes = scenes_for(&model, 2000, Split::Test).unwrap();
    (model, scenes)
}

#[test]
fn no_file_has_ten_megabytes() {
    for entry in std::fs::read_dir(small_model()).unwrap().map(Result::unwrap) {
        assert!(entry.metadata().unwrap().len() < 10_000_000, "{}", entry.path().display());
    }
}

/// Under another target size images are resized to more than the model can state: not a fault of the image.
#[test]
fn another_target_size_is_named() {
    let model = Lumina::from_pretrained(small_model()).target_size_px(768).load().unwrap();
    let image = InputImage::open(small_model().join("scene.png")).unwrap();
    let message = model.caption(image).run().unwrap_err().to_string();
    assert!(
        message.contains("target size of 768 pixels") && message.contains("`LuminaBuilder::target_size_px`"),
        "{message}"
    );
    let error = model.encode_image(&RgbImage::new(256, 256).into()).unwrap_err();
    let message = lumina_examples::Error::from(error).to_string();
    assert!(message.contains("`--target-size`") && !message.contains("::"), "{message}");
}

/// What it has not learnt is refused, with what it has.
#[test]
fn other_tasks_and_sizes_are_refused() {
    let (model, scenes) = open();
    let image = InputImage::from(scenes.scene(0).image());
    let message = model.edit(Task::HumanPoseEstimation, image, None).run().unwrap_err().to_string();
    assert!(message.contains("`human_pose_estimation`") && message.contains("depth_estimation"), "{message}");
    let message = model.text_to_image("a circle", (512, 512)).run().unwrap_err().to_string();
    assert!(message.contains("512x512") && message.contains("256x256"), "{message}");
}

/// Images are resized to the sizes that the model states, and what it makes of them has these sizes, too.
#[test]
fn edits_have_the_sizes_that_the_model_states() {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(small_model()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    let file = folder.path().join("generation_config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    config["lumina"]["image_sizes"] = serde_json::json!([[160, 384], [256, 256]]);
    std::fs::write(&file, config.to_string()).unwrap();
    let model = Lumina::from_pretrained(folder.path()).load().unwrap();
    let scenes = Scenes::new(2000, Split::Test, DEFAULT_TARGET_PX).unwrap();
    let mut sizes = BTreeSet::new();
    for scene in (0..6).map(|index| scenes.scene(index)) {
        let map = model.edit(Task::DepthEstimation, scene.image(), None).run().unwrap();
        assert!([(160, 384), (256, 256)].contains(&map.dimensions()), "{} became {:?}", scene.size(), map.dimensions());
        sizes.insert(map.dimensions());
    }
    assert_eq!(sizes.len(), 2, "{sizes:?}");
    // A target size that the caller sets comes before.
    let model = Lumina::from_pretrained(folder.path()).target_size_px(96).load().unwrap();
    assert_eq!(model.preprocessor().sizes().len(), 7);
}

/// Questions of which tests ask many are asked together.
fn answers(model: &Lumina, requests: impl IntoIterator<Item = Request>) -> Vec<Output> {
    let requests: Vec<Request> = requests.into_iter().collect();
    model.run_batch(&requests).into_iter().map(Result::unwrap).collect()
}

#[test]
fn it_draws_prompts_at_every_size() {
    const N_QUESTIONS: u64 = 32;
    let (model, scenes) = open();
    let scenes: Vec<Scene> = (0..N_QUESTIONS).map(|index| scenes.scene(index)).collect();
    let size = |scene: &Scene| (scene.size().width_px(), scene.size().height_px());
    let draw = |(seed, scene): (u64, &Scene)| {
        model.text_to_image(&scene.caption().to_string(), size(scene)).seed(seed).request().unwrap()
    };
    let mut n_correct = 0;
    for (scene, answer) in scenes.iter().zip(answers(&model, (0..).zip(&scenes).map(draw))) {
        assert_eq!(answer.images[0].dimensions(), size(scene));
        n_correct += u64::from(evaluate_image(&scene.caption(), scene.size(), &answer.images[0]).is_correct());
    }
    assert_eq!(scenes.iter().map(size).collect::<BTreeSet<_>>().len(), model.image_sizes().len());
    assert!(n_correct * 4 >= N_QUESTIONS * 3, "{n_correct} of {N_QUESTIONS} images are correct");
}

#[test]
fn it_maps_and_captions_images() {
    const N_QUESTIONS: u64 = 16;
    let (model, scenes) = open();
    let scenes: Vec<Scene> = (0..N_QUESTIONS).map(|index| scenes.scene(index)).collect();
    let map =
        |task| answers(&model, scenes.iter().map(|scene| model.edit(task, scene.image(), None).request().unwrap()));
    let (mut segmentation, mut depth) = (SegmentationScore::default(), DepthScore::default());
    for (scene, answer) in scenes.iter().zip(map(Task::SemanticSegmentation)) {
        segmentation.add(&answer.images[0], &scene.segmentation_map()).unwrap();
    }
    for (scene, answer) in scenes.iter().zip(map(Task::DepthEstimation)) {
        depth.add(&answer.images[0], &scene.depth_map()).unwrap();
    }
    let (iou, fraction) = (segmentation.mean_iou().unwrap(), depth.fraction_within_tolerance().unwrap());
    assert!(iou > 0.8, "mean IoU {iou}");
    assert!(fraction > 0.95, "{fraction} of the pixels are within tolerance");
    let caption = |scene: &Scene| model.caption(scene.image()).greedy().request().unwrap();
    let captions = answers(&model, scenes.iter().map(caption));
    let correct = scenes.iter().zip(&captions).filter(|(scene, answer)| caption_is_correct(answer.text.trim(), scene));
    let correct = correct.count() as u64;
    assert!(correct * 4 >= N_QUESTIONS * 3, "{correct} of {N_QUESTIONS} captions are correct");
}

/// It says what an edited image shows, and then draws that.
#[test]
fn it_edits_images() {
    const N_QUESTIONS: u64 = 32;
    let (model, _) = open();
    let dataset = dataset_for(&model, 2000, Split::Test, SceneTask::Editing).unwrap();
    let records: Vec<SceneRecord> = (0..N_QUESTIONS).map(|index| dataset.record(index)).collect();
    let edit = |record: &SceneRecord| {
        let image = record.ground_truth.scene.image();
        model.edit(Task::Editing, image, record.typed.as_str()).request().unwrap()
    };
    let (mut n_said, mut n_drawn) = (0, 0);
    for (record, answer) in records.iter().zip(answers(&model, records.iter().map(edit))) {
        let GroundTruth { scene, edit, .. } = &record.ground_truth;
        let expected = edit.unwrap().apply(scene).unwrap();
        n_said += u64::from(caption_is_correct(&answer.text_without_images(), &expected));
        let drawn = AnswerEvaluation::new(&record.ground_truth, &answer.text, answer.images.first()).unwrap();
        n_drawn += u64::from(drawn.is_correct());
    }
    assert!(n_said * 5 >= N_QUESTIONS * 2, "{n_said} of {N_QUESTIONS} edited scenes are described correctly");
    assert!(n_drawn * 5 >= N_QUESTIONS * 2, "{n_drawn} of {N_QUESTIONS} edits are correct");
}
