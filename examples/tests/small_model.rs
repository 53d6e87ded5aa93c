//! The model in the repository does what the README says of it. On few questions, with room for luck: `evaluate` has the
//! figures.
#![allow(clippy::unwrap_used, reason = "a test's panic is its failure")]

use lumina_examples::small_model;
use lumina_mgpt::{Lumina, Task};
use lumina_scenes::judge::{DepthScore, SegmentationScore, caption_is_right, judge};
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
    const ASKED: u64 = 21;
    let (model, scenes) = open();
    let mut sizes = std::collections::BTreeSet::new();
    let mut right = 0;
    for index in 0..ASKED {
        let (scene, seed) = (scenes.scene(index), index);
        let description = scene.description();
        let size = (scene.size().width_px(), scene.size().height_px());
        let picture = model.text_to_image(&description.to_string(), size).seed(seed).run().unwrap();
        assert_eq!(picture.dimensions(), size);
        right += u64::from(judge(&description, scene.size(), &picture).all());
        sizes.insert(size);
    }
    assert!(sizes.len() >= 5, "{sizes:?}");
    assert!(right * 3 >= ASKED * 2, "{right} of {ASKED} pictures are right");
}

#[test]
fn it_says_and_draws_what_it_sees() {
    const ASKED: u64 = 10;
    let (model, scenes) = open();
    let (mut captions, mut depth, mut segmentation) = (0, DepthScore::default(), SegmentationScore::default());
    for scene in (0..ASKED).map(|index| scenes.scene(index)) {
        captions += u64::from(caption_is_right(model.caption(scene.picture()).run().unwrap().trim(), &scene));
        let map = |task| model.edit(task, scene.picture(), None).image_size(scene.size()).run().unwrap();
        depth.add(&map(Task::DepthEstimation), &scene.depth()).unwrap();
        segmentation.add(&map(Task::SemanticSegmentation), &scene.segmentation()).unwrap();
    }
    assert!(captions * 10 >= ASKED * 7, "{captions} of {ASKED} captions are right");
    assert!(depth.share_within().unwrap() > 0.9, "{depth:?}");
    assert!(segmentation.mean_iou().unwrap() > 0.6, "{segmentation:?}");
}
