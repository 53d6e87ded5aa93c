//! Scenes as pictures, depth maps and segmentation maps.

use image::{Rgb, RgbImage};

use crate::mask::{FULL, Mask};
use crate::{Colour, Scene, Shape, Size};

/// The grey of the background in depth maps: furthest away.
pub const BACKGROUND_DEPTH: u8 = 32;
/// The colour of the background in segmentation maps.
pub const BACKGROUND_CLASS: [u8; 3] = [0, 0, 0];

impl Size {
    /// The grey of an object in depth maps: the nearer, the lighter.
    pub const fn depth(self) -> u8 {
        match self {
            Self::Small => 128,
            Self::Large => 224,
        }
    }
}

impl Shape {
    /// The colour of the class in segmentation maps. They are colours of pictures, so that an image tokenizer of few
    /// codes has less to learn.
    pub const fn class_rgb(self) -> [u8; 3] {
        match self {
            Self::Circle => Colour::Red.rgb(),
            Self::Square => Colour::Green.rgb(),
            Self::Triangle => Colour::Blue.rgb(),
            Self::Cross => Colour::Yellow.rgb(),
        }
    }
}

impl Scene {
    /// The picture, with smooth edges (16 samples a pixel).
    pub fn picture(&self) -> RgbImage {
        let mut picture = self.filled(self.background().rgb());
        for object in self.objects() {
            self.paint(
                object,
                |pixel, at, mask| {
                    let covered = mask.coverage(at);
                    for (channel, colour) in pixel.0.iter_mut().zip(object.kind.colour.rgb()) {
                        let mixed = u32::from(*channel) * (FULL - covered) + u32::from(colour) * covered;
                        *channel = ((mixed + FULL / 2) / FULL) as u8;
                    }
                },
                &mut picture,
            );
        }
        picture
    }

    /// The depth map: [`BACKGROUND_DEPTH`], and [`Size::depth`] on the objects, as grey with hard edges.
    pub fn depth(&self) -> RgbImage {
        self.map([BACKGROUND_DEPTH; 3], |object| [object.kind.size.depth(); 3])
    }

    /// The segmentation map: [`BACKGROUND_CLASS`], and [`Shape::class_rgb`] on the objects, with hard edges.
    pub fn segmentation(&self) -> RgbImage {
        self.map(BACKGROUND_CLASS, |object| object.kind.shape.class_rgb())
    }

    /// A picture of flat colours: an object has each pixel that it covers at least half.
    fn map(&self, background: [u8; 3], colour: impl Fn(&crate::Object) -> [u8; 3]) -> RgbImage {
        let mut map = self.filled(background);
        for object in self.objects() {
            self.paint(
                object,
                |pixel, at, mask| {
                    if mask.covers(at) {
                        pixel.0 = colour(object);
                    }
                },
                &mut map,
            );
        }
        map
    }

    fn filled(&self, colour: [u8; 3]) -> RgbImage {
        RgbImage::from_pixel(self.size().width_px(), self.size().height_px(), Rgb(colour))
    }

    /// Calls `draw` with each pixel on the object's bounding box, and where it lies on the mask.
    fn paint(&self, object: &crate::Object, draw: impl Fn(&mut Rgb<u8>, (i32, i32), &Mask), on: &mut RgbImage) {
        let mask = Mask::new(object.kind.shape, object.kind.size);
        let centre = object.centre_px();
        for at in mask.offsets() {
            let pixel = (u32::try_from(centre.0 + at.0), u32::try_from(centre.1 + at.1));
            if let (Ok(x), Ok(y)) = pixel
                && let Some(pixel) = on.get_pixel_mut_checked(x, y)
            {
                draw(pixel, at, &mask);
            }
        }
    }
}
