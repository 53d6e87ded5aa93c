//! The attributes of objects and scenes, each a fixed list of values with a name in captions.

use std::fmt;

/// An attribute whose values each have one name in captions.
pub(crate) trait Attribute: Copy + 'static {
    /// The attribute with its article, for error messages.
    const DESCRIPTION: &'static str;
    /// All values.
    fn all() -> &'static [Self];
    /// The name in captions, of one or more words.
    fn name(self) -> &'static str;
}

/// Defines an attribute: an enum with a name in captions for each variant.
macro_rules! attribute {
    ($(#[$doc:meta])* $list:ident, $what:literal, $count:literal {
        $($(#[$of:meta])* $variant:ident = $name:literal,)+
    }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $list {
            $($(#[$of])* $variant,)+
        }

        impl $list {
            /// All values.
            pub const ALL: [Self; $count] = [$(Self::$variant),+];

            /// The name in captions.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }

        impl Attribute for $list {
            const DESCRIPTION: &'static str = $what;
            fn all() -> &'static [Self] {
                &Self::ALL
            }
            fn name(self) -> &'static str {
                self.name()
            }
        }

        impl fmt::Display for $list {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name())
            }
        }
    };
}

attribute! {
    /// The shape of an object.
    ObjectShape, "a shape", 4 {
        /// A disc.
        Circle = "circle",
        /// A square with horizontal and vertical sides.
        Square = "square",
        /// A triangle with its base at the bottom, as wide as it is high.
        Triangle = "triangle",
        /// A plus sign.
        Cross = "cross",
    }
}

attribute! {
    /// The size of an object. In depth maps small objects are far and large objects are near.
    ObjectSize, "a size", 2 {
        /// 16 pixels wide and high.
        Small = "small",
        /// 28 pixels wide and high.
        Large = "large",
    }
}

attribute! {
    /// The colour of an object.
    Colour, "a colour", 6 {
        /// Red.
        Red = "red",
        /// Green.
        Green = "green",
        /// Blue.
        Blue = "blue",
        /// Yellow.
        Yellow = "yellow",
        /// Purple.
        Purple = "purple",
        /// Orange.
        Orange = "orange",
    }
}

attribute! {
    /// The plain colour of the background.
    Background, "a background", 4 {
        /// White.
        White = "white",
        /// Black.
        Black = "black",
        /// Grey.
        Grey = "grey",
        /// Light blue.
        SkyBlue = "sky blue",
    }
}

attribute! {
    /// The position of the first of two objects relative to the second.
    Relation, "a relation", 4 {
        /// In a column further left.
        LeftOf = "to the left of",
        /// In a column further right.
        RightOf = "to the right of",
        /// In a row further up.
        Above = "above",
        /// In a row further down.
        Below = "below",
    }
}

attribute! {
    /// The part of the image that contains an object, one of nine.
    ///
    /// |            | left               | centre        | right               |
    /// | ---        | ---                | ---           | ---                 |
    /// | **top**    | in the top left    | at the top    | in the top right    |
    /// | **middle** | on the left        | in the centre | on the right        |
    /// | **bottom** | in the bottom left | at the bottom | in the bottom right |
    ///
    /// Columns and rows are each divided into thirds, and a cell belongs to the third that contains its centre. Two
    /// columns are left and right, of four columns two are centre, and a single row is the middle row.
    Position, "a position", 9 {
        /// Top left.
        TopLeft = "in the top left",
        /// Top.
        Top = "at the top",
        /// Top right.
        TopRight = "in the top right",
        /// Left.
        Left = "on the left",
        /// Centre.
        Centre = "in the centre",
        /// Right.
        Right = "on the right",
        /// Bottom left.
        BottomLeft = "in the bottom left",
        /// Bottom.
        Bottom = "at the bottom",
        /// Bottom right.
        BottomRight = "in the bottom right",
    }
}

impl ObjectSize {
    /// Width and height, in pixels.
    pub const fn side_px(self) -> u32 {
        match self {
            Self::Small => 16,
            Self::Large => 28,
        }
    }
}

impl Colour {
    /// The colour in images.
    pub const fn rgb(self) -> [u8; 3] {
        match self {
            Self::Red => [220, 40, 40],
            Self::Green => [40, 170, 70],
            Self::Blue => [40, 70, 220],
            Self::Yellow => [245, 215, 40],
            Self::Purple => [150, 50, 180],
            Self::Orange => [250, 140, 20],
        }
    }
}

impl Background {
    /// The colour in images.
    pub const fn rgb(self) -> [u8; 3] {
        match self {
            Self::White => [255, 255, 255],
            Self::Black => [0, 0, 0],
            Self::Grey => [128, 128, 128],
            Self::SkyBlue => [150, 205, 250],
        }
    }
}

impl Relation {
    /// Whether the relation is true of objects in these cells, given as `(column, row)`.
    pub fn holds(self, first: (u32, u32), second: (u32, u32)) -> bool {
        match self {
            Self::LeftOf => first.0 < second.0,
            Self::RightOf => first.0 > second.0,
            Self::Above => first.1 < second.1,
            Self::Below => first.1 > second.1,
        }
    }
}

impl Position {
    /// The position of a cell `(column, row)` in an image of `(columns, rows)` cells.
    pub fn of_cell((column, row): (u32, u32), (columns, rows): (u32, u32)) -> Self {
        Self::ALL[3 * third(row, rows) + third(column, columns)]
    }
}

/// The third of `count` cells, 0, 1 or 2, that contains the centre of cell `index`.
fn third(index: u32, count: u32) -> usize {
    let (centre, count) = (3 * (2 * u64::from(index) + 1), 2 * u64::from(count));
    usize::from(centre > count) + usize::from(centre > 2 * count)
}

/// The size, colour and shape of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct ObjectKind {
    /// Its size.
    pub size: ObjectSize,
    /// Its colour.
    pub colour: Colour,
    /// Its shape.
    pub shape: ObjectShape,
}

impl ObjectKind {
    /// The kind with these attributes.
    pub const fn new(size: ObjectSize, colour: Colour, shape: ObjectShape) -> Self {
        Self { size, colour, shape }
    }

    /// All 48 kinds.
    pub fn all() -> impl Iterator<Item = Self> {
        ObjectSize::ALL.into_iter().flat_map(|size| {
            Colour::ALL
                .into_iter()
                .flat_map(move |colour| ObjectShape::ALL.into_iter().map(move |shape| Self { size, colour, shape }))
        })
    }
}

impl fmt::Display for ObjectKind {
    /// As in captions: `large red circle`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.size, self.colour, self.shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thirds_match_common_usage() {
        let columns = |count| (0..count).map(|column| third(column, count)).collect::<Vec<_>>();
        assert_eq!(columns(1), [1]);
        assert_eq!(columns(2), [0, 2]);
        assert_eq!(columns(3), [0, 1, 2]);
        assert_eq!(columns(4), [0, 1, 1, 2]);
        assert_eq!(columns(5), [0, 0, 1, 2, 2]);
        assert_eq!(Position::of_cell((0, 2), (1, 4)), Position::Centre);
        assert_eq!(Position::of_cell((1, 0), (2, 1)), Position::Right);
        assert_eq!(Position::of_cell((2, 2), (3, 3)), Position::BottomRight);
    }

    #[test]
    fn colours_are_far_apart() {
        let colours: Vec<[u8; 3]> =
            Colour::ALL.into_iter().map(Colour::rgb).chain(Background::ALL.into_iter().map(Background::rgb)).collect();
        for (index, a) in colours.iter().enumerate() {
            for b in &colours[..index] {
                let squared: u32 = a.iter().zip(b).map(|(a, b)| u32::from(a.abs_diff(*b)).pow(2)).sum();
                assert!(squared >= 75 * 75, "{a:?} and {b:?}");
            }
        }
    }
}
