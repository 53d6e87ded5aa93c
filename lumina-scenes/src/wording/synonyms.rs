//! What people call things, the canonical name first.

use crate::{Background, Colour, Fill, ObjectShape, ObjectSize, Position, Relation};

/// Names, the canonical one first.
pub(super) type Names = &'static [&'static str];

pub(super) const fn size(size: ObjectSize) -> Names {
    match size {
        ObjectSize::Small => &["small", "little", "tiny"],
        ObjectSize::Large => &["large", "big", "huge"],
    }
}

pub(super) const fn colour(colour: Colour) -> Names {
    match colour {
        Colour::Red => &["red"],
        Colour::Green => &["green"],
        Colour::Blue => &["blue"],
        Colour::Yellow => &["yellow"],
        Colour::Purple => &["purple", "violet"],
        Colour::Orange => &["orange"],
    }
}

pub(super) const fn background(background: Background) -> Names {
    match background {
        Background::White => &["white"],
        Background::Black => &["black"],
        Background::Grey => &["grey", "gray"],
        Background::SkyBlue => &["sky blue", "light blue"],
    }
}

pub(super) const fn fill(fill: Fill) -> Names {
    match fill {
        Fill::Plain => &["plain", "solid"],
        Fill::Striped => &["striped", "stripy"],
        Fill::Dotted => &["dotted", "spotted", "polka dot"],
    }
}

/// Fills after the shape: `a star with stripes`.
pub(super) const fn with_fill(fill: Fill) -> Names {
    match fill {
        Fill::Plain => &[],
        Fill::Striped => &["with stripes"],
        Fill::Dotted => &["with dots", "with spots", "with polka dots"],
    }
}

/// Names of one object and of several, in the same order.
pub(super) const fn shape(shape: ObjectShape) -> [Names; 2] {
    match shape {
        ObjectShape::Circle => [&["circle", "ball", "disc", "disk"], &["circles", "balls", "discs", "disks"]],
        ObjectShape::Square => [&["square", "box", "block"], &["squares", "boxes", "blocks"]],
        ObjectShape::Triangle => [&["triangle"], &["triangles"]],
        ObjectShape::Cross => [&["cross", "plus", "plus sign"], &["crosses", "pluses", "plus signs"]],
        ObjectShape::Star => [&["star"], &["stars"]],
        ObjectShape::Heart => [&["heart"], &["hearts"]],
        ObjectShape::Ring => [&["ring", "donut", "hoop"], &["rings", "donuts", "hoops"]],
        ObjectShape::Moon => [&["moon", "crescent", "crescent moon"], &["moons", "crescents", "crescent moons"]],
        ObjectShape::Arrow => [&["arrow"], &["arrows"]],
    }
}

/// A position behind or before an object.
pub(super) const fn position(position: Position) -> Names {
    match position {
        Position::TopLeft => &[
            "in the top left",
            "at the top left",
            "top left",
            "in the top left corner",
            "in the upper left",
            "upper left",
            "in the upper left corner",
            "top left corner",
        ],
        Position::Top => &["at the top", "top", "at the top in the middle", "top center", "in the top middle"],
        Position::TopRight => &[
            "in the top right",
            "at the top right",
            "top right",
            "in the top right corner",
            "in the upper right",
            "upper right",
            "in the upper right corner",
            "top right corner",
        ],
        Position::Left => &["on the left", "left", "at the left", "on the left side", "to the left", "left side"],
        Position::Centre => &[
            "in the centre",
            "in the middle",
            "in the center",
            "at the center",
            "center",
            "centre",
            "middle",
            "centered",
        ],
        Position::Right => {
            &["on the right", "right", "at the right", "on the right side", "to the right", "right side"]
        }
        Position::BottomLeft => &[
            "in the bottom left",
            "at the bottom left",
            "bottom left",
            "in the bottom left corner",
            "in the lower left",
            "lower left",
            "in the lower left corner",
            "bottom left corner",
        ],
        Position::Bottom => {
            &["at the bottom", "bottom", "at the bottom in the middle", "bottom center", "in the bottom middle"]
        }
        Position::BottomRight => &[
            "in the bottom right",
            "at the bottom right",
            "bottom right",
            "in the bottom right corner",
            "in the lower right",
            "lower right",
            "in the lower right corner",
            "bottom right corner",
        ],
    }
}

/// Where to, of a move: `to the top left`.
pub(super) const fn destination(position: Position) -> Names {
    match position {
        Position::TopLeft => &["the top left", "the top left corner", "the upper left", "top left"],
        Position::Top => &["the top", "the top middle", "the top center"],
        Position::TopRight => &["the top right", "the top right corner", "the upper right", "top right"],
        Position::Left => &["the left", "the left side"],
        Position::Centre => &["the centre", "the middle", "the center"],
        Position::Right => &["the right", "the right side"],
        Position::BottomLeft => &["the bottom left", "the bottom left corner", "the lower left", "bottom left"],
        Position::Bottom => &["the bottom", "the bottom middle", "the bottom center"],
        Position::BottomRight => &["the bottom right", "the bottom right corner", "the lower right", "bottom right"],
    }
}

/// Between two objects.
pub(super) const fn relation(relation: Relation) -> Names {
    match relation {
        Relation::LeftOf => &["to the left of", "left of", "on the left of", "on the left side of"],
        Relation::RightOf => &["to the right of", "right of", "on the right of", "on the right side of"],
        Relation::Above => &["above", "over", "on top of", "higher than"],
        Relation::Below => &["below", "under", "beneath", "underneath", "lower than"],
    }
}

/// Where the first object is, as seen from the second: `a star with a ring above it`.
pub(super) const fn of_it(relation: Relation) -> Names {
    match relation {
        Relation::LeftOf => &["to its left", "on its left", "left of it", "next to it on the left"],
        Relation::RightOf => &["to its right", "on its right", "right of it", "next to it on the right"],
        Relation::Above => &["above it", "over it", "on top of it"],
        Relation::Below => &["below it", "under it", "underneath it", "beneath it"],
    }
}

/// Words that are often misspelt.
pub(super) const MISSPELT: [(&str, Names); 12] = [
    ("triangle", &["traingle", "triange"]),
    ("circle", &["cirle", "cicle"]),
    ("square", &["sqaure", "squre"]),
    ("yellow", &["yelow"]),
    ("purple", &["purpel"]),
    ("orange", &["ornage"]),
    ("background", &["backround", "backgroud"]),
    ("small", &["samll"]),
    ("large", &["lagre"]),
    ("striped", &["stripped"]),
    ("picture", &["pic"]),
    ("please", &["pls", "plz"]),
];
