//! Finds the background of an image and the connected regions that differ from it.

use image::RgbImage;

use crate::{Background, Colour};

// Colour distances are Euclidean, in 8-bit RGB.

/// The largest distance of a pixel from the nearest mixture of background and object colour. Pixels at a larger
/// distance do not occur in scenes.
const MAX_PIXEL_DISTANCE: f32 = 80.0;
/// The same for the mean of a region's pixels, which has less noise.
const MAX_MEAN_DISTANCE: f32 = 45.0;
/// The smallest fraction of object colour in a region's mean. Antialiased edges and blur add some background.
const MIN_OBJECT_FRACTION: f32 = 0.65;
/// The largest distance of a background pixel from the background colour. Pixels at a larger distance, but nearer to
/// the background than to an object, are faint. Edges are.
const MAX_BACKGROUND_DISTANCE: f32 = 60.0;
/// The width of an edge. A faint pixel with only faint pixels within this distance is not part of an edge.
const EDGE_PX: i32 = 2;
/// The smallest fraction of a region's pixels that have the same colour.
const MIN_PURITY: f32 = 0.75;
/// The largest distance of the mean of the background's pixels from the background colour.
const MAX_BACKGROUND_MEAN_DISTANCE: f32 = 48.0;

/// Connected pixels that are not background.
pub(super) struct Region {
    /// Coordinates `(x, y)`.
    pub(super) pixels: Vec<(i32, i32)>,
    /// Their colour, if it is a colour of objects.
    pub(super) colour: Option<Colour>,
}

/// What a pixel belongs to.
#[derive(Clone, Copy, PartialEq)]
enum PixelClass {
    Background,
    /// A mixture of background and object colour, nearer to the background.
    Faint,
    /// An object, with an index into [`Colour::ALL`].
    Object(usize),
    /// Nothing that occurs in scenes.
    Unknown,
}

fn distance(a: [f32; 3], b: [f32; 3]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt()
}

/// The pixels whose nearest colour is that of a background.
struct BackgroundVotes {
    background: Background,
    count: u32,
    rgb_sum: [f32; 3],
}

/// The background of most pixels, with pixels at the border counted twice; `None` if no background colour is common.
pub(super) fn detect_background(image: &RgbImage) -> Option<Background> {
    let object_colours = Colour::ALL.map(|colour| (None, colour.rgb().map(f32::from)));
    let backgrounds = Background::ALL.map(|background| (Some(background), background.rgb().map(f32::from)));
    let palette: Vec<_> = object_colours.into_iter().chain(backgrounds).collect();
    let (width, height) = image.dimensions();
    let mut votes = Background::ALL.map(|background| BackgroundVotes { background, count: 0, rgb_sum: [0.0; 3] });
    for (x, y, pixel) in image.enumerate_pixels() {
        let rgb = pixel.0.map(f32::from);
        let nearest = palette.iter().min_by(|a, b| distance(a.1, rgb).total_cmp(&distance(b.1, rgb)));
        let Some(&(Some(background), _)) = nearest else { continue };
        let at_border = x == 0 || y == 0 || x + 1 == width || y + 1 == height;
        let weight = if at_border { 2 } else { 1 };
        if let Some(votes) = votes.iter_mut().find(|votes| votes.background == background) {
            votes.count += weight;
            votes.rgb_sum.iter_mut().zip(rgb).for_each(|(sum, channel)| *sum += channel * weight as f32);
        }
    }
    let BackgroundVotes { background, count, rgb_sum } = votes.into_iter().max_by_key(|votes| votes.count)?;
    let is_common = u64::from(count) * 10 >= u64::from(width) * u64::from(height);
    let mean = rgb_sum.map(|sum| sum / count.max(1) as f32);
    let is_close = distance(mean, background.rgb().map(f32::from)) <= MAX_BACKGROUND_MEAN_DISTANCE;
    (is_common && is_close).then_some(background)
}

/// An image with the class of each pixel.
pub(super) struct ClassifiedImage<'a> {
    image: &'a RgbImage,
    background_rgb: [f32; 3],
    classes: Vec<PixelClass>,
}

impl<'a> ClassifiedImage<'a> {
    /// Classifies each pixel by itself.
    ///
    /// Edges mix background and object colour, so a pixel is compared with all mixtures of the two, not with pure
    /// colours only. For example, half red on white is classified as half red, and not as another colour that is
    /// similar. A pixel belongs to an object if the mixture is at least half object colour.
    pub(super) fn new(image: &'a RgbImage, background: Background) -> Self {
        let background_rgb = background.rgb().map(f32::from);
        let classes = image.pixels().map(|pixel| classify(pixel.0.map(f32::from), background_rgb)).collect();
        Self { image, background_rgb, classes }
    }

    /// The number of faint pixels that are not part of an edge: the area of something pale on the background.
    pub(super) fn n_pale_pixels(&self) -> usize {
        let (width, height) = (self.image.width() as i32, self.image.height() as i32);
        let faint = |x: i32, y: i32| {
            let inside = (0..width).contains(&x) && (0..height).contains(&y);
            !inside || self.classes[(y * width + x) as usize] == PixelClass::Faint
        };
        let pale = |x: i32, y: i32| {
            let near = -EDGE_PX..=EDGE_PX;
            faint(x, y) && near.clone().all(|dy| near.clone().all(|dx| faint(x + dx, y + dy)))
        };
        (0..height).map(|y| (0..width).filter(|&x| pale(x, y)).count()).sum()
    }

    /// The connected regions of pixels that are neither background nor faint.
    pub(super) fn into_regions(self) -> Vec<Region> {
        let Self { image, background_rgb, mut classes } = self;
        let (width, height) = (image.width() as usize, image.height() as usize);
        let mut regions = Vec::new();
        for start in 0..classes.len() {
            if matches!(classes[start], PixelClass::Background | PixelClass::Faint) {
                continue;
            }
            let mut pixels = Vec::new();
            let mut n_of_colour = [0.0; Colour::ALL.len()];
            let mut rgb_sum = [0.0; 3];
            let mut open = vec![start];
            while let Some(index) = open.pop() {
                match std::mem::replace(&mut classes[index], PixelClass::Background) {
                    PixelClass::Background | PixelClass::Faint => continue,
                    PixelClass::Object(colour) => n_of_colour[colour] += 1.0,
                    PixelClass::Unknown => {}
                }
                let (x, y) = (index % width, index / width);
                rgb_sum = add(rgb_sum, image.get_pixel(x as u32, y as u32).0.map(f32::from));
                pixels.push((x as i32, y as i32));
                open.extend((x > 0).then(|| index - 1));
                open.extend((x + 1 < width).then_some(index + 1));
                open.extend((y > 0).then(|| index - width));
                open.extend((y + 1 < height).then_some(index + width));
            }
            let n_pixels = pixels.len() as f32;
            let majority = Colour::ALL.into_iter().zip(n_of_colour).find(|(_, n)| *n >= MIN_PURITY * n_pixels);
            let is_clear = |colour: &Colour| {
                let mean = rgb_sum.map(|sum| sum / n_pixels);
                let Mixture { object_fraction, distance } = Mixture::nearest(mean, *colour, background_rgb);
                object_fraction >= MIN_OBJECT_FRACTION && distance <= MAX_MEAN_DISTANCE
            };
            regions.push(Region { pixels, colour: majority.map(|(colour, _)| colour).filter(is_clear) });
        }
        regions
    }
}

fn classify(rgb: [f32; 3], background_rgb: [f32; 3]) -> PixelClass {
    let mixtures = Colour::ALL.map(|colour| Mixture::nearest(rgb, colour, background_rgb));
    let best = mixtures.iter().enumerate().min_by(|(_, a), (_, b)| a.distance.total_cmp(&b.distance));
    match best {
        Some((index, mixture)) if mixture.distance <= MAX_PIXEL_DISTANCE => match mixture.object_fraction {
            0.5.. => PixelClass::Object(index),
            _ if distance(rgb, background_rgb) <= MAX_BACKGROUND_DISTANCE => PixelClass::Background,
            _ => PixelClass::Faint,
        },
        _ => PixelClass::Unknown,
    }
}

/// The mixture of an object colour and the background that is nearest to a given colour.
struct Mixture {
    /// The fraction of object colour, 0 to 1.
    object_fraction: f32,
    /// The distance of the given colour from the mixture.
    distance: f32,
}

impl Mixture {
    fn nearest(rgb: [f32; 3], colour: Colour, background_rgb: [f32; 3]) -> Self {
        let dot = |a: [f32; 3], b: [f32; 3]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        let from_background = |rgb: [f32; 3]| add(rgb, background_rgb.map(|channel| -channel));
        let (line, point) = (from_background(colour.rgb().map(f32::from)), from_background(rgb));
        let object_fraction = (dot(point, line) / dot(line, line)).clamp(0.0, 1.0);
        Self { object_fraction, distance: distance(point, line.map(|channel| channel * object_fraction)) }
    }
}

fn add(a: [f32; 3], b: [f32; 3]) -> [f32; 3] {
    [a[0] + b[0], a[1] + b[1], a[2] + b[2]]
}
