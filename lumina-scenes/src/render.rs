//! Renders scenes as images, depth maps and segmentation maps.

use image::{Rgb, RgbImage};

use crate::mask::{Mask, mix};
use crate::{Background, Colour, Object, ObjectShape, ObjectSize, Scene};

/// The grey value of the background in depth maps, the most distant.
pub const BACKGROUND_DEPTH: u8 = 32;
/// The colour of the background in segmentation maps.
pub const BACKGROUND_CLASS_RGB: [u8; 3] = [0, 0, 0];

impl ObjectSize {
    /// The grey value of an object in depth maps. Nearer is lighter.
    pub const fn depth(self) -> u8 {
        match self {
            Self::Small => 128,
            Self::Large => 224,
        }
    }
}

impl ObjectShape {
    /// The colour of the class in segmentation maps. The same colours occur in images, so that an image tokenizer with
    /// few codes has less to learn.
    pub const fn class_rgb(self) -> [u8; 3] {
        match self {
            Self::Circle => Colour::Red.rgb(),
            Self::Square => Colour::Green.rgb(),
            Self::Triangle => Colour::Blue.rgb(),
            Self::Cross => Colour::Yellow.rgb(),
            Self::Star => Colour::Purple.rgb(),
            Self::Heart => Colour::Orange.rgb(),
            Self::Ring => Background::White.rgb(),
            Self::Moon => Background::SkyBlue.rgb(),
            Self::Arrow => Background::Grey.rgb(),
        }
    }
}

impl Scene {
    /// Renders the scene as an image, with antialiased edges (16 samples per pixel).
    pub fn image(&self) -> RgbImage {
        let mut image = self.filled(|y| self.backdrop().rgb(y));
        for object in self.objects() {
            let draw = |pixel: &mut Rgb<u8>, at, mask: &Mask| {
                pixel.0 = mix(pixel.0, object.kind.rgb_at(at), mask.coverage(at))
            };
            paint(object, draw, &mut image);
        }
        image
    }

    /// Renders the depth map, grey with hard edges: [`BACKGROUND_DEPTH`], and [`ObjectSize::depth`] for objects.
    pub fn depth_map(&self) -> RgbImage {
        self.flat([BACKGROUND_DEPTH; 3], |object| [object.kind.size.depth(); 3])
    }

    /// Renders the segmentation map, with hard edges: [`BACKGROUND_CLASS_RGB`], and [`ObjectShape::class_rgb`] for
    /// objects.
    pub fn segmentation_map(&self) -> RgbImage {
        self.flat(BACKGROUND_CLASS_RGB, |object| object.kind.shape.class_rgb())
    }

    /// Renders flat colours: an object colours each pixel that it covers at least half of.
    fn flat(&self, background: [u8; 3], colour: impl Fn(&Object) -> [u8; 3]) -> RgbImage {
        let mut map = self.filled(|_| background);
        for object in self.objects() {
            let draw = |pixel: &mut Rgb<u8>, at, mask: &Mask| {
                if mask.covers(at) {
                    pixel.0 = colour(object);
                }
            };
            paint(object, draw, &mut map);
        }
        map
    }

    fn filled(&self, row: impl Fn(u32) -> [u8; 3]) -> RgbImage {
        RgbImage::from_fn(self.size().width_px(), self.size().height_px(), |_, y| Rgb(row(y)))
    }
}

/// Calls `draw` with each pixel in the object's bounding square and its place in there.
fn paint(object: &Object, draw: impl Fn(&mut Rgb<u8>, (i32, i32), &Mask), on: &mut RgbImage) {
    let mask = Mask::of(object.kind.shape, object.kind.size);
    let (left, top) = object.top_left_px();
    for at in mask.pixels() {
        if let (Ok(x), Ok(y)) = (u32::try_from(left + at.0), u32::try_from(top + at.1))
            && let Some(pixel) = on.get_pixel_mut_checked(x, y)
        {
            draw(pixel, at, mask);
        }
    }
}
