//! Detection and evaluation of images: correct images pass despite blur and noise, others do not.
#![allow(clippy::unwrap_used, reason = "tests")]

use image::imageops::{self, FilterType};
use image::{Rgb, RgbImage};
use lumina_core::{ImageSize, crop_sizes};
use lumina_scenes::evaluation::{DetectedObject, Detection, ImageEvaluation, detect, evaluate_image};
use lumina_scenes::{
    Background, Caption, Colour, Edit, Mention, Object, ObjectKind, ObjectShape, ObjectSize, Position, Relation, Scene,
    Scenes, Split,
};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

fn scenes(split: Split, n_scenes: u64) -> impl Iterator<Item = Scene> {
    let scenes = Scenes::new(42, split, 96).unwrap();
    (0..n_scenes).map(move |index| scenes.scene(index))
}

fn sorted(mut detection: Detection) -> Detection {
    detection.objects.sort_by_key(|found| found.centre_px);
    detection
}

/// Replaces each pixel by the mean of its 3×3 neighbourhood.
fn blur(image: &RgbImage) -> RgbImage {
    let (width, height) = image.dimensions();
    RgbImage::from_fn(width, height, |x, y| {
        let neighbours = || (0..9).map(|index| (x + index % 3, y + index / 3));
        let mean = |channel: usize| {
            let inside = |(x, y): (u32, u32)| (x.clamp(1, width) - 1, y.clamp(1, height) - 1);
            neighbours().map(inside).map(|(x, y)| u32::from(image.get_pixel(x, y).0[channel])).sum::<u32>() / 9
        };
        Rgb([0, 1, 2].map(|channel| mean(channel) as u8))
    })
}

/// Resizes to half the size and back.
fn smear(image: &RgbImage) -> RgbImage {
    let (width, height) = image.dimensions();
    let half = imageops::resize(image, width / 2, height / 2, FilterType::Triangle);
    imageops::resize(&half, width, height, FilterType::Triangle)
}

/// Adds noise of up to ±12 to each channel.
fn noise(image: &RgbImage, seed: u64) -> RgbImage {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    let mut noisy = image.clone();
    for channel in noisy.iter_mut() {
        let by = (generator.next_u32() % 25) as i16 - 12;
        *channel = (i16::from(*channel) + by).clamp(0, 255) as u8;
    }
    noisy
}

#[test]
fn clean_images_are_detected_exactly() {
    for split in [Split::Train, Split::Test, Split::HeldOut] {
        for scene in scenes(split, 700) {
            let (found, expected) = (detect(&scene.image()), Detection::of_scene(&scene));
            assert_eq!(sorted(found), sorted(expected), "{}", scene.caption());
            assert!(evaluate_image(&scene.caption(), scene.size(), &scene.image()).is_correct());
        }
    }
    for target_px in [32, 64, 128, 256] {
        let scenes = Scenes::new(1, Split::Train, target_px).unwrap();
        assert_eq!(scenes.sizes(), crop_sizes(target_px).unwrap());
        for scene in (0..60).map(|index| scenes.scene(index)) {
            assert!(evaluate_image(&scene.caption(), scene.size(), &scene.image()).is_correct(), "{}", scene.caption());
        }
    }
}

#[test]
fn every_kind_is_detected_everywhere() {
    for kind in ObjectKind::all() {
        for background in Background::ALL {
            let offsets: &[i32] = if kind.size == ObjectSize::Small { &[-8, 0, 8] } else { &[0] };
            for offset_px in offsets.iter().flat_map(|&x| offsets.iter().map(move |&y| (x, y))) {
                let object = Object { kind, cell: (1, 0), offset_px };
                let scene = Scene::new(ImageSize::new(64, 64).unwrap(), background, vec![object]).unwrap();
                for image in [scene.image(), noise(&blur(&scene.image()), 3)] {
                    let evaluation = evaluate_image(&scene.caption(), scene.size(), &image);
                    assert!(evaluation.is_correct(), "{kind} at {offset_px:?} on {background}: {:?}", detect(&image));
                }
            }
        }
    }
}

#[test]
fn degraded_images_are_detected() {
    type Degrade = fn(&RgbImage, u64) -> RgbImage;
    let degradations: [(&str, Degrade); 4] = [
        ("blur", |image, _| blur(image)),
        ("smear", |image, _| smear(image)),
        ("noise", noise),
        ("all of these", |image, seed| noise(&smear(&blur(image)), seed)),
    ];
    for (name, degrade) in degradations {
        let is_correct = |(seed, scene): (u64, Scene)| {
            let image = degrade(&scene.image(), seed);
            assert_ne!(image, scene.image());
            evaluate_image(&scene.caption(), scene.size(), &image).is_correct()
        };
        let n_correct = (0..).zip(scenes(Split::Test, 500)).map(is_correct).filter(|is_correct| *is_correct).count();
        assert!(n_correct >= 495, "{name}: {n_correct} of 500");
    }
}

/// Scenes that differ from the given one in a single property.
fn near_misses(scene: &Scene) -> Vec<(&'static str, Scene)> {
    let rebuild = |objects: Vec<Object>| Scene::new(scene.size(), scene.background(), objects).ok();
    let mut misses: Vec<(&str, Scene)> = Vec::new();
    for (index, object) in scene.objects().iter().enumerate() {
        let with = |object: Object| {
            let mut objects = scene.objects().to_vec();
            objects[index] = object;
            rebuild(objects)
        };
        let changed = |change: &dyn Fn(&mut ObjectKind)| {
            let mut object = *object;
            change(&mut object.kind);
            object.offset_px = (0, 0);
            with(object)
        };
        let resized = changed(&|kind| {
            kind.size = if kind.size == ObjectSize::Small { ObjectSize::Large } else { ObjectSize::Small }
        });
        misses.extend(resized.map(|scene| ("resized", scene)));
        for colour in Colour::ALL {
            misses.extend(changed(&|kind| kind.colour = colour).map(|scene| ("recoloured", scene)));
        }
        for shape in ObjectShape::ALL {
            misses.extend(changed(&|kind| kind.shape = shape).map(|scene| ("reshaped", scene)));
        }
        let (columns, rows) = (scene.size().width_cells(), scene.size().height_cells());
        for cell in (0..rows).flat_map(|row| (0..columns).map(move |column| (column, row))) {
            misses.extend(with(Object { cell, ..*object }).map(|scene| ("moved", scene)));
            let extra = scene.objects().iter().copied().chain([Object { cell, offset_px: (0, 0), ..*object }]);
            misses.extend(rebuild(extra.collect()).map(|scene| ("extra", scene)));
        }
        let fewer = scene.objects().iter().copied().filter(|other| other != object);
        misses.extend(rebuild(fewer.collect()).map(|scene| ("missing", scene)));
    }
    for background in Background::ALL {
        misses.extend(
            Scene::new(scene.size(), background, scene.objects().to_vec()).ok().map(|scene| ("background", scene)),
        );
    }
    misses.retain(|(_, other)| !other.caption().is_equivalent_to(&scene.caption()));
    misses
}

#[test]
fn near_misses_fail_in_the_property_that_differs() {
    let mut counts = std::collections::HashMap::<&str, usize>::new();
    for (seed, scene) in (0..).zip(scenes(Split::Test, 40)) {
        let caption = scene.caption();
        for (how, miss) in near_misses(&scene) {
            *counts.entry(how).or_default() += 1;
            for image in [miss.image(), noise(&blur(&miss.image()), seed)] {
                let evaluation = evaluate_image(&caption, scene.size(), &image);
                let property = match how {
                    "resized" => evaluation.sizes,
                    "recoloured" => evaluation.colours,
                    "reshaped" => evaluation.shapes,
                    "moved" => evaluation.positions,
                    "background" => evaluation.background,
                    _ => evaluation.count,
                };
                assert!(
                    !evaluation.is_correct() && !property,
                    "{how}: `{caption}` of `{}`: {evaluation:?}",
                    miss.caption()
                );
            }
        }
    }
    assert!(counts.len() == 7 && counts.values().all(|&count| count > 30), "{counts:?}");
}

#[test]
fn edits_are_distinguished_from_no_edit() {
    for scene in scenes(Split::Test, 60) {
        for edit in Edit::possible(&scene) {
            let edited = edit.apply(&scene).unwrap();
            let succeeded = |image: &RgbImage| evaluate_image(&edited.caption(), scene.size(), image).is_correct();
            assert!(succeeded(&edited.image()), "{edit}");
            assert!(!succeeded(&scene.image()), "{edit}");
        }
    }
}

#[test]
fn other_content_is_an_unknown_region() {
    let scene = scenes(Split::Test, 20).find(|scene| scene.background() == Background::White).unwrap();
    let size = scene.size();
    let paint = |colour: [u8; 3], inside: &dyn Fn(i32, i32) -> bool| {
        let mut image = RgbImage::from_pixel(96, 96, Rgb([255; 3]));
        for (x, y, pixel) in image.enumerate_pixels_mut() {
            if inside(x as i32 - 48, y as i32 - 48) {
                *pixel = Rgb(colour);
            }
        }
        detect(&image)
    };
    let red = Colour::Red.rgb();
    let disc = |radius: i32| move |x: i32, y: i32| x * x + y * y < radius * radius;
    assert_eq!(paint(red, &disc(14)).objects.len(), 1, "a circle of a scene");
    for (what, detection) in [
        ("a medium circle", paint(red, &disc(11))),
        ("a huge circle", paint(red, &disc(30))),
        ("a ring", paint(red, &|x, y| disc(14)(x, y) && !disc(9)(x, y))),
        ("a bar", paint(red, &|x, y| x.abs() < 30 && y.abs() < 4)),
        ("a black circle", paint([0; 3], &disc(14))),
        ("a grey square", paint([128; 3], &|x, y| x.abs() < 8 && y.abs() < 8)),
        ("a pale circle", paint([255, 190, 190], &disc(14))),
        ("another background's half", paint([150, 205, 250], &|x, _| x > 10)),
    ] {
        assert!(detection.objects.is_empty() && detection.n_unknown_regions == 1, "{what}: {detection:?}");
        assert_eq!(detection.background, Some(Background::White), "{what}");
    }
    let two_colours = {
        let mut image = RgbImage::from_pixel(96, 96, Rgb([255; 3]));
        for (x, y, pixel) in image.enumerate_pixels_mut().filter(|(x, y, _)| disc(14)(*x as i32 - 48, *y as i32 - 48)) {
            *pixel = Rgb(if x + y < 96 { red } else { Colour::Blue.rgb() });
        }
        detect(&image)
    };
    assert!(two_colours.objects.is_empty() && two_colours.n_unknown_regions == 1, "{two_colours:?}");

    let pink = RgbImage::from_pixel(96, 96, Rgb([255, 100, 180]));
    assert_eq!(detect(&pink).background, None);
    let blank = RgbImage::from_pixel(size.width_px(), size.height_px(), Rgb([255; 3]));
    let evaluation = evaluate_image(&scene.caption(), size, &blank);
    assert!(
        evaluation.background && evaluation.size_px && !evaluation.count && !evaluation.shapes && !evaluation.positions
    );
    let larger = RgbImage::from_pixel(size.width_px() + 32, size.height_px(), Rgb([255; 3]));
    assert!(!evaluate_image(&scene.caption(), size, &larger).size_px);
}

#[test]
fn any_image_can_be_evaluated() {
    let scene = scenes(Split::HeldOut, 1).next().unwrap();
    let mut generator = ChaCha8Rng::seed_from_u64(9);
    for (width, height) in [(0, 0), (0, 5), (1, 1), (31, 7), (33, 65), (200, 40)] {
        let mut image = RgbImage::new(width, height);
        for channel in image.iter_mut() {
            *channel = generator.next_u32() as u8;
        }
        assert!(!evaluate_image(&scene.caption(), scene.size(), &image).is_correct(), "{width}x{height}");
    }
}

#[test]
fn only_the_stated_relations_and_positions_matter() {
    let size = ImageSize::new(96, 96).unwrap();
    let (circle, cross) = (
        ObjectKind::new(ObjectSize::Small, Colour::Red, ObjectShape::Circle),
        ObjectKind::new(ObjectSize::Large, Colour::Blue, ObjectShape::Cross),
    );
    let object = |kind, centre_px| DetectedObject { kind, centre_px };
    let detection = |objects: Vec<DetectedObject>| Detection {
        size_px: (96, 96),
        background: Some(Background::Grey),
        objects,
        n_unknown_regions: 0,
    };
    let evaluation = |relation, objects| {
        ImageEvaluation::new(&Caption::relation(circle, relation, cross, Background::Grey), size, &detection(objects))
    };
    let apart = || vec![object(cross, (80, 48)), object(circle, (16, 40))];
    assert!(evaluation(Relation::LeftOf, apart()).is_correct());
    for relation in [Relation::RightOf, Relation::Above, Relation::Below] {
        let evaluation = evaluation(relation, apart());
        assert!(
            !evaluation.relation && !evaluation.is_correct() && evaluation.shapes && evaluation.count,
            "{relation}"
        );
    }
    // Of two equal objects, either may be the first.
    let twins = Caption::relation(circle, Relation::Above, circle, Background::Grey);
    for rows in [(16, 80), (80, 16)] {
        let objects = vec![object(circle, (16, rows.0)), object(circle, (16, rows.1))];
        assert!(ImageEvaluation::new(&twins, size, &detection(objects)).is_correct());
    }
    let positions = [None, Some(Position::Left)].map(|position| Mention { kind: circle, position }).to_vec();
    let partial = Caption::list(positions, Background::Grey).unwrap();
    let objects = vec![object(circle, (16, 48)), object(circle, (80, 80))];
    assert!(ImageEvaluation::new(&partial, size, &detection(objects)).is_correct());
}
