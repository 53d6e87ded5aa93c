//! The background of a picture, and what stands out from it.

use image::RgbImage;

use crate::{Background, Colour};

/// Pixels further than this from every mixture of background and object colour belong to nothing in a scene.
const FOREIGN: f32 = 80.0;
/// The mean of a region's pixels, in which noise is levelled out, is at most this far from the mixtures.
const FOREIGN_MEAN: f32 = 45.0;
/// How much of the mean is colour, and not background, at least: edges, and blur, bring some of it in.
const MIN_SHARE: f32 = 0.65;
/// Pixels of the background are at most this far from its colour; further ones are faint, as edges are.
const FAINT: f32 = 60.0;
/// Faint pixels with only such pixels within this distance are no edge.
const EDGE_PX: i32 = 2;
/// The share of a region's pixels that must have one colour.
const MIN_PURITY: f32 = 0.75;
/// The mean of the background's pixels is at most this far from its colour.
const BACKGROUND_TOLERANCE: f32 = 48.0;

/// Connected pixels that are not background.
pub(super) struct Region {
    /// Their coordinates.
    pub(super) pixels: Vec<(i32, i32)>,
    /// The colour that they have, where it is one of objects.
    pub(super) colour: Option<Colour>,
}

/// What a pixel is part of.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Background,
    /// Between background and something else, but nearer to the background.
    Faint,
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

/// What each pixel of a picture is part of.
pub(super) struct Parts<'a> {
    picture: &'a RgbImage,
    ground: [f32; 3],
    parts: Vec<Part>,
}

impl<'a> Parts<'a> {
    /// Looks at each pixel by itself.
    ///
    /// An edge mixes background and colour. So a pixel is compared with all mixtures of the two, not with colours alone:
    /// half red on white is half red then, and not some other colour that happens to be near. It is part of an object
    /// where the mixture is at least half colour.
    pub(super) fn new(picture: &'a RgbImage, background: Background) -> Self {
        let ground = background.rgb().map(f32::from);
        let parts = picture.pixels().map(|pixel| part(pixel.0.map(f32::from), ground)).collect();
        Self { picture, ground, parts }
    }

    /// How many faint pixels are no edge, as where something pale stands out from the background.
    pub(super) fn n_pale(&self) -> usize {
        let (width, height) = (self.picture.width() as i32, self.picture.height() as i32);
        let faint = |x: i32, y: i32| {
            let inside = (0..width).contains(&x) && (0..height).contains(&y);
            !inside || self.parts[(y * width + x) as usize] == Part::Faint
        };
        let solid = |x: i32, y: i32| {
            let near = -EDGE_PX..=EDGE_PX;
            faint(x, y) && near.clone().all(|dy| near.clone().all(|dx| faint(x + dx, y + dy)))
        };
        (0..height).map(|y| (0..width).filter(|&x| solid(x, y)).count()).sum()
    }

    /// What stands out from the background, in connected regions.
    pub(super) fn into_regions(self) -> Vec<Region> {
        let Self { picture, ground, mut parts } = self;
        let (width, height) = (picture.width() as usize, picture.height() as usize);
        let mut regions = Vec::new();
        for start in 0..parts.len() {
            if matches!(parts[start], Part::Background | Part::Faint) {
                continue;
            }
            let mut pixels = Vec::new();
            let mut votes = [0.0; Colour::ALL.len()];
            let mut sum = [0.0; 3];
            let mut open = vec![start];
            while let Some(index) = open.pop() {
                match std::mem::replace(&mut parts[index], Part::Background) {
                    Part::Background | Part::Faint => continue,
                    Part::Object(colour) => votes[colour] += 1.0,
                    Part::Foreign => {}
                }
                let (x, y) = (index % width, index / width);
                sum = add(sum, picture.get_pixel(x as u32, y as u32).0.map(f32::from));
                pixels.push((x as i32, y as i32));
                open.extend((x > 0).then(|| index - 1));
                open.extend((x + 1 < width).then_some(index + 1));
                open.extend((y > 0).then(|| index - width));
                open.extend((y + 1 < height).then_some(index + width));
            }
            let n_pixels = pixels.len() as f32;
            let voted = Colour::ALL.into_iter().zip(votes).find(|(_, votes)| *votes >= MIN_PURITY * n_pixels);
            let clear = |colour: &Colour| {
                let Mixture { share, off } = Mixture::nearest(sum.map(|sum| sum / n_pixels), *colour, ground);
                share >= MIN_SHARE && off <= FOREIGN_MEAN
            };
            regions.push(Region { pixels, colour: voted.map(|(colour, _)| colour).filter(clear) });
        }
        regions
    }
}

fn part(rgb: [f32; 3], ground: [f32; 3]) -> Part {
    let mixtures = Colour::ALL.map(|colour| Mixture::nearest(rgb, colour, ground));
    let best = mixtures.iter().enumerate().min_by(|(_, a), (_, b)| a.off.total_cmp(&b.off));
    match best {
        Some((index, Mixture { share, off })) if *off <= FOREIGN => match *share {
            0.5.. => Part::Object(index),
            _ if distance(rgb, ground) <= FAINT => Part::Background,
            _ => Part::Faint,
        },
        _ => Part::Foreign,
    }
}

/// A mixture of an object's colour and the background.
struct Mixture {
    /// How much of it is the object's colour, in 0 to 1.
    share: f32,
    /// How far what it is compared with is from it.
    off: f32,
}

impl Mixture {
    /// The mixture that is nearest to `rgb`.
    fn nearest(rgb: [f32; 3], colour: Colour, ground: [f32; 3]) -> Self {
        let dot = |a: [f32; 3], b: [f32; 3]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        let from_ground = |rgb: [f32; 3]| add(rgb, ground.map(|channel| -channel));
        let line = from_ground(colour.rgb().map(f32::from));
        let share = (dot(from_ground(rgb), line) / dot(line, line)).clamp(0.0, 1.0);
        Self { share, off: distance(from_ground(rgb), line.map(|channel| channel * share)) }
    }
}

fn add(a: [f32; 3], b: [f32; 3]) -> [f32; 3] {
    [a[0] + b[0], a[1] + b[1], a[2] + b[2]]
}
