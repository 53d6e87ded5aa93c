//! Detects the objects in an image.

use image::RgbImage;
use lumina_core::CELL_PX;

use super::regions::{ClassifiedImage, Region, detect_background};
use crate::mask::Mask;
use crate::{Background, Object, ObjectKind, ObjectShape, ObjectSize, Position, Scene};

/// Smaller regions are ignored as noise. The smallest object has 128 pixels.
const MIN_REGION_PIXELS: usize = 40;
/// The smallest intersection over union of a region with a shape. Different shapes of one size have an IoU below 0.8.
/// A shape between small and large, such as 22 pixels wide, has a lower IoU than this with both.
const MIN_IOU: f64 = 0.7;
/// A template is compared at all offsets up to this from its expected centre, in pixels.
const MAX_SHIFT: i32 = 2;

/// A detected object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DetectedObject {
    /// Its size, colour and shape.
    pub kind: ObjectKind,
    /// Its centre, in pixels from the image's left and top.
    pub centre_px: (i32, i32),
}

/// The detected content of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detection {
    /// Width and height, in pixels.
    pub size_px: (u32, u32),
    /// The background, if it is one of those of scenes.
    pub background: Option<Background>,
    /// The objects, in any order.
    pub objects: Vec<DetectedObject>,
    /// How many regions differ from the background and are not an object of a scene.
    pub n_unknown_regions: usize,
}

impl Detection {
    /// The correct detection for the image of a scene.
    pub fn of_scene(scene: &Scene) -> Self {
        let detected = |object: &Object| DetectedObject { kind: object.kind, centre_px: object.centre_px() };
        Self {
            size_px: scene.size().into(),
            background: Some(scene.background()),
            objects: scene.objects().iter().map(detected).collect(),
            n_unknown_regions: 0,
        }
    }

    /// Column and row of the cell that contains the centre of an object.
    pub fn cell(&self, object: &DetectedObject) -> (u32, u32) {
        let (columns, rows) = self.cells();
        let cell = |centre: i32, count: u32| (centre.max(0).cast_unsigned() / CELL_PX).min(count - 1);
        (cell(object.centre_px.0, columns), cell(object.centre_px.1, rows))
    }

    /// The position of an object.
    pub fn position(&self, object: &DetectedObject) -> Position {
        Position::of_cell(self.cell(object), self.cells())
    }

    /// Columns and rows of cells, at least one.
    fn cells(&self) -> (u32, u32) {
        (self.size_px.0.div_ceil(CELL_PX).max(1), self.size_px.1.div_ceil(CELL_PX).max(1))
    }
}

/// Detects background and objects in any image.
///
/// Blur, noise and smeared edges, as image tokenizers cause them, are tolerated. A region that is not clearly one of
/// the shapes, in one colour and one of the two sizes, counts as unknown.
///
/// ```
/// use lumina_scenes::evaluation::detect;
/// use lumina_scenes::{Scenes, Split};
///
/// let scene = Scenes::new(5, Split::Test, 96)?.scene(0);
/// let detection = detect(&scene.image());
/// assert_eq!(detection.background, Some(scene.background()));
/// assert_eq!(detection.objects.len(), scene.objects().len());
/// # Ok::<(), lumina_scenes::Error>(())
/// ```
pub fn detect(image: &RgbImage) -> Detection {
    let mut detection = Detection {
        size_px: image.dimensions(),
        background: detect_background(image),
        objects: Vec::new(),
        n_unknown_regions: 0,
    };
    let Some(background) = detection.background else { return detection };
    let templates = Template::all();
    let classified = ClassifiedImage::new(image, background);
    // All pale pixels together count as one region.
    detection.n_unknown_regions += usize::from(classified.n_pale_pixels() >= MIN_REGION_PIXELS);
    for region in classified.into_regions().iter().filter(|region| region.pixels.len() >= MIN_REGION_PIXELS) {
        match identify(region, &templates) {
            Some(object) => detection.objects.push(object),
            None => detection.n_unknown_regions += 1,
        }
    }
    detection
}

/// A shape and size that regions are compared with.
struct Template {
    shape: ObjectShape,
    size: ObjectSize,
    mask: Mask,
    n_pixels: usize,
    /// The centroid of its pixels, relative to the centre of its bounding square.
    centroid: (f64, f64),
}

impl Template {
    fn all() -> Vec<Self> {
        let template = |(shape, size)| {
            let mask = Mask::new(shape, size);
            let pixels: Vec<_> = mask.offsets().filter(|&at| mask.covers(at)).collect();
            Self { shape, size, mask, n_pixels: pixels.len(), centroid: centroid(&pixels) }
        };
        ObjectShape::ALL.into_iter().flat_map(|shape| ObjectSize::ALL.map(|size| (shape, size))).map(template).collect()
    }

    /// The intersection over union of a region and the template centred at `centre`.
    fn iou(&self, region: &Region, centre: (i32, i32)) -> f64 {
        let inside = |&&(x, y): &&(i32, i32)| self.mask.covers((x - centre.0, y - centre.1));
        let intersection = region.pixels.iter().filter(inside).count();
        intersection as f64 / (region.pixels.len() + self.n_pixels - intersection) as f64
    }
}

fn centroid(pixels: &[(i32, i32)]) -> (f64, f64) {
    let mean = |of: fn(&(i32, i32)) -> i32| {
        pixels.iter().map(|pixel| i64::from(of(pixel))).sum::<i64>() as f64 / pixels.len().max(1) as f64
    };
    (mean(|pixel| pixel.0), mean(|pixel| pixel.1))
}

/// The object that matches a region best, if any matches well enough.
fn identify(region: &Region, templates: &[Template]) -> Option<DetectedObject> {
    let colour = region.colour?;
    // A much larger region cannot match. Checking this first bounds the time for images without objects.
    let largest = templates.iter().map(|template| template.n_pixels).max()?;
    if region.pixels.len() > 2 * largest {
        return None;
    }
    let centre_of_mass = centroid(&region.pixels);
    let mut best = None;
    let mut best_iou = MIN_IOU;
    for template in templates {
        let x = (centre_of_mass.0 - template.centroid.0).round() as i32;
        let y = (centre_of_mass.1 - template.centroid.1).round() as i32;
        for centre in (-MAX_SHIFT..=MAX_SHIFT).flat_map(|dy| (-MAX_SHIFT..=MAX_SHIFT).map(move |dx| (x + dx, y + dy))) {
            let iou = template.iou(region, centre);
            if iou > best_iou {
                best_iou = iou;
                best = Some(DetectedObject {
                    kind: ObjectKind::new(template.size, colour, template.shape),
                    centre_px: centre,
                });
            }
        }
    }
    best
}
