//! Identifies the object that a region shows, by drawing what it could be and comparing.

use std::sync::LazyLock;

use image::RgbImage;

use super::detection::DetectedObject;
use super::distance::{ColourLine, squared_distance};
use super::regions::{Membership, Region, RegionMap};
use crate::mask::Mask;
use crate::{Backdrop, Colour, Fill, ObjectKind, ObjectShape, ObjectSize};

/// Wider or higher regions are no object of a scene. Blur and smeared edges add some pixels to the 96 of a large one.
const MAX_REGION_PX: u32 = 112;
/// The bits of a row of pixels, with this many unused ones on the left of a region.
const MARGIN_PX: i32 = 8;
/// A template is compared at all offsets up to this from where its pixels have the same centroid as the region.
const MAX_SHIFT: i32 = 3;
/// How many templates, those most like the region's outline, are compared with its pixels.
const N_CANDIDATES: usize = 4;
/// Pixels up to this far from the region's rectangle are compared.
const WINDOW_MARGIN_PX: u32 = 6;
/// Where a fill's dark pixels are darker than the others by this much of what they should be, on average, it is seen.
/// By the squared error, blurred dots of half the contrast were none.
const MIN_CONTRAST: f64 = 0.35;
/// The largest squared distance of a pixel that counts.
const MAX_SQUARED_DISTANCE: i32 = 150 * 150;

/// The smallest intersection over union of a shape and the pixels that are more like the object than the backdrop.
/// A circle between small and large has less with both.
const MIN_IOU: f64 = 0.8;
/// A pixel inside at a larger distance from the object's colour there is wrong.
const MAX_PIXEL_DISTANCE: i32 = 80;
/// The largest fraction of wrong pixels inside. Dots are 0.28 of a dotted object.
const MAX_WRONG_FRACTION: f64 = 0.2;
/// The largest distance of the mean of the pixels inside from that of the object.
const MAX_MEAN_DISTANCE: f64 = 40.0;

const N_COLOURS: usize = Colour::ALL.len();
const N_FILLS: usize = Fill::ALL.len();

/// A shape and size that regions are compared with.
struct Template {
    shape: ObjectShape,
    size: ObjectSize,
    /// The pixels of each row, the leftmost as the lowest bit.
    rows: Vec<u128>,
    /// Those that are at least three pixels inside.
    inner_rows: Vec<u128>,
    n_pixels: u32,
    centroid: (f64, f64),
}

impl Template {
    fn new(shape: ObjectShape, size: ObjectSize) -> Self {
        const INNER_PX: i32 = 2;
        let mask = Mask::of(shape, size);
        let side = mask.side();
        let rows = |inside: &dyn Fn((i32, i32)) -> bool| -> Vec<u128> {
            (0..side).map(|y| (0..side).filter(|&x| inside((x, y))).map(|x| 1u128 << x).sum()).collect()
        };
        let near = [(0, 0), (INNER_PX, 0), (-INNER_PX, 0), (0, INNER_PX), (0, -INNER_PX)];
        let all = rows(&|at| mask.covers(at));
        Self {
            shape,
            size,
            inner_rows: rows(&|at| near.iter().all(|by| mask.covers((at.0 + by.0, at.1 + by.1)))),
            n_pixels: all.iter().map(|row| row.count_ones()).sum(),
            centroid: centroid(&all),
            rows: all,
        }
    }

    /// Whether the pixel at `(x, y)` from the top left corner is inside.
    fn covers(rows: &[u128], (x, y): (i32, i32)) -> bool {
        let row = usize::try_from(y).ok().and_then(|y| rows.get(y));
        row.is_some_and(|row| (0..128).contains(&x) && row >> x & 1 == 1)
    }

    /// The intersection over union with an outline, if the template is at `at` in it.
    fn iou(&self, outline: &Outline, at: (i32, i32)) -> f64 {
        let shifted = |row: u128| if at.0 >= 0 { row << at.0.min(127) } else { row >> (-at.0).min(127) };
        let row_at = |y: i32| usize::try_from(y).ok().and_then(|y| outline.rows.get(y)).copied().unwrap_or(0);
        let rows = (at.1..).zip(&self.rows);
        let common: u32 = rows.map(|(y, &row)| (shifted(row) & row_at(y)).count_ones()).sum();
        f64::from(common) / f64::from(self.n_pixels + outline.n_pixels - common)
    }
}

static TEMPLATES: LazyLock<Vec<Template>> = LazyLock::new(|| {
    let all = ObjectShape::ALL.into_iter().flat_map(|shape| ObjectSize::ALL.map(|size| (shape, size)));
    all.map(|(shape, size)| Template::new(shape, size)).collect()
});

/// Whether a fill is dark at a pixel, for each fill.
type Darkness = [bool; N_FILLS];

/// [`Darkness`] by row and column, modulo 16: after so many pixels fills repeat.
static DARKNESS: LazyLock<[[Darkness; 16]; 16]> = LazyLock::new(|| {
    let colour = Colour::Red;
    let is_dark = |fill: Fill, at: (i32, i32)| {
        let rgb = ObjectKind::new(ObjectSize::Large, fill, colour, ObjectShape::Square).rgb_at(at);
        squared_distance(rgb, colour.dark_rgb()) < squared_distance(rgb, colour.rgb())
    };
    std::array::from_fn(|y| std::array::from_fn(|x| Fill::ALL.map(|fill| is_dark(fill, (x as i32, y as i32)))))
});

fn centroid(rows: &[u128]) -> (f64, f64) {
    let (mut n, mut x_sum, mut y_sum) = (0u32, 0u64, 0u64);
    for (y, row) in (0u64..).zip(rows) {
        n += row.count_ones();
        y_sum += y * u64::from(row.count_ones());
        x_sum += (0..128).filter(|x| row >> x & 1 == 1).sum::<u64>();
    }
    (x_sum as f64 / f64::from(n.max(1)), y_sum as f64 / f64::from(n.max(1)))
}

/// The pixels of a region.
struct Outline {
    /// As in [`Template`], the region's left at bit [`MARGIN_PX`].
    rows: Vec<u128>,
    n_pixels: u32,
}

impl Outline {
    fn new(map: &RegionMap, region: &Region) -> Self {
        let row = |y: u32| {
            let inside = (0..)
                .zip(region.left..region.right)
                .filter(|&(_, x)| map.membership(region, x, y) == Membership::Region);
            inside.map(|(bit, _)| 1u128 << (bit + MARGIN_PX)).sum::<u128>()
        };
        let rows: Vec<u128> = (region.top..region.bottom).map(row).collect();
        Self { n_pixels: rows.iter().map(|row| row.count_ones()).sum(), rows }
    }
}

/// A template at a place: its top left corner in the image.
#[derive(Clone, Copy)]
struct Placed {
    template: &'static Template,
    left: i32,
    top: i32,
}

impl Placed {
    /// The place in the template of a pixel of the image.
    fn at(&self, (x, y): (i32, i32)) -> (i32, i32) {
        (x - self.left, y - self.top)
    }

    fn covers(&self, at: (i32, i32)) -> bool {
        Template::covers(&self.template.rows, self.at(at))
    }

    fn darkness(&self, at: (i32, i32)) -> &'static Darkness {
        let (x, y) = self.at(at);
        &DARKNESS[y.rem_euclid(16) as usize][x.rem_euclid(16) as usize]
    }
}

/// The templates most like the region's outline, each where it is most like it, the best first.
fn candidates(map: &RegionMap, region: &Region) -> Vec<Placed> {
    let outline = Outline::new(map, region);
    let middle = centroid(&outline.rows);
    let best_place = |template: &'static Template| {
        let from = |of_region: f64, of_template: f64| (of_region - of_template).round() as i32;
        let (x, y) = (from(middle.0, template.centroid.0), from(middle.1, template.centroid.1));
        let places = shifts(MAX_SHIFT).map(|(dx, dy)| (x + dx, y + dy));
        let scored = places.map(|at| (template.iou(&outline, at), at));
        let (iou, at) = scored.max_by(|a, b| a.0.total_cmp(&b.0))?;
        let left = region.left.cast_signed() - MARGIN_PX + at.0;
        Some((iou, Placed { template, left, top: region.top.cast_signed() + at.1 }))
    };
    let mut scored: Vec<(f64, Placed)> = TEMPLATES.iter().filter_map(best_place).collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    scored.into_iter().map(|(_, placed)| placed).take(N_CANDIDATES).collect()
}

fn shifts(most: i32) -> impl Iterator<Item = (i32, i32)> {
    (-most..=most).flat_map(move |dy| (-most..=most).map(move |dx| (dx, dy)))
}

/// The pixels around a region.
struct Window<'a> {
    image: &'a RgbImage,
    backdrop: Backdrop,
    map: &'a RegionMap,
    region: &'a Region,
}

/// A pixel of a [`Window`].
struct WindowPixel {
    at: (i32, i32),
    rgb: [u8; 3],
    /// The colour of the backdrop in its row.
    behind: [u8; 3],
    is_of_other_region: bool,
}

impl WindowPixel {
    /// The squared distance from a colour of the object, limited. Other regions are not the object's.
    fn error(&self, rgb: [u8; 3]) -> i32 {
        if self.is_of_other_region {
            MAX_SQUARED_DISTANCE
        } else {
            squared_distance(self.rgb, rgb).min(MAX_SQUARED_DISTANCE)
        }
    }

    /// The squared distance from the backdrop, limited. What belongs to other regions is judged with them.
    fn backdrop_error(&self) -> i32 {
        if self.is_of_other_region { 0 } else { squared_distance(self.rgb, self.behind).min(MAX_SQUARED_DISTANCE) }
    }
}

impl<'a> Window<'a> {
    fn pixels(&self) -> impl Iterator<Item = WindowPixel> + use<'a, '_> {
        let Self { region, .. } = self;
        let around = |start: u32, end: u32, length: u32| {
            start.saturating_sub(WINDOW_MARGIN_PX)..end.saturating_add(WINDOW_MARGIN_PX).min(length)
        };
        let columns = around(region.left, region.right, self.image.width());
        around(region.top, region.bottom, self.image.height()).flat_map(move |y| {
            let behind = self.backdrop.rgb(y);
            columns.clone().map(move |x| WindowPixel {
                at: (x.cast_signed(), y.cast_signed()),
                rgb: self.image.get_pixel(x, y).0,
                behind,
                is_of_other_region: self.map.membership(self.region, x, y) == Membership::OtherRegion,
            })
        })
    }

    /// The placed template, fill and colour whose drawing has the least squared error.
    fn best(&self, candidates: &[Placed]) -> Option<(Placed, Fill, Colour)> {
        let palette = Colour::ALL.map(Colour::bright_and_dark_rgb);
        // The error compared with that of drawing nothing.
        let mut errors = vec![[[0i64; N_COLOURS]; N_FILLS]; candidates.len()];
        let mut n_covered = vec![0i64; candidates.len()];
        for pixel in self.pixels() {
            let mut of_colours = None;
            for ((placed, errors), n_covered) in candidates.iter().zip(&mut errors).zip(&mut n_covered) {
                if !placed.covers(pixel.at) {
                    continue;
                }
                let of_colours = of_colours.get_or_insert_with(|| {
                    let nothing = pixel.backdrop_error();
                    [0, 1].map(|dark| palette.map(|colour| i64::from(pixel.error(colour[dark]) - nothing)))
                });
                *n_covered += 1;
                for (errors, &is_dark) in errors.iter_mut().zip(placed.darkness(pixel.at)) {
                    errors.iter_mut().zip(of_colours[usize::from(is_dark)]).for_each(|(sum, error)| *sum += error);
                }
            }
        }
        let mut best: Option<(i64, (Placed, Fill, Colour))> = None;
        for ((placed, errors), n_covered) in candidates.iter().zip(errors).zip(n_covered) {
            let outside = (i64::from(placed.template.n_pixels) - n_covered) * i64::from(MAX_SQUARED_DISTANCE);
            for (fill, errors) in Fill::ALL.into_iter().zip(errors) {
                for (colour, error) in Colour::ALL.into_iter().zip(errors) {
                    if best.is_none_or(|(least, _)| error + outside < least) {
                        best = Some((error + outside, (*placed, fill, colour)));
                    }
                }
            }
        }
        best.map(|(_, found)| found)
    }

    /// The best place up to a pixel away.
    fn refined(&self, placed: Placed, fill: Fill, colour: Colour) -> Placed {
        let places = shifts(1).map(|(dx, dy)| Placed { left: placed.left + dx, top: placed.top + dy, ..placed });
        let mut places: Vec<(i64, i64, Placed)> = places.map(|placed| (0, 0, placed)).collect();
        let rgbs = colour.bright_and_dark_rgb();
        for pixel in self.pixels() {
            let nothing = pixel.backdrop_error();
            let errors = rgbs.map(|rgb| i64::from(pixel.error(rgb) - nothing));
            for (error, n_covered, placed) in &mut places {
                if placed.covers(pixel.at) {
                    *error += errors[usize::from(placed.darkness(pixel.at)[fill as usize])];
                    *n_covered += 1;
                }
            }
        }
        let n_pixels = i64::from(placed.template.n_pixels);
        let score = |(error, n_covered, _): &(i64, i64, Placed)| {
            error + (n_pixels - n_covered) * i64::from(MAX_SQUARED_DISTANCE)
        };
        places.into_iter().min_by_key(score).map_or(placed, |(_, _, placed)| placed)
    }

    /// The fill that is seen inside: the one with the most contrast, or none.
    fn fill(&self, placed: Placed, colour: Colour) -> Fill {
        let towards_dark = ColourLine::new(colour.rgb(), colour.dark_rgb());
        // For each fill, sum and number of the dark pixels and of the bright ones.
        let mut sums = [[(0.0, 0.0); 2]; N_FILLS];
        let inner = |pixel: &WindowPixel| Template::covers(&placed.template.inner_rows, placed.at(pixel.at));
        for pixel in self.pixels().filter(inner) {
            let darkness = f64::from(towards_dark.along(pixel.rgb));
            for (sums, &is_dark) in sums.iter_mut().zip(placed.darkness(pixel.at)) {
                let (sum, n) = &mut sums[usize::from(is_dark)];
                *sum += darkness;
                *n += 1.0;
            }
        }
        let mean = |(sum, n): (f64, f64)| sum / n;
        let contrasts = Fill::ALL.into_iter().zip(sums.map(|[bright, dark]| mean(dark) - mean(bright)));
        // Not a number without dark pixels, as of the plain fill.
        let seen = contrasts.filter(|(_, contrast)| *contrast >= MIN_CONTRAST);
        seen.max_by(|a, b| a.1.total_cmp(&b.1)).map_or(Fill::Plain, |(fill, _)| fill)
    }

    /// Whether the region is clearly this object.
    fn shows(&self, placed: Placed, fill: Fill, colour: Colour) -> bool {
        let (mut n_common, mut n_of_object) = (0u32, 0u32);
        let (mut n_inner, mut n_wrong, mut difference) = (0u32, 0u32, [0.0; 3]);
        let rgbs = colour.bright_and_dark_rgb();
        for pixel in self.pixels().filter(|pixel| !pixel.is_of_other_region) {
            let expected = rgbs[usize::from(placed.darkness(pixel.at)[fill as usize])];
            let error = squared_distance(pixel.rgb, expected);
            if error < squared_distance(pixel.rgb, pixel.behind) {
                n_of_object += 1;
                n_common += u32::from(placed.covers(pixel.at));
            }
            if Template::covers(&placed.template.inner_rows, placed.at(pixel.at)) {
                n_inner += 1;
                n_wrong += u32::from(error > MAX_PIXEL_DISTANCE * MAX_PIXEL_DISTANCE);
                for (sum, (found, expected)) in difference.iter_mut().zip(pixel.rgb.into_iter().zip(expected)) {
                    *sum += f64::from(found) - f64::from(expected);
                }
            }
        }
        let n_inner = f64::from(n_inner.max(1));
        let mean_distance = difference.iter().map(|sum| (sum / n_inner).powi(2)).sum::<f64>().sqrt();
        let n_either = placed.template.n_pixels + n_of_object - n_common;
        f64::from(n_common) >= MIN_IOU * f64::from(n_either)
            && f64::from(n_wrong) <= MAX_WRONG_FRACTION * n_inner
            && mean_distance <= MAX_MEAN_DISTANCE
    }
}

/// The object that a region shows, if it clearly shows one.
pub(super) fn identify(
    image: &RgbImage,
    backdrop: Backdrop,
    map: &RegionMap,
    region: &Region,
) -> Option<DetectedObject> {
    if (region.right - region.left).max(region.bottom - region.top) > MAX_REGION_PX {
        return None;
    }
    let window = Window { image, backdrop, map, region };
    let (placed, fill, colour) = window.best(&candidates(map, region))?;
    let placed = window.refined(placed, fill, colour);
    let fill = window.fill(placed, colour);
    let (shape, size) = (placed.template.shape, placed.template.size);
    let half = (size.side_px() / 2).cast_signed();
    window.shows(placed, fill, colour).then_some(DetectedObject {
        kind: ObjectKind::new(size, fill, colour, shape),
        centre_px: (placed.left + half, placed.top + half),
    })
}
