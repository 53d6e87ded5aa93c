//! The layout of the token stream: what an image consists of, and the state machine that follows a stream.
//!
//! An image of `W` × `H` pixels is image-start, the size token of `H`/32, the size token of `W`/32, `H`/16 rows of
//! `W`/16 image tokens with a row-end each, and image-end (arXiv 2408.02657, "Uni-Rep"). All else is text. This module
//! is the only place that knows it:
//!
//! - [`ImageSize::slots`]: the [`Slot`]s of an image, one per token. Encoding writes them, [`ImageSize::n_tokens`]
//!   counts them, and the state machine expects them.
//! - [`StreamLayout`]: where a stream is after each token. Samplers ask it what is expected next, and decoders what a
//!   token was. It is `Copy`: a caller that drafts tokens keeps a copy to go back to.
//!
//! ```
//! use lumina_core::layout::{Phase, Placement, Slot, StreamLayout};
//! use lumina_core::{ImageSize, TokenRole};
//!
//! let size = ImageSize::new(64, 32)?;
//! let mut layout = StreamLayout::strict();
//! assert_eq!(layout.push(TokenRole::ImageStart), Placement::Slot(Slot::ImageStart));
//! layout.push(TokenRole::Size { cells: size.height_cells() });
//! layout.push(TokenRole::Size { cells: size.width_cells() });
//!
//! let before = layout;
//! assert_eq!(layout.push(TokenRole::Code(7)), Placement::Slot(Slot::Code { row: 0, column: 0 }));
//! assert_eq!(layout.expected(), Some(Slot::Code { row: 0, column: 1 }));
//! assert_eq!(layout.push(TokenRole::Text), Placement::Misfit(Slot::Code { row: 0, column: 1 }));
//! layout = before;
//! let Phase::Rows(image) = layout.phase() else { unreachable!("both sizes are known") };
//! assert_eq!((image.size(), image.remaining()), (size, Some(size.n_tokens() - 3)));
//! # Ok::<(), lumina_core::Error>(())
//! ```

use std::fmt;

use crate::{ImageSize, TokenRole};

/// What the layout has at one place of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Slot {
    /// Image-start.
    ImageStart,
    /// The size token of the height.
    Height,
    /// The size token of the width.
    Width,
    /// An image token.
    Code {
        /// Its row, from 0 at the top.
        row: u32,
        /// Its column, from 0 at the left.
        column: u32,
    },
    /// The row-end after a row.
    RowEnd {
        /// The row.
        row: u32,
    },
    /// Image-end.
    ImageEnd,
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ImageStart => write!(f, "image-start"),
            Self::Height => write!(f, "the size token of its height"),
            Self::Width => write!(f, "the size token of its width"),
            Self::Code { row, column } => write!(f, "the image token of row {row}, column {column}"),
            Self::RowEnd { row } => write!(f, "the end of row {row}"),
            Self::ImageEnd => write!(f, "the image's end"),
        }
    }
}

/// The number of slots before the rows: image-start and the two sizes.
const HEADER: usize = 3;

impl ImageSize {
    /// The number of tokens of an image of this size: image-start, two sizes, the rows with their row-ends, image-end.
    pub fn n_tokens(self) -> usize {
        HEADER + self.rows_tokens() + 1
    }

    /// What the tokens of an image of this size are, from image-start to image-end.
    pub fn slots(self) -> impl ExactSizeIterator<Item = Slot> {
        (0..self.n_tokens()).map(move |index| self.slot(index))
    }

    /// The slot at `index` of an image. After image-end further rows follow: an image that does not end is sampled so.
    fn slot(self, index: usize) -> Slot {
        match index {
            0 => Slot::ImageStart,
            1 => Slot::Height,
            2 => Slot::Width,
            _ if index - HEADER == self.rows_tokens() => Slot::ImageEnd,
            _ => {
                let (row, column) = ((index - HEADER) / self.row_tokens(), (index - HEADER) % self.row_tokens());
                let row = u32::try_from(row).unwrap_or(u32::MAX);
                match u32::try_from(column) {
                    Ok(column) if column < self.latent_columns() => Slot::Code { row, column },
                    _ => Slot::RowEnd { row },
                }
            }
        }
    }

    /// Tokens of a row with its row-end.
    fn row_tokens(self) -> usize {
        self.latent_columns() as usize + 1
    }

    /// Tokens of all rows.
    fn rows_tokens(self) -> usize {
        self.row_tokens() * self.latent_rows() as usize
    }
}

/// The part of the stream that the next token belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Text.
    Text,
    /// An image has begun; its height comes next.
    Height,
    /// The height of an image is known; its width comes next.
    Width {
        /// The height, in cells of 32 pixels.
        height_cells: u32,
    },
    /// Both sizes are known: rows of image tokens, then image-end.
    Rows(ImageProgress),
    /// A token did not fit the layout, and where the image ends is not yet clear. A correct model never gets here.
    Malformed,
}

/// How much of an image is in the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageProgress {
    start: usize,
    size: ImageSize,
    /// Tokens after the header.
    n_tokens: usize,
}

impl ImageProgress {
    /// Index in the stream of the image-start token.
    pub fn start(self) -> usize {
        self.start
    }
    /// The size that the stream states.
    pub fn size(self) -> ImageSize {
        self.size
    }
    /// The row of the next token, which is the number of complete rows.
    pub fn row(self) -> usize {
        self.n_tokens / self.size.row_tokens()
    }
    /// The column of the next image token; the number of columns where the row-end comes next.
    pub fn column(self) -> usize {
        self.n_tokens % self.size.row_tokens()
    }
    /// The slot of the next token. If anything but image-end follows the last row, further rows are expected, as in the
    /// original.
    pub fn expected(self) -> Slot {
        self.size.slot(HEADER + self.n_tokens)
    }
    /// The number of tokens up to and including image-end; `None` if there are tokens after the last row.
    pub fn remaining(self) -> Option<usize> {
        self.size.n_tokens().checked_sub(HEADER + self.n_tokens).filter(|&remaining| remaining > 0)
    }
}

/// What [`StreamLayout::push`] found a token to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// A token of text.
    Text,
    /// The token that the layout has at this place of an image.
    Slot(Slot),
    /// Not the token that the layout has at this place of an image.
    Misfit(Slot),
    /// A token without a place: in what is left of a malformed image, or a repeated image-start that is ignored.
    Outside,
}

/// Where a stream is after its tokens so far, kept token by token.
///
/// It is `Copy` and needs no heap: to draft tokens, keep a copy and go back to it. A push takes constant time.
///
/// The original has two rules for streams that a correct model does not write, and so has this machine:
///
/// - [`StreamLayout::counting`], for sampling. A stream is in an image while it has exactly one more image-start than
///   image-ends. In the rows only the number of tokens counts, not what they are. Where a size was expected and
///   something else came, or the difference is neither 0 nor 1, the phase is [`Phase::Malformed`] until the numbers are
///   equal. (The original takes any token where a size is expected for one, by its id.)
///   Mirrors `inference_solver.py::MultiModalLogitsProcessor`.
/// - [`StreamLayout::strict`], for decoding. An image is everything from image-start to the next image-end, and each
///   token must fit its slot, or the phase is [`Phase::Malformed`] up to that image-end. A second image-start right
///   after the first is ignored, and any token but image-end fits in the place of a row-end. Mirrors
///   `FlexARInferenceSolver.decode_ids`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamLayout {
    rule: Rule,
    len: usize,
    /// Image-starts minus image-ends.
    open_images: i64,
    image_start: usize,
    image_ends: usize,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    Counting,
    Strict,
}

impl StreamLayout {
    /// An empty stream, by the rule for sampling: the number of image-starts, image-ends and tokens counts.
    pub fn counting() -> Self {
        Self::new(Rule::Counting)
    }

    /// An empty stream, by the rule for decoding: each token must fit.
    pub fn strict() -> Self {
        Self::new(Rule::Strict)
    }

    fn new(rule: Rule) -> Self {
        Self { rule, len: 0, open_images: 0, image_start: 0, image_ends: 0, phase: Phase::Text }
    }

    /// Adds a token. Any token is accepted; the return value classifies it.
    pub fn push(&mut self, role: TokenRole) -> Placement {
        let placement = self.placement(role);
        let phase = match self.rule {
            Rule::Counting => self.counted(role, placement),
            Rule::Strict => self.checked(role, placement),
        };
        if self.phase == Phase::Text && phase == Phase::Height {
            self.image_start = self.len;
        }
        self.phase = phase;
        self.image_ends += usize::from(role == TokenRole::ImageEnd);
        self.len += 1;
        placement
    }

    /// Classifies the next token.
    fn placement(&self, role: TokenRole) -> Placement {
        match (self.phase, self.expected()) {
            (Phase::Text, _) if role == TokenRole::ImageStart => Placement::Slot(Slot::ImageStart),
            (Phase::Text, _) if role == TokenRole::ImageEnd && self.rule == Rule::Counting => Placement::Outside,
            (Phase::Text, _) => Placement::Text,
            (_, None) => Placement::Outside,
            (_, Some(slot)) if self.fits(slot, role) => Placement::Slot(slot),
            (Phase::Height, _) if self.is_repeated_start(role) => Placement::Outside,
            (_, Some(slot)) => Placement::Misfit(slot),
        }
    }

    fn fits(&self, slot: Slot, role: TokenRole) -> bool {
        match (slot, role, self.rule) {
            (Slot::Height, TokenRole::Size { .. }, _)
            | (Slot::Code { .. }, TokenRole::Code(_), _)
            | (Slot::ImageEnd, TokenRole::ImageEnd, _) => true,
            (Slot::Width, TokenRole::Size { cells }, _) => self.size_of_width(cells).is_some(),
            (Slot::RowEnd { .. }, TokenRole::ImageStart, Rule::Counting) => false,
            (Slot::RowEnd { .. }, role, _) => role != TokenRole::ImageEnd,
            _ => false,
        }
    }

    fn is_repeated_start(&self, role: TokenRole) -> bool {
        self.rule == Rule::Strict && role == TokenRole::ImageStart && self.len == self.image_start + 1
    }

    /// The size of the image whose width is `width_cells`.
    fn size_of_width(&self, width_cells: u32) -> Option<ImageSize> {
        match self.phase {
            Phase::Width { height_cells } => ImageSize::from_cells(width_cells, height_cells).ok(),
            _ => None,
        }
    }

    /// The phase after a token, by the rule for sampling.
    fn counted(&mut self, role: TokenRole, placement: Placement) -> Phase {
        match role {
            TokenRole::ImageStart => self.open_images += 1,
            TokenRole::ImageEnd => self.open_images -= 1,
            _ => {}
        }
        match (role, self.open_images) {
            (TokenRole::ImageStart | TokenRole::ImageEnd, 0) => Phase::Text,
            (TokenRole::ImageStart, 1) => Phase::Height,
            (TokenRole::ImageStart | TokenRole::ImageEnd, _) => Phase::Malformed,
            _ if matches!(placement, Placement::Misfit(Slot::Height | Slot::Width)) => Phase::Malformed,
            _ => self.phase_after(role),
        }
    }

    /// The phase after a token, by the rule for decoding.
    fn checked(&mut self, role: TokenRole, placement: Placement) -> Phase {
        let phase = match placement {
            Placement::Text | Placement::Slot(_) => self.phase_after(role),
            Placement::Outside if self.phase == Phase::Height => Phase::Height,
            _ if role == TokenRole::ImageEnd => Phase::Text,
            _ => Phase::Malformed,
        };
        self.open_images = i64::from(phase != Phase::Text);
        phase
    }

    /// The phase after a token that fits, or counts as if it did.
    fn phase_after(&self, role: TokenRole) -> Phase {
        match (self.phase, role) {
            (Phase::Text, TokenRole::ImageStart) => Phase::Height,
            (Phase::Height, TokenRole::Size { cells }) => Phase::Width { height_cells: cells },
            (Phase::Width { .. }, TokenRole::Size { cells }) => match self.size_of_width(cells) {
                Some(size) => Phase::Rows(ImageProgress { start: self.image_start, size, n_tokens: 0 }),
                None => Phase::Malformed,
            },
            (Phase::Rows(_), TokenRole::ImageEnd) => Phase::Text,
            (Phase::Rows(image), _) => Phase::Rows(ImageProgress { n_tokens: image.n_tokens + 1, ..image }),
            (phase, _) => phase,
        }
    }

    /// Tokens so far, which is the position of the next one.
    #[expect(clippy::len_without_is_empty, reason = "a position; emptiness means nothing here")]
    pub fn len(&self) -> usize {
        self.len
    }
    /// What the next token belongs to.
    pub fn phase(&self) -> Phase {
        self.phase
    }
    /// What the layout has at the next place, in an image; `None` in text and in a malformed image.
    pub fn expected(&self) -> Option<Slot> {
        match self.phase {
            Phase::Text | Phase::Malformed => None,
            Phase::Height => Some(Slot::Height),
            Phase::Width { .. } => Some(Slot::Width),
            Phase::Rows(image) => Some(image.expected()),
        }
    }
    /// Whether the stream has exactly one more image-start than image-ends; by the rule for decoding, whether it is not
    /// in text.
    pub fn in_image(&self) -> bool {
        self.open_images == 1
    }
    /// Index in the stream of the image-start of the image that it is in; `None` in text and in a malformed image.
    pub fn image_start(&self) -> Option<usize> {
        self.expected().map(|_| self.image_start)
    }
    /// The number of image-end tokens so far.
    pub fn image_ends(&self) -> usize {
        self.image_ends
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn roles() -> impl Strategy<Value = Vec<TokenRole>> {
        let role = prop_oneof![
            3 => Just(TokenRole::ImageStart),
            2 => Just(TokenRole::ImageEnd),
            1 => prop::sample::select(vec![TokenRole::Text, TokenRole::TurnEnd, TokenRole::Bos]),
            2 => Just(TokenRole::RowEnd),
            4 => (1..3u32).prop_map(|cells| TokenRole::Size { cells }),
            1 => Just(TokenRole::Size { cells: u32::MAX }),
            4 => (0..4u32).prop_map(TokenRole::Code),
        ];
        let image = image_strategy().prop_map(|size| image_of(size).collect::<Vec<_>>());
        let cut = (image_strategy(), any::<prop::sample::Index>())
            .prop_map(|(size, cut)| image_of(size).take(cut.index(size.n_tokens())).collect());
        let piece = prop_oneof![2 => prop::collection::vec(role, 0..8), 1 => image, 1 => cut];
        prop::collection::vec(piece, 0..5).prop_map(|pieces| pieces.concat())
    }

    fn image_strategy() -> impl Strategy<Value = ImageSize> {
        (1..3u32, 1..3u32).prop_map(|(width, height)| ImageSize::from_cells(width, height).unwrap())
    }

    /// The roles of a well-formed image.
    fn image_of(size: ImageSize) -> impl Iterator<Item = TokenRole> {
        size.slots().map(move |slot| match slot {
            Slot::ImageStart => TokenRole::ImageStart,
            Slot::Height => TokenRole::Size { cells: size.height_cells() },
            Slot::Width => TokenRole::Size { cells: size.width_cells() },
            Slot::Code { row, column } => TokenRole::Code(row + column),
            Slot::RowEnd { .. } => TokenRole::RowEnd,
            Slot::ImageEnd => TokenRole::ImageEnd,
        })
    }

    #[test]
    fn the_slots_of_an_image() {
        let (code, row_end) = (|row, column| Slot::Code { row, column }, |row| Slot::RowEnd { row });
        let size = ImageSize::new(32, 32).unwrap();
        let expected = [
            [Slot::ImageStart, Slot::Height, Slot::Width],
            [code(0, 0), code(0, 1), row_end(0)],
            [code(1, 0), code(1, 1), row_end(1)],
        ];
        assert!(size.slots().eq(expected.into_iter().flatten().chain([Slot::ImageEnd])));
        for (width, height) in (1..=6).flat_map(|width| (1..=6).map(move |height| (width, height))) {
            let size = ImageSize::from_cells(width, height).unwrap();
            assert_eq!(size.slots().count(), size.n_tokens());
            assert_eq!(size.slots().len(), size.n_tokens());
            assert_eq!(size.slots().filter(|slot| matches!(slot, Slot::Code { .. })).count(), size.n_codes());
            assert_eq!(
                size.slots().filter(|slot| matches!(slot, Slot::RowEnd { .. })).count() * 16,
                size.height_px() as usize
            );
        }
    }

    #[test]
    fn copies_are_small() {
        assert!(size_of::<StreamLayout>() <= 80, "{} bytes", size_of::<StreamLayout>());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// The definition by which the original samples, which looks at the whole stream for each token.
        #[test]
        fn counting_is_what_a_look_at_the_whole_stream_finds(roles in roles()) {
            let mut layout = StreamLayout::counting();
            for end in 0..=roles.len() {
                let seen = &roles[..end];
                let count = |wanted| seen.iter().filter(|&&role| role == wanted).count() as i64;
                let open = count(TokenRole::ImageStart) - count(TokenRole::ImageEnd);
                prop_assert_eq!(layout.in_image(), open == 1);
                prop_assert_eq!(layout.len(), end);
                prop_assert_eq!(layout.image_ends() as i64, count(TokenRole::ImageEnd));
                prop_assert_eq!(layout.phase() == Phase::Text, open == 0);
                if let Phase::Rows(image) = layout.phase() {
                    let start = seen.iter().rposition(|&role| role == TokenRole::ImageStart).unwrap();
                    let size = |index: usize| match seen[start + index] {
                        TokenRole::Size { cells } => cells,
                        other => unreachable!("{other:?}"),
                    };
                    prop_assert_eq!(image.start(), start);
                    prop_assert_eq!(image.size(), ImageSize::from_cells(size(2), size(1)).unwrap());
                    let columns = image.size().latent_columns() as usize + 1;
                    let n_tokens = end - start - HEADER;
                    prop_assert_eq!((image.row(), image.column()), (n_tokens / columns, n_tokens % columns));
                }
                if let Some(&role) = roles.get(end) {
                    layout.push(role);
                }
            }
        }

        /// By both rules, as long as there is nothing but text and whole images.
        #[test]
        fn well_formed_streams_fit(images in prop::collection::vec((image_strategy(), 0..3usize), 0..4)) {
            for mut layout in [StreamLayout::counting(), StreamLayout::strict()] {
                for &(size, n_text) in &images {
                    for _ in 0..n_text {
                        prop_assert_eq!(layout.push(TokenRole::Text), Placement::Text);
                    }
                    let start = layout.len();
                    for (index, (slot, role)) in size.slots().zip(image_of(size)).enumerate() {
                        let remaining = match layout.phase() {
                            Phase::Rows(image) => image.remaining(),
                            _ => Some(size.n_tokens() - index),
                        };
                        prop_assert_eq!(remaining, Some(size.n_tokens() - index));
                        prop_assert_eq!(layout.expected(), (index > 0).then_some(slot));
                        prop_assert_eq!(layout.push(role), Placement::Slot(slot));
                        prop_assert_eq!(layout.image_start(), (slot != Slot::ImageEnd).then_some(start));
                    }
                    prop_assert_eq!((layout.phase(), layout.in_image()), (Phase::Text, false));
                }
            }
        }

        /// After the first token that does not fit, nothing has a place up to the next image-end.
        #[test]
        fn strict_skips_to_the_next_image_end(roles in roles()) {
            let mut layout = StreamLayout::strict();
            let mut skipping = false;
            for role in roles {
                let placement = layout.push(role);
                if skipping {
                    prop_assert_eq!(placement, Placement::Outside);
                }
                skipping = (skipping || matches!(placement, Placement::Misfit(_))) && role != TokenRole::ImageEnd;
                prop_assert_eq!(layout.phase() == Phase::Malformed, skipping);
                if role == TokenRole::ImageEnd {
                    prop_assert_eq!(layout.phase(), Phase::Text);
                }
            }
        }
    }
}
