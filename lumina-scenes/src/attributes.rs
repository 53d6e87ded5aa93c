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
    ObjectShape, "a shape", 9 {
        /// A disc.
        Circle = "circle",
        /// A square with horizontal and vertical sides.
        Square = "square",
        /// A triangle with its base at the bottom, as wide as it is high.
        Triangle = "triangle",
        /// A plus sign.
        Cross = "cross",
        /// A star with five points, one at the top.
        Star = "star",
        /// A heart.
        Heart = "heart",
        /// A disc with a hole.
        Ring = "ring",
        /// A crescent, open to the right.
        Moon = "moon",
        /// An arrow that points to the right.
        Arrow = "arrow",
    }
}

attribute! {
    /// The size of an object. In depth maps small objects are far and large objects are near.
    ObjectSize, "a size", 2 {
        /// 48 pixels wide and high.
        Small = "small",
        /// 96 pixels wide and high.
        Large = "large",
    }
}

attribute! {
    /// What an object is filled with.
    Fill, "a fill", 3 {
        /// Its colour. Canonical captions do not mention it.
        Plain = "plain",
        /// Horizontal stripes of its colour and a [dark](Colour::dark_rgb) one.
        Striped = "striped",
        /// Its colour with [dark](Colour::dark_rgb) dots.
        Dotted = "dotted",
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
    /// The colour of the background.
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
    /// The position of the first of two objects relative to the second, which a caption states and a question asks for
    /// where their centres are [`MIN_DISTANCE_PX`](crate::MIN_DISTANCE_PX) apart or more.
    Relation, "a relation", 4 {
        /// Its centre is further left.
        LeftOf = "to the left of",
        /// Its centre is further right.
        RightOf = "to the right of",
        /// Its centre is further up.
        Above = "above",
        /// Its centre is further down.
        Below = "below",
    }
}

attribute! {
    /// The part of the image that contains an object's centre, one of nine.
    ///
    /// |            | left               | centre        | right               |
    /// | ---        | ---                | ---           | ---                 |
    /// | **top**    | in the top left    | at the top    | in the top right    |
    /// | **middle** | on the left        | in the centre | on the right        |
    /// | **bottom** | in the bottom left | at the bottom | in the bottom right |
    ///
    /// Width and height are each divided into thirds.
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
            Self::Small => 48,
            Self::Large => 96,
        }
    }
}

impl Colour {
    /// The colour of stripes and dots: 0.45 times the colour.
    pub fn dark_rgb(self) -> [u8; 3] {
        self.rgb().map(|channel| (f32::from(channel) * 0.45).round() as u8)
    }

    /// The colour, and that of its stripes and dots.
    pub(crate) fn bright_and_dark_rgb(self) -> [[u8; 3]; 2] {
        [self.rgb(), self.dark_rgb()]
    }

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

/// Over this many pixels a shaded background changes by [`SHADE`]; further down it stays as it is.
pub(crate) const SHADE_HEIGHT_PX: u32 = 256;
/// How far a shaded background goes towards black, or, if it is black, towards white.
pub(crate) const SHADE: f32 = 0.35;

/// What is behind the objects: one colour, plain or shaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Backdrop {
    /// The colour at the top.
    pub background: Background,
    /// Whether it becomes darker towards the bottom, or lighter if it is black.
    pub shaded: bool,
}

impl Backdrop {
    /// A plain one.
    pub const fn plain(background: Background) -> Self {
        Self { background, shaded: false }
    }

    /// All eight.
    pub fn all() -> impl Iterator<Item = Self> {
        Background::ALL.into_iter().flat_map(|background| [false, true].map(|shaded| Self { background, shaded }))
    }

    /// The colour of a row of pixels.
    pub fn rgb(self, y: u32) -> [u8; 3] {
        let rgb = self.background.rgb();
        if !self.shaded {
            return rgb;
        }
        let towards = if self.background == Background::Black { 255.0 } else { 0.0 };
        let part = SHADE * y.min(SHADE_HEIGHT_PX) as f32 / SHADE_HEIGHT_PX as f32;
        rgb.map(|channel| (f32::from(channel) + part * (towards - f32::from(channel))).round() as u8)
    }
}

impl fmt::Display for Backdrop {
    /// As in captions: `shaded sky blue`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.shaded { "shaded " } else { "" }, self.background)
    }
}

/// How far apart the centres of two objects are, at least, where one is above or beside the other to anyone's eye: the
/// side of a small object.
pub const MIN_DISTANCE_PX: u32 = ObjectSize::Small.side_px();

impl Relation {
    /// Whether the relation is true of objects with these centres, given as `(x, y)`.
    pub fn holds(self, first: (i32, i32), second: (i32, i32)) -> bool {
        match self {
            Self::LeftOf => first.0 < second.0,
            Self::RightOf => first.0 > second.0,
            Self::Above => first.1 < second.1,
            Self::Below => first.1 > second.1,
        }
    }

    /// Whether the relation [holds](Self::holds) to anyone's eye: `None` if the centres are too near to each other for
    /// either answer, as those of two objects side by side whose sizes differ.
    pub fn clearly_holds(self, first: (i32, i32), second: (i32, i32)) -> Option<bool> {
        let (x, y) = (first.0.abs_diff(second.0), first.1.abs_diff(second.1));
        let distance = match self {
            Self::LeftOf | Self::RightOf => x,
            Self::Above | Self::Below => y,
        };
        (distance >= MIN_DISTANCE_PX).then(|| self.holds(first, second))
    }
}

impl Position {
    /// The position of a point `(x, y)` in an image of `(width, height)` pixels. Points outside belong to the nearest.
    pub fn of_point((x, y): (i32, i32), (width, height): (u32, u32)) -> Self {
        Self::ALL[3 * third(y, height) + third(x, width)]
    }

    /// Column and row, 0 to 2 each.
    pub(crate) fn thirds(self) -> (u32, u32) {
        let index = self as u32;
        (index % 3, index / 3)
    }
}

/// The third of a length, 0, 1 or 2, that contains a point.
fn third(at: i32, length: u32) -> usize {
    let (at, length) = (3 * i64::from(at), i64::from(length));
    usize::from(at >= length) + usize::from(at >= 2 * length)
}

/// The size, fill, colour and shape of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct ObjectKind {
    /// Its size.
    pub size: ObjectSize,
    /// Its fill.
    pub fill: Fill,
    /// Its colour.
    pub colour: Colour,
    /// Its shape.
    pub shape: ObjectShape,
}

impl ObjectKind {
    /// The kind with these attributes.
    pub const fn new(size: ObjectSize, fill: Fill, colour: Colour, shape: ObjectShape) -> Self {
        Self { size, fill, colour, shape }
    }

    /// All 324 kinds.
    pub fn all() -> impl Iterator<Item = Self> {
        let fills = || ObjectSize::ALL.into_iter().flat_map(|size| Fill::ALL.map(|fill| (size, fill)));
        let colours = || Colour::ALL.into_iter().flat_map(|colour| ObjectShape::ALL.map(|shape| (colour, shape)));
        fills().flat_map(move |(size, fill)| colours().map(move |(colour, shape)| Self { size, fill, colour, shape }))
    }
}

impl fmt::Display for ObjectKind {
    /// As in captions: `large red circle`, `small striped blue star`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.size)?;
        if self.fill != Fill::Plain {
            write!(f, "{} ", self.fill)?;
        }
        write!(f, "{} {}", self.colour, self.shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_thirds() {
        let of = |x, y| Position::of_point((x, y), (96, 300));
        assert_eq!(of(31, 99), Position::TopLeft);
        assert_eq!(of(32, 99), Position::Top);
        assert_eq!(of(63, 100), Position::Centre);
        assert_eq!(of(64, 200), Position::BottomRight);
        assert_eq!(of(-5, 1000), Position::BottomLeft);
        assert_eq!(Position::of_point((0, 0), (0, 0)), Position::BottomRight);
        assert!(Position::ALL.into_iter().all(|position| {
            let (column, row) = position.thirds();
            of(column as i32 * 32 + 16, row as i32 * 100 + 50) == position
        }));
    }

    #[test]
    fn shades_keep_their_background() {
        for backdrop in Backdrop::all() {
            assert_eq!(backdrop.rgb(0), backdrop.background.rgb());
            assert_eq!(backdrop.rgb(256), backdrop.rgb(u32::MAX));
            assert_eq!(backdrop.rgb(255) != backdrop.rgb(0), backdrop.shaded);
        }
        let black = Backdrop { background: Background::Black, shaded: true };
        assert_eq!((black.rgb(128), black.rgb(256), black.to_string()), ([45; 3], [89; 3], "shaded black".to_owned()));
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
