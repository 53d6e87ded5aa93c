//! Finds the connected regions of an image that differ from the backdrop.

use image::RgbImage;

use super::distance::squared_distance;
use crate::attributes::SHADE_HEIGHT_PX;
use crate::{Backdrop, Colour};

/// A pixel may belong to an object at this fraction of the smallest distance of an object's colour from the backdrop,
const DISTANCE_FRACTION: f32 = 0.7;
/// and at this distance. Dark stripes on a shaded black background are only 43 away.
const MAX_MIN_DISTANCE: f32 = 50.0;
/// The smallest distance of a pixel that is clearly something else. The colours of objects are 90 away.
const CLEAR_DISTANCE: i32 = 60;
/// Regions with fewer clear pixels are noise. The smallest object has 750 pixels.
const MIN_CLEAR_PIXELS: usize = 64;
/// And so are those with fewer pixels that may be an object's: a soft stain is no noise.
const MIN_PIXELS: u32 = 512;
/// Pixels are connected by blocks of this width and height. Two blocks are connected if there is at most one between
/// them, so small gaps do not split an object; those between objects are wider.
const BLOCK_PX: u32 = 4;
/// Blocks with fewer pixels that differ from the backdrop are noise.
const MIN_BLOCK_PIXELS: u32 = 3;
/// How far apart connected blocks may be.
const REACH: i32 = 2;

/// A connected region, and the rectangle around its pixels.
pub(super) struct Region {
    index: u32,
    pub(super) left: u32,
    pub(super) top: u32,
    /// Behind its last column.
    pub(super) right: u32,
    /// Below its last row.
    pub(super) bottom: u32,
}

/// What a pixel is part of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Membership {
    /// The region.
    Region,
    /// Another region.
    OtherRegion,
    /// The backdrop, or noise.
    Backdrop,
}

/// The smallest squared distance from the backdrop of a pixel that may belong to an object.
fn min_squared_distance(backdrop: Backdrop, height: u32) -> i32 {
    let rows: Vec<[u8; 3]> = (0..height.min(SHADE_HEIGHT_PX)).map(|y| backdrop.rgb(y)).collect();
    let colours = Colour::ALL.into_iter().flat_map(Colour::bright_and_dark_rgb);
    let squared = colours.flat_map(|colour| rows.iter().map(move |&row| squared_distance(colour, row))).min();
    let distance = squared.map_or(0.0, |squared| (squared as f32).sqrt());
    (DISTANCE_FRACTION * distance).min(MAX_MIN_DISTANCE).powi(2) as i32
}

/// The regions of an image.
pub(super) struct RegionMap {
    width: u32,
    /// Whether the pixel differs from the backdrop.
    differs: Vec<bool>,
    columns: u32,
    /// Of each block the region, by its index plus one, or 0.
    blocks: Vec<u32>,
    regions: Vec<Region>,
    /// The clear pixels of what is too small for a region.
    n_clear_noise: usize,
}

impl RegionMap {
    pub(super) fn new(image: &RgbImage, backdrop: Backdrop) -> Self {
        let (width, height) = image.dimensions();
        let (columns, rows) = (width.div_ceil(BLOCK_PX), height.div_ceil(BLOCK_PX));
        let mut map = Self {
            width,
            differs: Vec::with_capacity(width as usize * height as usize),
            columns,
            blocks: vec![0; columns as usize * rows as usize],
            regions: Vec::new(),
            n_clear_noise: 0,
        };
        // Of each block the pixels that differ, and those that clearly do.
        let mut counts = vec![(0u32, 0usize); map.blocks.len()];
        let min_squared = min_squared_distance(backdrop, height);
        for (y, row) in (0..).zip(image.rows()) {
            let behind = backdrop.rgb(y);
            for (x, pixel) in (0..).zip(row) {
                let squared = squared_distance(pixel.0, behind);
                let differs = squared >= min_squared;
                if differs {
                    let count = &mut counts[map.block(x, y)];
                    count.0 += 1;
                    count.1 += usize::from(squared >= CLEAR_DISTANCE * CLEAR_DISTANCE);
                }
                map.differs.push(differs);
            }
        }
        map.connect(&counts, columns.cast_signed(), rows.cast_signed());
        map
    }

    /// Numbers the connected blocks.
    fn connect(&mut self, counts: &[(u32, usize)], columns: i32, rows: i32) {
        let at = |column: i32, row: i32| (row * columns + column).unsigned_abs() as usize;
        let mut n_found = 0;
        for start in (0..rows).flat_map(|row| (0..columns).map(move |column| (column, row))) {
            let mut open = vec![start];
            let mut members: Vec<(i32, i32)> = Vec::new();
            while let Some((column, row)) = open.pop() {
                let block = at(column, row);
                if self.blocks[block] != 0 || counts[block].0 < MIN_BLOCK_PIXELS {
                    continue;
                }
                self.blocks[block] = n_found + 1;
                members.push((column, row));
                let near = |middle: i32, end: i32| (middle - REACH).max(0)..(middle + REACH + 1).min(end);
                open.extend(near(row, rows).flat_map(|row| near(column, columns).map(move |column| (column, row))));
            }
            let of_members = || members.iter().map(|&(column, row)| counts[at(column, row)]);
            let n_pixels: u32 = of_members().map(|(n, _)| n).sum();
            let n_clear: usize = of_members().map(|(_, n_clear)| n_clear).sum();
            if !members.is_empty() {
                if n_clear >= MIN_CLEAR_PIXELS || n_pixels >= MIN_PIXELS {
                    self.regions.push(self.around(n_found + 1, &members));
                } else {
                    self.n_clear_noise += n_clear;
                }
                n_found += 1;
            }
        }
    }

    /// The region of these blocks.
    fn around(&self, index: u32, members: &[(i32, i32)]) -> Region {
        let mut region = Region { index, left: u32::MAX, top: u32::MAX, right: 0, bottom: 0 };
        for &(column, row) in members {
            let (left, top) = (column.unsigned_abs() * BLOCK_PX, row.unsigned_abs() * BLOCK_PX);
            for (x, y) in (top..top + BLOCK_PX).flat_map(|y| (left..left + BLOCK_PX).map(move |x| (x, y))) {
                if self.pixel_differs(x, y) {
                    region.left = region.left.min(x);
                    region.top = region.top.min(y);
                    region.right = region.right.max(x + 1);
                    region.bottom = region.bottom.max(y + 1);
                }
            }
        }
        region
    }

    pub(super) fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// Whether there is so much of what is too small for a region that it would be one if it were in one place.
    pub(super) fn is_speckled(&self) -> bool {
        self.n_clear_noise >= MIN_CLEAR_PIXELS
    }

    /// What the pixel is part of, as seen from a region.
    pub(super) fn membership(&self, region: &Region, x: u32, y: u32) -> Membership {
        match self.blocks[self.block(x, y)] {
            index if !self.pixel_differs(x, y) || index == 0 => Membership::Backdrop,
            index if index == region.index => Membership::Region,
            _ => Membership::OtherRegion,
        }
    }

    fn block(&self, x: u32, y: u32) -> usize {
        (y / BLOCK_PX) as usize * self.columns as usize + (x / BLOCK_PX) as usize
    }

    fn pixel_differs(&self, x: u32, y: u32) -> bool {
        x < self.width
            && self.differs.get(y as usize * self.width as usize + x as usize).is_some_and(|&differs| differs)
    }
}
