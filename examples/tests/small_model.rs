//! The model in the repository does what the README says of it. On few questions, with room for luck: `evaluate` has the
//! figures.
#![allow(clippy::unwrap_used, reason = "a test's panic is its failure")]

use lumina_examples::{SMALL_MODEL_SAMPLING, small_model};
use lumina_mgpt::{InputImage, Lumina, Task};
use lumina_scenes::evaluation::{DepthScore, SegmentationScore, caption_is_right, judge};
use lumina_scenes::{DEFAULT_TARGET_PX, Scenes, Split};

fn open() -> (Lumina, Scenes) {
    let model = Lumina::from_pretrained(small_model()).target_size_px(DEFAULT_TARGET_PX).load().unwrap();
    (model, Scenes::new(2000, Split::Test, DEFAULT_TARGET_PX).unwrap())
}

#[test]
fn it_fits_into_ten_megabytes() {
    let sizes = std::fs::read_dir(small_model()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len());
    assert!(sizes.sum::<u64>() < 10_000_000);
}

#[test]
fn it_draws_what_it_is_asked_for_at_every_size() {
    const ASKED: u64 = 42;
    let (model, scenes) = open();
    let mut sizes = std::collections::BTreeSet::new();
    let mut right = 0;
    for index in 0..ASKED {
        let (scene, seed) = (scenes.scene(index), index);
        let description = scene.description();
        let size = (scene.size().width_px(), scene.size().height_px());
        let generation = model.text_to_image(&description.to_string(), size).seed(seed);
        let picture = SMALL_MODEL_SAMPLING.refine(generation).run().unwrap();
        assert_eq!(picture.dimensions(), size);
        right += u64::from(judge(&description, scene.size(), &picture).all());
        sizes.insert(size);
    }
    assert!(sizes.len() >= 5, "{sizes:?}");
    assert!(right * 4 >= ASKED * 3, "{right} of {ASKED} pictures are right");
}

#[test]
fn it_maps_and_captions_what_it_is_shown() {
    const ASKED: u64 = 24;
    let (model, scenes) = open();
    let (mut segmentation, mut depth, mut captions) = (SegmentationScore::default(), DepthScore::default(), 0);
    for index in 0..ASKED {
        let scene = scenes.scene(index);
        let shown = || InputImage::from(scene.picture());
        let map = |task| SMALL_MODEL_SAMPLING.refine(model.edit(task, shown(), None).seed(index)).run().unwrap();
        segmentation.add(&map(Task::SemanticSegmentation), &scene.segmentation()).unwrap();
        depth.add(&map(Task::DepthEstimation), &scene.depth()).unwrap();
        captions += u64::from(caption_is_right(model.caption(shown()).greedy().run().unwrap().trim(), &scene));
    }
    let (iou, within) = (segmentation.mean_iou().unwrap(), depth.share_within().unwrap());
    assert!(iou > 0.8, "mean IoU {iou}");
    assert!(within > 0.95, "{within} of the pixels are near");
    assert!(captions * 3 >= ASKED, "{captions} of {ASKED} captions are right");
}
