//! The closed lists of words that scenes are described with.

use std::fmt;

/// A list of things that each have one name in captions.
pub(crate) trait Word: Copy + 'static {
    /// What the list is of, for messages.
    const WHAT: &'static str;
    /// All of them.
    fn all() -> &'static [Self];
    /// The name, of one or more words.
    fn name(self) -> &'static str;
}

/// An enum with a name in captions for each variant.
macro_rules! words {
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
            /// All of them.
            pub const ALL: [Self; $count] = [$(Self::$variant),+];

            /// The name in captions.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }

        impl Word for $list {
            const WHAT: &'static str = $what;
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

words! {
    /// The shape of an object.
    Shape, "a shape", 4 {
        /// A disc.
        Circle = "circle",
        /// A square with level sides.
        Square = "square",
        /// A triangle with its base below, as wide as it is high.
        Triangle = "triangle",
        /// A plus sign.
        Cross = "cross",
    }
}

words! {
    /// The size of an object. Small things are drawn as far away, large ones as near.
    Size, "a size", 2 {
        /// 16 pixels wide and high.
        Small = "small",
        /// 28 pixels wide and high.
        Large = "large",
    }
}

words! {
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

words! {
    /// The plain colour behind the objects.
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

words! {
    /// How the first of two objects lies to the second.
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

words! {
    /// In which ninth of the picture an object lies.
    ///
    /// |            | left               | centre        | right               |
    /// | ---        | ---                | ---           | ---                 |
    /// | **top**    | in the top left    | at the top    | in the top right    |
    /// | **middle** | on the left        | in the centre | on the right        |
    /// | **bottom** | in the bottom left | at the bottom | in the bottom right |
    ///
    /// A cell belongs to the third of the picture's columns, and of its rows, in which its middle lies: with two columns
    /// there is left and right, with four there are two columns of centre, and a picture of one row is all middle.
    Place, "a place", 9 {
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

impl Size {
    /// Width and height, in pixels.
    pub const fn side_px(self) -> u32 {
        match self {
            Self::Small => 16,
            Self::Large => 28,
        }
    }
}

impl Colour {
    /// The colour in pictures.
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
    /// The colour in pictures.
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
    /// Whether it holds between objects in these cells, given as `(column, row)`.
    pub fn holds(self, first: (u32, u32), second: (u32, u32)) -> bool {
        match self {
            Self::LeftOf => first.0 < second.0,
            Self::RightOf => first.0 > second.0,
            Self::Above => first.1 < second.1,
            Self::Below => first.1 > second.1,
        }
    }
}

impl Place {
    /// The place of a cell `(column, row)` in a picture of `(columns, rows)` cells.
    pub fn of_cell((column, row): (u32, u32), (columns, rows): (u32, u32)) -> Self {
        Self::ALL[3 * third(row, rows) + third(column, columns)]
    }
}

/// In which third of `count` cells the middle of cell `index` lies: 0, 1 or 2.
fn third(index: u32, count: u32) -> usize {
    let (middle, count) = (3 * (2 * u64::from(index) + 1), 2 * u64::from(count));
    usize::from(middle > count) + usize::from(middle > 2 * count)
}

/// What an object looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Kind {
    /// Its size.
    pub size: Size,
    /// Its colour.
    pub colour: Colour,
    /// Its shape.
    pub shape: Shape,
}

impl Kind {
    /// A kind of object.
    pub const fn new(size: Size, colour: Colour, shape: Shape) -> Self {
        Self { size, colour, shape }
    }

    /// All 48 kinds.
    pub fn all() -> impl Iterator<Item = Self> {
        Size::ALL.into_iter().flat_map(|size| {
            Colour::ALL
                .into_iter()
                .flat_map(move |colour| Shape::ALL.into_iter().map(move |shape| Self { size, colour, shape }))
        })
    }
}

impl fmt::Display for Kind {
    /// As in captions: `large red circle`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.size, self.colour, self.shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thirds_are_what_people_say() {
        let columns = |count| (0..count).map(|column| third(column, count)).collect::<Vec<_>>();
        assert_eq!(columns(1), [1]);
        assert_eq!(columns(2), [0, 2]);
        assert_eq!(columns(3), [0, 1, 2]);
        assert_eq!(columns(4), [0, 1, 1, 2]);
        assert_eq!(columns(5), [0, 0, 1, 2, 2]);
        assert_eq!(Place::of_cell((0, 2), (1, 4)), Place::Centre);
        assert_eq!(Place::of_cell((1, 0), (2, 1)), Place::Right);
        assert_eq!(Place::of_cell((2, 2), (3, 3)), Place::BottomRight);
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
