//! The detector and the judge: they see what is there, through blur and noise, and refuse what is not.
#![allow(clippy::unwrap_used, reason = "tests")]

use image::imageops::{self, FilterType};
use image::{Rgb, RgbImage};
use lumina_core::{ImageSize, crop_sizes};
use lumina_scenes::evaluation::{Detection, Found, Verdict, detect, judge};
use lumina_scenes::{
    Background, Colour, Description, Edit, Kind, Mention, Object, Place, Relation, Scene, Scenes, Shape, Size, Split,
};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

fn scenes(split: Split, n_scenes: u64) -> impl Iterator<Item = Scene> {
    let scenes = Scenes::new(42, split, 96).unwrap();
    (0..n_scenes).map(move |index| scenes.scene(index))
}

fn in_order(mut detection: Detection) -> Detection {
    detection.objects.sort_by_key(|found| found.centre_px);
    detection
}

/// Each pixel the mean of the 3 × 3 around it.
fn blur(picture: &RgbImage) -> RgbImage {
    let (width, height) = picture.dimensions();
    RgbImage::from_fn(width, height, |x, y| {
        let around = || (0..9).map(|near| (x + near % 3, y + near / 3));
        let mean = |channel: usize| {
            let inside = |(x, y): (u32, u32)| (x.clamp(1, width) - 1, y.clamp(1, height) - 1);
            around().map(inside).map(|(x, y)| u32::from(picture.get_pixel(x, y).0[channel])).sum::<u32>() / 9
        };
        Rgb([0, 1, 2].map(|channel| mean(channel) as u8))
    })
}

/// To half the size and back.
fn smear(picture: &RgbImage) -> RgbImage {
    let (width, height) = picture.dimensions();
    let half = imageops::resize(picture, width / 2, height / 2, FilterType::Triangle);
    imageops::resize(&half, width, height, FilterType::Triangle)
}

/// Up to 12 more or less in each channel.
fn noise(picture: &RgbImage, seed: u64) -> RgbImage {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    let mut noisy = picture.clone();
    for channel in noisy.iter_mut() {
        let by = (generator.next_u32() % 25) as i16 - 12;
        *channel = (i16::from(*channel) + by).clamp(0, 255) as u8;
    }
    noisy
}

#[test]
fn clean_pictures_are_seen_as_they_are() {
    for split in [Split::Train, Split::Test, Split::HeldOut] {
        for scene in scenes(split, 700) {
            let (found, truth) = (detect(&scene.picture()), Detection::of_scene(&scene));
            assert_eq!(in_order(found), in_order(truth), "{}", scene.description());
            assert!(judge(&scene.description(), scene.size(), &scene.picture()).all());
        }
    }
    for target_px in [32, 64, 128, 256] {
        let scenes = Scenes::new(1, Split::Train, target_px).unwrap();
        assert_eq!(scenes.sizes(), crop_sizes(target_px).unwrap());
        for scene in (0..60).map(|index| scenes.scene(index)) {
            assert!(judge(&scene.description(), scene.size(), &scene.picture()).all(), "{}", scene.description());
        }
    }
}

#[test]
fn every_kind_is_seen_everywhere() {
    for kind in Kind::all() {
        for background in Background::ALL {
            let offsets: &[i32] = if kind.size == Size::Small { &[-8, 0, 8] } else { &[0] };
            for offset_px in offsets.iter().flat_map(|&x| offsets.iter().map(move |&y| (x, y))) {
                let object = Object { kind, cell: (1, 0), offset_px };
                let scene = Scene::new(ImageSize::new(64, 64).unwrap(), background, vec![object]).unwrap();
                for picture in [scene.picture(), noise(&blur(&scene.picture()), 3)] {
                    let verdict = judge(&scene.description(), scene.size(), &picture);
                    assert!(verdict.all(), "{kind} at {offset_px:?} on {background}: {:?}", detect(&picture));
                }
            }
        }
    }
}

#[test]
fn degraded_pictures_are_seen_too() {
    type Degrade = fn(&RgbImage, u64) -> RgbImage;
    let ways: [(&str, Degrade); 4] = [
        ("blur", |picture, _| blur(picture)),
        ("smear", |picture, _| smear(picture)),
        ("noise", noise),
        ("all of it", |picture, seed| noise(&smear(&blur(picture)), seed)),
    ];
    for (way, degrade) in ways {
        let right = |(seed, scene): (u64, Scene)| {
            let picture = degrade(&scene.picture(), seed);
            assert_ne!(picture, scene.picture());
            judge(&scene.description(), scene.size(), &picture).all()
        };
        let n_right = (0..).zip(scenes(Split::Test, 500)).map(right).filter(|right| *right).count();
        assert!(n_right >= 495, "{way}: {n_right} of 500");
    }
}

/// Scenes that differ from the given one in a single respect.
fn near_misses(scene: &Scene) -> Vec<(&'static str, Scene)> {
    let rebuild = |objects: Vec<Object>| Scene::new(scene.size(), scene.background(), objects).ok();
    let mut misses: Vec<(&str, Scene)> = Vec::new();
    for (index, object) in scene.objects().iter().enumerate() {
        let with = |object: Object| {
            let mut objects = scene.objects().to_vec();
            objects[index] = object;
            rebuild(objects)
        };
        let changed = |change: &dyn Fn(&mut Kind)| {
            let mut object = *object;
            change(&mut object.kind);
            object.offset_px = (0, 0);
            with(object)
        };
        let resized = changed(&|kind| kind.size = if kind.size == Size::Small { Size::Large } else { Size::Small });
        misses.extend(resized.map(|scene| ("resized", scene)));
        for colour in Colour::ALL {
            misses.extend(changed(&|kind| kind.colour = colour).map(|scene| ("recoloured", scene)));
        }
        for shape in Shape::ALL {
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
    misses.retain(|(_, other)| !other.description().agrees_with(&scene.description()));
    misses
}

#[test]
fn near_misses_are_refused_for_what_they_are() {
    let mut seen = std::collections::HashMap::<&str, usize>::new();
    for (seed, scene) in (0..).zip(scenes(Split::Test, 40)) {
        let description = scene.description();
        for (how, miss) in near_misses(&scene) {
            *seen.entry(how).or_default() += 1;
            for picture in [miss.picture(), noise(&blur(&miss.picture()), seed)] {
                let verdict = judge(&description, scene.size(), &picture);
                let named = match how {
                    "resized" => verdict.sizes,
                    "recoloured" => verdict.colours,
                    "reshaped" => verdict.shapes,
                    "moved" => verdict.positions,
                    "background" => verdict.background,
                    _ => verdict.count,
                };
                assert!(!verdict.all() && !named, "{how}: `{description}` of `{}`: {verdict:?}", miss.description());
            }
        }
    }
    assert!(seen.len() == 7 && seen.values().all(|&count| count > 30), "{seen:?}");
}

#[test]
fn edits_are_told_from_no_edits() {
    for scene in scenes(Split::Test, 60) {
        for edit in Edit::possible(&scene) {
            let edited = edit.apply(&scene).unwrap();
            let succeeded = |picture: &RgbImage| judge(&edited.description(), scene.size(), picture).all();
            assert!(succeeded(&edited.picture()), "{edit}");
            assert!(!succeeded(&scene.picture()), "{edit}");
        }
    }
}

#[test]
fn what_no_scene_shows_is_a_stray() {
    let scene = scenes(Split::Test, 20).find(|scene| scene.background() == Background::White).unwrap();
    let size = scene.size();
    let paint = |colour: [u8; 3], inside: &dyn Fn(i32, i32) -> bool| {
        let mut picture = RgbImage::from_pixel(96, 96, Rgb([255; 3]));
        for (x, y, pixel) in picture.enumerate_pixels_mut() {
            if inside(x as i32 - 48, y as i32 - 48) {
                *pixel = Rgb(colour);
            }
        }
        detect(&picture)
    };
    let red = Colour::Red.rgb();
    let disc = |radius: i32| move |x: i32, y: i32| x * x + y * y < radius * radius;
    assert_eq!(paint(red, &disc(14)).objects.len(), 1, "a circle, to begin with");
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
        assert!(detection.objects.is_empty() && detection.strays == 1, "{what}: {detection:?}");
        assert_eq!(detection.background, Some(Background::White), "{what}");
    }
    let two_colours = {
        let mut picture = RgbImage::from_pixel(96, 96, Rgb([255; 3]));
        for (x, y, pixel) in picture.enumerate_pixels_mut().filter(|(x, y, _)| disc(14)(*x as i32 - 48, *y as i32 - 48))
        {
            *pixel = Rgb(if x + y < 96 { red } else { Colour::Blue.rgb() });
        }
        detect(&picture)
    };
    assert!(two_colours.objects.is_empty() && two_colours.strays == 1, "{two_colours:?}");

    let pink = RgbImage::from_pixel(96, 96, Rgb([255, 100, 180]));
    assert_eq!(detect(&pink).background, None);
    let blank = RgbImage::from_pixel(size.width_px(), size.height_px(), Rgb([255; 3]));
    let verdict = judge(&scene.description(), size, &blank);
    assert!(verdict.background && verdict.size_px && !verdict.count && !verdict.shapes && !verdict.positions);
    let larger = RgbImage::from_pixel(size.width_px() + 32, size.height_px(), Rgb([255; 3]));
    assert!(!judge(&scene.description(), size, &larger).size_px);
}

#[test]
fn any_picture_has_a_verdict() {
    let scene = scenes(Split::HeldOut, 1).next().unwrap();
    let mut generator = ChaCha8Rng::seed_from_u64(9);
    for (width, height) in [(0, 0), (0, 5), (1, 1), (31, 7), (33, 65), (200, 40)] {
        let mut picture = RgbImage::new(width, height);
        for channel in picture.iter_mut() {
            *channel = generator.next_u32() as u8;
        }
        assert!(!judge(&scene.description(), scene.size(), &picture).all(), "{width}x{height}");
    }
}

#[test]
fn relations_and_open_places_are_judged_by_what_they_say() {
    let size = ImageSize::new(96, 96).unwrap();
    let (circle, cross) =
        (Kind::new(Size::Small, Colour::Red, Shape::Circle), Kind::new(Size::Large, Colour::Blue, Shape::Cross));
    let found = |kind, centre_px| Found { kind, centre_px };
    let seen =
        |objects: Vec<Found>| Detection { size_px: (96, 96), background: Some(Background::Grey), objects, strays: 0 };
    let verdict = |relation, objects| {
        Verdict::new(&Description::relation(circle, relation, cross, Background::Grey), size, &seen(objects))
    };
    let apart = || vec![found(cross, (80, 48)), found(circle, (16, 40))];
    assert!(verdict(Relation::LeftOf, apart()).all());
    for relation in [Relation::RightOf, Relation::Above, Relation::Below] {
        let verdict = verdict(relation, apart());
        assert!(!verdict.relation && !verdict.all() && verdict.shapes && verdict.count, "{relation}");
    }
    // Of two equal objects, either may be the one that is meant.
    let twins = Description::relation(circle, Relation::Above, circle, Background::Grey);
    for rows in [(16, 80), (80, 16)] {
        let objects = vec![found(circle, (16, rows.0)), found(circle, (16, rows.1))];
        assert!(Verdict::new(&twins, size, &seen(objects)).all());
    }
    let places = [None, Some(Place::Left)].map(|place| Mention { kind: circle, place }).to_vec();
    let half_open = Description::list(places, Background::Grey).unwrap();
    let objects = vec![found(circle, (16, 48)), found(circle, (80, 80))];
    assert!(Verdict::new(&half_open, size, &seen(objects)).all());
}
