//! The background of a picture, and what stands out from it.

use image::RgbImage;

use crate::{Background, Colour};

/// Pixels further than this from every mixture of background and object colour belong to nothing in a scene.
const FOREIGN: f32 = 80.0;
/// The mean of the background's pixels is at most this far from its colour.
const BACKGROUND_TOLERANCE: f32 = 48.0;

/// Connected pixels that are not background.
pub(super) struct Region {
    /// Their coordinates.
    pub(super) pixels: Vec<(i32, i32)>,
    /// How many of them have each colour, in the order of [`Colour::ALL`]; foreign pixels have none.
    pub(super) colours: [usize; Colour::ALL.len()],
}

/// What a pixel is part of.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Background,
    Object(usize),
    Foreign,
}

fn distance(a: [f32; 3], b: [f32; 3]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt()
}

/// The background that most pixels have, with those at the border counted twice; `None` where no colour of
/// backgrounds is common.
pub(super) fn background(picture: &RgbImage) -> Option<Background> {
    let objects = Colour::ALL.map(|colour| (None, colour.rgb().map(f32::from)));
    let grounds = Background::ALL.map(|ground| (Some(ground), ground.rgb().map(f32::from)));
    let palette: Vec<_> = objects.into_iter().chain(grounds).collect();
    let (width, height) = picture.dimensions();
    let mut found = Background::ALL.map(|ground| (ground, 0u32, [0.0f32; 3]));
    for (x, y, pixel) in picture.enumerate_pixels() {
        let rgb = pixel.0.map(f32::from);
        let nearest = palette.iter().min_by(|a, b| distance(a.1, rgb).total_cmp(&distance(b.1, rgb)));
        let Some(&(Some(ground), _)) = nearest else { continue };
        let at_border = x == 0 || y == 0 || x + 1 == width || y + 1 == height;
        let weight = if at_border { 2 } else { 1 };
        if let Some((_, count, sum)) = found.iter_mut().find(|(of, ..)| *of == ground) {
            *count += weight;
            sum.iter_mut().zip(rgb).for_each(|(sum, channel)| *sum += channel * weight as f32);
        }
    }
    let (ground, count, sum) = found.into_iter().max_by_key(|(_, count, _)| *count)?;
    let common = u64::from(count) * 10 >= u64::from(width) * u64::from(height);
    let mean = sum.map(|sum| sum / count.max(1) as f32);
    (common && distance(mean, ground.rgb().map(f32::from)) <= BACKGROUND_TOLERANCE).then_some(ground)
}

/// What stands out from the background, in connected regions.
///
/// An edge mixes background and colour. So a pixel is compared with all mixtures of the two, not with colours alone:
/// half red on white is half red then, and not some other colour that happens to be near. A pixel is part of a region
/// where the mixture is at least half colour.
pub(super) fn regions(picture: &RgbImage, background: Background) -> Vec<Region> {
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let ground = background.rgb().map(f32::from);
    let mut parts: Vec<Part> = picture.pixels().map(|pixel| part(pixel.0.map(f32::from), ground)).collect();
    let mut regions = Vec::new();
    for start in 0..parts.len() {
        if parts[start] == Part::Background {
            continue;
        }
        let mut region = Region { pixels: Vec::new(), colours: [0; Colour::ALL.len()] };
        let mut open = vec![start];
        while let Some(index) = open.pop() {
            match std::mem::replace(&mut parts[index], Part::Background) {
                Part::Background => continue,
                Part::Object(colour) => region.colours[colour] += 1,
                Part::Foreign => {}
            }
            let (x, y) = (index % width, index / width);
            region.pixels.push((x as i32, y as i32));
            open.extend((x > 0).then(|| index - 1));
            open.extend((x + 1 < width).then_some(index + 1));
            open.extend((y > 0).then(|| index - width));
            open.extend((y + 1 < height).then_some(index + width));
        }
        regions.push(region);
    }
    regions
}

fn part(rgb: [f32; 3], ground: [f32; 3]) -> Part {
    let dot = |a: [f32; 3], b: [f32; 3]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let minus = |a: [f32; 3], b: [f32; 3]| [a[0] - b[0], a[1] - b[1], a[2] - b[2]];
    let mut best = (f32::INFINITY, 0.0, 0);
    for (index, colour) in Colour::ALL.into_iter().enumerate() {
        let line = minus(colour.rgb().map(f32::from), ground);
        let share = (dot(minus(rgb, ground), line) / dot(line, line)).clamp(0.0, 1.0);
        let off = distance(minus(rgb, ground), line.map(|channel| channel * share));
        if off < best.0 {
            best = (off, share, index);
        }
    }
    match best {
        (off, ..) if off > FOREIGN => Part::Foreign,
        (_, share, _) if share < 0.5 => Part::Background,
        (_, _, index) => Part::Object(index),
    }
}
