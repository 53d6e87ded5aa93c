//! Where objects are that a prompt puts nowhere.
//!
//! A model that draws row by row must know at each patch whether another object begins. If it may begin anywhere,
//! that is unlikely at each place, and certain only at the last: at a low temperature a model then draws nothing. So
//! a prompt says where each object is, by its place, by a relation, or by saying nothing.

use lumina_core::ImageSize;

use crate::scene::free_places;
use crate::{Object, ObjectKind, Position};

/// The positions of the two objects of a relation.
pub(crate) const RELATED: [[Position; 2]; 2] = [[Position::Left, Position::Right], [Position::Top, Position::Bottom]];

/// The positions of objects for which a prompt names none, in the order in which it names the objects. It is the
/// reading order.
pub(crate) fn default_positions(n_objects: usize, size: ImageSize) -> &'static [Position] {
    use Position::{Bottom, BottomLeft, BottomRight, Centre, Left, Right, Top, TopLeft, TopRight};
    let is_tall = size.height_px() > size.width_px();
    let is_wide = size.width_px() > size.height_px();
    match n_objects {
        1 => &[Centre],
        2 if is_tall => &[Top, Bottom],
        2 => &[Left, Right],
        3 if is_tall => &[Top, Centre, Bottom],
        3 if is_wide => &[Left, Centre, Right],
        3 => &[TopLeft, TopRight, Bottom],
        _ => &[TopLeft, TopRight, BottomLeft, BottomRight],
    }
}

/// Each object at the place with its position that is nearest to the middle of it, beside those before it. `None` if
/// there is no such place.
pub(crate) fn place_in_order(
    objects: impl IntoIterator<Item = (ObjectKind, Position)>,
    size: ImageSize,
) -> Option<Vec<Object>> {
    let mut placed: Vec<Object> = Vec::new();
    for (kind, at) in objects {
        let place = free_places(kind, size, &placed, at).first().copied()?;
        placed.push(place);
    }
    Some(placed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Colour, Fill, ObjectShape, ObjectSize};

    #[test]
    fn objects_fit_at_their_default_positions() {
        let kind = |size| ObjectKind::new(size, Fill::Plain, Colour::Red, ObjectShape::Star);
        for (width, height) in [(256, 256), (320, 192), (192, 320), (384, 160), (160, 384)] {
            let size = ImageSize::new(width, height).unwrap();
            for n in 1..=4 {
                let positions = default_positions(n, size);
                assert_eq!(positions.len(), n);
                assert!(positions.is_sorted(), "a scene's objects are in reading order");
                let of = |object_size| place_in_order(positions.iter().map(|&at| (kind(object_size), at)), size);
                assert!(of(ObjectSize::Small).is_some(), "{n} small objects in {size}");
                // Two rows, or two columns, of large ones need 208 pixels.
                let fits = n < 4 || width.min(height) >= 208;
                assert_eq!(of(ObjectSize::Large).is_some(), fits, "{n} large objects in {size}");
            }
        }
    }
}
