//! The neighbours in the image.

use lumina_core::layout::Phase;

use super::runner_up::nearest;
use crate::speculation::draft::DraftKind;
use crate::speculation::source::{DraftContext, DraftSource};

/// At a position of an image that no pass has reached, draws from the distributions of the upper neighbour and of the
/// last position before, with the position's own noise: if the distribution is like theirs, the draw is, too.
///
/// Both distributions are multiplied (their depths averaged). Where a device draws, and distributions are not known, it
/// is the upper neighbour's token, or the left one's.
#[derive(Debug, Clone, Copy)]
pub struct Neighbours;

impl DraftSource for Neighbours {
    fn kind(&self) -> DraftKind {
        DraftKind::Neighbours
    }

    fn draft(&mut self, context: &DraftContext<'_>) -> Option<u32> {
        let Phase::Rows(image) = context.state.phase() else { return None };
        let position = context.state.len();
        let row_tokens = image.size().latent_columns() as usize + 1;
        let above = (image.row() > 0).then(|| position - row_tokens);
        let before = context.last_with_candidates().filter(|&before| before < position && before > image.start());
        let [above_list, before_list] =
            [above, before].map(|place| place.map_or(&[][..], |place| context.candidates(place)));
        let drawn = match (above_list, before_list) {
            ([], []) => None,
            ([], only) | (only, []) => draw(context, only.iter().copied()),
            (above, before) => draw(context, Product::new([above, before])),
        };
        drawn.or_else(|| context.token(above?)).or_else(|| context.token(position.checked_sub(1)?))
    }
}

/// The winner among these candidates at the context's position.
fn draw(context: &DraftContext<'_>, depths: impl Iterator<Item = (u32, u32)>) -> Option<u32> {
    let [(time, token)] = nearest(context.sampler.key(), context.state.len(), depths);
    (time < u32::MAX).then_some(token)
}

/// The product of two distributions: tokens ascending, with the mean of their depths. A token that one of them lacks is
/// as deep there as its deepest one.
struct Product<'a> {
    lists: [&'a [(u32, u32)]; 2],
    deepest: [u32; 2],
}

impl<'a> Product<'a> {
    fn new(lists: [&'a [(u32, u32)]; 2]) -> Self {
        let deepest = lists.map(|list| list.iter().map(|&(_, depth)| depth).max().unwrap_or(0));
        Self { lists, deepest }
    }
}

impl Iterator for Product<'_> {
    type Item = (u32, u32);

    fn next(&mut self) -> Option<(u32, u32)> {
        let token = self.lists.iter().filter_map(|list| list.first()).map(|&(token, _)| token).min()?;
        let mut sum = 0;
        for (list, &deepest) in self.lists.iter_mut().zip(&self.deepest) {
            let depth = match list.split_first() {
                Some((&(next, depth), rest)) if next == token => {
                    *list = rest;
                    depth
                }
                _ => deepest,
            };
            sum += depth / 2;
        }
        Some((token, sum))
    }
}
