//! Which objects a picture shows.

use image::RgbImage;
use lumina_core::CELL_PX;

use super::regions::{Parts, Region, background};
use crate::mask::Mask;
use crate::{Background, Kind, Place, Scene, Shape, Size};

/// Regions of fewer pixels are specks; the smallest object has 128.
const MIN_PIXELS: usize = 40;
/// The least overlap (intersection over union) with a shape. Those of one size overlap each other less than 0.8; what is
/// neither small nor large, such as 22 pixels wide, overlaps both less than this.
const MIN_OVERLAP: f64 = 0.7;
/// How far from where its centre of mass puts it a shape is looked for, in pixels.
const REACH: i32 = 2;

/// An object that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Found {
    /// What it looks like.
    pub kind: Kind,
    /// Its centre, in pixels from the picture's left and top.
    pub centre_px: (i32, i32),
}

/// What was found in a picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detection {
    /// Width and height, in pixels.
    pub size_px: (u32, u32),
    /// The background, where it is one that scenes have.
    pub background: Option<Background>,
    /// The objects, in no order.
    pub objects: Vec<Found>,
    /// How many things stand out from the background that are no object of a scene.
    pub strays: usize,
}

impl Detection {
    /// What is to be found in the picture of a scene.
    pub fn of_scene(scene: &Scene) -> Self {
        let find = |object: &crate::Object| Found { kind: object.kind, centre_px: object.centre_px() };
        Self {
            size_px: scene.size().into(),
            background: Some(scene.background()),
            objects: scene.objects().iter().map(find).collect(),
            strays: 0,
        }
    }

    /// Column and row of the cell in which the centre of an object lies.
    pub fn cell(&self, found: &Found) -> (u32, u32) {
        let (columns, rows) = self.cells();
        let cell = |centre: i32, count: u32| (centre.max(0).cast_unsigned() / CELL_PX).min(count - 1);
        (cell(found.centre_px.0, columns), cell(found.centre_px.1, rows))
    }

    /// The place of an object in words.
    pub fn place(&self, found: &Found) -> Place {
        Place::of_cell(self.cell(found), self.cells())
    }

    /// Columns and rows of cells, at least one.
    fn cells(&self) -> (u32, u32) {
        (self.size_px.0.div_ceil(CELL_PX).max(1), self.size_px.1.div_ceil(CELL_PX).max(1))
    }
}

/// Finds background and objects in any picture.
///
/// It bears blur, noise and smeared edges, as image tokenizers make them, but reads nothing into a picture: what is not
/// clearly one of the shapes, in one colour and one of the two sizes, is a stray.
///
/// ```
/// use lumina_scenes::evaluation::{Detection, detect};
/// use lumina_scenes::{Scenes, Split};
///
/// let scene = Scenes::new(5, Split::Test, 96)?.scene(0);
/// let detection = detect(&scene.picture());
/// assert_eq!(detection.background, Some(scene.background()));
/// assert_eq!(detection.objects.len(), scene.objects().len());
/// # Ok::<(), lumina_scenes::Error>(())
/// ```
pub fn detect(picture: &RgbImage) -> Detection {
    let mut detection =
        Detection { size_px: picture.dimensions(), background: background(picture), objects: Vec::new(), strays: 0 };
    let Some(background) = detection.background else { return detection };
    let templates = Template::all();
    let parts = Parts::new(picture, background);
    // All that is pale counts as one.
    detection.strays += usize::from(parts.n_pale() >= MIN_PIXELS);
    for region in parts.into_regions().iter().filter(|region| region.pixels.len() >= MIN_PIXELS) {
        match identify(region, &templates) {
            Some(found) => detection.objects.push(found),
            None => detection.strays += 1,
        }
    }
    detection
}

/// A shape to compare regions with.
struct Template {
    shape: Shape,
    size: Size,
    mask: Mask,
    n_pixels: usize,
    /// Of its pixels, from the centre of its square.
    centroid: (f64, f64),
}

impl Template {
    fn all() -> Vec<Self> {
        let one = |(shape, size)| {
            let mask = Mask::new(shape, size);
            let pixels: Vec<_> = mask.offsets().filter(|&at| mask.covers(at)).collect();
            Self { shape, size, mask, n_pixels: pixels.len(), centroid: centroid(&pixels) }
        };
        Shape::ALL.into_iter().flat_map(|shape| Size::ALL.map(|size| (shape, size))).map(one).collect()
    }

    /// The overlap of the template, centred at `centre`, with a region.
    fn overlap(&self, region: &Region, centre: (i32, i32)) -> f64 {
        let inside = |&&(x, y): &&(i32, i32)| self.mask.covers((x - centre.0, y - centre.1));
        let both = region.pixels.iter().filter(inside).count();
        both as f64 / (region.pixels.len() + self.n_pixels - both) as f64
    }
}

fn centroid(pixels: &[(i32, i32)]) -> (f64, f64) {
    let mean = |of: fn(&(i32, i32)) -> i32| {
        pixels.iter().map(|pixel| i64::from(of(pixel))).sum::<i64>() as f64 / pixels.len().max(1) as f64
    };
    (mean(|pixel| pixel.0), mean(|pixel| pixel.1))
}

/// The object that a region is, where it is one.
fn identify(region: &Region, templates: &[Template]) -> Option<Found> {
    let colour = region.colour?;
    // Nothing much larger can overlap enough, and a picture that is all stray must not take long.
    let largest = templates.iter().map(|template| template.n_pixels).max()?;
    if region.pixels.len() > 2 * largest {
        return None;
    }
    let centre_of_mass = centroid(&region.pixels);
    let mut best = None;
    let mut best_overlap = MIN_OVERLAP;
    for template in templates {
        let x = (centre_of_mass.0 - template.centroid.0).round() as i32;
        let y = (centre_of_mass.1 - template.centroid.1).round() as i32;
        for centre in (-REACH..=REACH).flat_map(|dy| (-REACH..=REACH).map(move |dx| (x + dx, y + dy))) {
            let overlap = template.overlap(region, centre);
            if overlap > best_overlap {
                best_overlap = overlap;
                best = Some(Found { kind: Kind::new(template.size, colour, template.shape), centre_px: centre });
            }
        }
    }
    best
}
