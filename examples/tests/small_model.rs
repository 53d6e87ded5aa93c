//! The model in the repository works as the README says. The thresholds allow for the small number of questions;
//! `evaluate` measures the exact figures.
#![allow(clippy::unwrap_used, reason = "a test's panic is its failure")]

use image::RgbImage;
use lumina_examples::small_model;
use lumina_mgpt::{InputImage, Lumina, Task};
use lumina_scenes::evaluation::{DepthScore, SegmentationScore, caption_is_correct, evaluate_image};
use lumina_scenes::{DEFAULT_TARGET_PX, Scenes, Split};

fn open() -> (Lumina, Scenes) {
    let model = Lumina::from_pretrained(small_model()).load().unwrap();
    (model, Scenes::new(2000, Split::Test, DEFAULT_TARGET_PX).unwrap())
}

#[test]
fn it_fits_into_ten_megabytes() {
    let sizes = std::fs::read_dir(small_model()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len());
    assert!(sizes.sum::<u64>() < 10_000_000);
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
    let error = model.encode_image(&RgbImage::new(96, 96).into()).unwrap_err();
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
    let message = model.text_to_image("a circle", (256, 256)).run().unwrap_err().to_string();
    assert!(message.contains("256x256") && message.contains("96x96"), "{message}");
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
    config["lumina"]["image_sizes"] = serde_json::json!([[64, 96], [96, 96]]);
    std::fs::write(&file, config.to_string()).unwrap();
    let model = Lumina::from_pretrained(folder.path()).load().unwrap();
    let scenes = Scenes::new(2000, Split::Test, DEFAULT_TARGET_PX).unwrap();
    let mut sizes = std::collections::BTreeSet::new();
    for scene in (0..8).map(|index| scenes.scene(index)) {
        let map = model.edit(Task::DepthEstimation, scene.image(), None).run().unwrap();
        assert!([(64, 96), (96, 96)].contains(&map.dimensions()), "{} became {:?}", scene.size(), map.dimensions());
        sizes.insert(map.dimensions());
    }
    assert_eq!(sizes.len(), 2, "{sizes:?}");
    // A target size that the caller sets comes before.
    let model = Lumina::from_pretrained(folder.path()).target_size_px(96).load().unwrap();
    assert_eq!(model.preprocessor().sizes().len(), 7);
}

#[test]
fn it_draws_prompts_at_every_size() {
    const N_QUESTIONS: u64 = 42;
    let (model, scenes) = open();
    let mut sizes = std::collections::BTreeSet::new();
    let mut n_correct = 0;
    for index in 0..N_QUESTIONS {
        let (scene, seed) = (scenes.scene(index), index);
        let caption = scene.caption();
        let size = (scene.size().width_px(), scene.size().height_px());
        let generation = model.text_to_image(&caption.to_string(), size).seed(seed);
        let image = generation.run().unwrap();
        assert_eq!(image.dimensions(), size);
        n_correct += u64::from(evaluate_image(&caption, scene.size(), &image).is_correct());
        sizes.insert(size);
    }
    assert!(sizes.len() >= 5, "{sizes:?}");
    assert!(n_correct * 4 >= N_QUESTIONS * 3, "{n_correct} of {N_QUESTIONS} images are correct");
}

#[test]
fn it_maps_and_captions_images() {
    const N_QUESTIONS: u64 = 24;
    let (model, scenes) = open();
    let (mut segmentation, mut depth, mut captions) = (SegmentationScore::default(), DepthScore::default(), 0);
    for index in 0..N_QUESTIONS {
        let scene = scenes.scene(index);
        let input = || InputImage::from(scene.image());
        let map = |task| model.edit(task, input(), None).seed(index).run().unwrap();
        segmentation.add(&map(Task::SemanticSegmentation), &scene.segmentation_map()).unwrap();
        depth.add(&map(Task::DepthEstimation), &scene.depth_map()).unwrap();
        captions += u64::from(caption_is_correct(model.caption(input()).greedy().run().unwrap().trim(), &scene));
    }
    let (iou, fraction) = (segmentation.mean_iou().unwrap(), depth.fraction_within_tolerance().unwrap());
    assert!(iou > 0.8, "mean IoU {iou}");
    assert!(fraction > 0.95, "{fraction} of the pixels are within tolerance");
    assert!(captions * 3 >= N_QUESTIONS, "{captions} of {N_QUESTIONS} captions are correct");
}
