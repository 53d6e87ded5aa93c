//! The items of each batch, on each rank.

use super::random::{generator, shuffle, shuffle_front};
use crate::{Error, Result};

/// Items of one source, as the sampler sees them.
#[derive(Debug, Clone, PartialEq)]
pub struct ItemGroup {
    /// Their kind. A batch has items of one kind.
    pub kind: String,
    /// How many times each is drawn in an epoch: 0.5 is every other one, 2 is each twice.
    pub ratio: f64,
    /// Tokens of each item.
    pub lens: Vec<u32>,
}

/// How items are drawn and shared among ranks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SamplerOptions {
    /// Items of a batch.
    pub batch_size: usize,
    /// Batches whose gradients are summed before a step.
    pub accumulation: usize,
    /// This process among `ranks`, from 0.
    pub rank: usize,
    /// Number of processes.
    pub ranks: usize,
    /// The order of the items.
    pub order: ItemOrder,
}

/// The order of items in an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ItemOrder {
    /// Drawn and shuffled by a seed, another order in each epoch.
    Shuffled {
        /// The seed; all ranks need the same.
        seed: u64,
    },
    /// As stored, the same in each epoch. Of a ratio below 1, the first ones.
    Stored,
}

/// Draws batches of items of similar length, for each rank its own.
///
/// Every rank draws the whole epoch in the same way, and takes its part of it. Mirrors `FinetuneDistSampler` of the
/// original, but for its random numbers:
/// 1. Of each group, `floor(n · ratio)` items are drawn, and groups of one kind are joined, in the order of their
///    first group.
/// 2. Each kind is shuffled and cut to whole global batches of `batch_size · ranks · accumulation` items. Items left
///    over are not used in this epoch.
/// 3. Each kind is sorted by length and split into global batches, and the global batches of all kinds are shuffled.
/// 4. Of each global batch, in turns, every rank takes `batch_size` items, `accumulation` times.
///
/// ```
/// use lumina_train::data::{BatchSampler, ItemGroup, ItemOrder, SamplerOptions};
///
/// let group = ItemGroup { kind: "image".to_owned(), ratio: 1.0, lens: vec![70, 20, 60, 10, 80, 30, 50, 40, 90] };
/// let order = ItemOrder::Shuffled { seed: 7 };
/// let options = SamplerOptions { batch_size: 2, accumulation: 1, rank: 0, ranks: 2, order };
/// let sampler = BatchSampler::new(vec![group], options)?;
///
/// let epoch = sampler.epoch(0);
/// assert_eq!((epoch.len(), epoch[0].len()), (sampler.n_batches(), 2));
/// // To resume after one batch of epoch 0:
/// let rest = &sampler.epoch(0)[1..];
/// assert_eq!(rest, &epoch[1..]);
/// # Ok::<(), lumina_train::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct BatchSampler {
    groups: Vec<ItemGroup>,
    options: SamplerOptions,
}

impl BatchSampler {
    /// A sampler over groups. The items of all groups have one index: that of the first item of the second group is the
    /// number of items of the first.
    ///
    /// # Errors
    /// [`Error::OutOfRange`], and [`Error::TooFewItems`] where no kind has a whole global batch.
    pub fn new(groups: Vec<ItemGroup>, options: SamplerOptions) -> Result<Self> {
        let out_of_range = |field, value: String, expected: String| Err(Error::OutOfRange { field, value, expected });
        let sizes =
            [("batch_size", options.batch_size), ("accumulation", options.accumulation), ("ranks", options.ranks)];
        if let Some((field, _)) = sizes.into_iter().find(|&(_, size)| size == 0) {
            return out_of_range(field, "0".to_owned(), "at least 1".to_owned());
        }
        if options.rank >= options.ranks {
            let expected = format!("below {}, the number of ranks", options.ranks);
            return out_of_range("rank", options.rank.to_string(), expected);
        }
        let global = options.batch_size.checked_mul(options.accumulation).and_then(|n| n.checked_mul(options.ranks));
        let Some(global) = global else {
            let expected = "a global batch that can be counted".to_owned();
            return out_of_range("batch_size", options.batch_size.to_string(), expected);
        };
        for group in &groups {
            let in_range = (0.0..=MAX_RATIO).contains(&group.ratio);
            if !in_range {
                let expected = format!("0 to {MAX_RATIO} for items of kind `{}`", group.kind);
                return out_of_range("ratio", group.ratio.to_string(), expected);
            }
        }
        let sampler = Self { groups, options };
        if sampler.n_batches() == 0 {
            let most = sampler.kinds().iter().map(|(_, n_items)| *n_items).max().unwrap_or(0);
            return Err(Error::TooFewItems { needed: global, most });
        }
        Ok(sampler)
    }

    /// Batches of an epoch, on each rank.
    pub fn n_batches(&self) -> usize {
        let SamplerOptions { batch_size, ranks, .. } = self.options;
        self.kinds().iter().map(|(_, n_items)| n_items / self.global_batch() * self.global_batch()).sum::<usize>()
            / (batch_size * ranks)
    }

    /// Drawn items that are left over in an epoch, since they make no whole global batch.
    pub fn n_left_over(&self) -> usize {
        self.kinds().iter().map(|(_, n_items)| n_items % self.global_batch()).sum()
    }

    /// The batches of an epoch on this rank, as indices of items, all of `batch_size`. Training that is resumed after
    /// `k` batches continues with the one at `k`.
    pub fn epoch(&self, epoch: u64) -> Vec<Vec<usize>> {
        let SamplerOptions { batch_size, rank, ranks, order, .. } = self.options;
        let global = self.global_batch();
        let mut random = match order {
            ItemOrder::Shuffled { seed } => Some(generator(b"sampler ", seed, epoch)),
            ItemOrder::Stored => None,
        };

        let mut kinds: Vec<(&str, Vec<(u32, usize)>)> = Vec::new();
        let mut first = 0;
        for group in &self.groups {
            let n_items = group.lens.len();
            let indices = 0..n_items;
            let drawn = n_drawn(group);
            let mut items: Vec<usize> = indices.clone().cycle().take(drawn - drawn % n_items.max(1)).collect();
            let mut rest: Vec<usize> = indices.collect();
            let n_rest = drawn - items.len();
            if let Some(random) = &mut random {
                shuffle_front(random, &mut rest, n_rest);
            }
            items.extend(&rest[..n_rest]);
            let items = items.into_iter().map(|item| (group.lens[item], first + item));
            match kinds.iter_mut().find(|(kind, _)| *kind == group.kind) {
                Some((_, of_kind)) => of_kind.extend(items),
                None => kinds.push((&group.kind, items.collect())),
            }
            first += n_items;
        }

        let mut global_batches: Vec<Vec<(u32, usize)>> = Vec::new();
        for (_, mut items) in kinds {
            if let Some(random) = &mut random {
                shuffle(random, &mut items);
            }
            items.truncate(items.len() / global * global);
            // Stable: of equal lengths, the order is that of the shuffle.
            items.sort_by_key(|&(len, _)| len);
            global_batches.extend(items.chunks(global).map(<[_]>::to_vec));
        }
        if let Some(random) = &mut random {
            shuffle(random, &mut global_batches);
        }
        let batches = global_batches.iter().flat_map(|items| items.chunks(batch_size)).skip(rank).step_by(ranks);
        batches.map(|batch| batch.iter().map(|&(_, item)| item).collect()).collect()
    }

    fn global_batch(&self) -> usize {
        self.options.batch_size * self.options.accumulation * self.options.ranks
    }

    /// The kinds, with the number of items that are drawn of each.
    fn kinds(&self) -> Vec<(&str, usize)> {
        let mut kinds: Vec<(&str, usize)> = Vec::new();
        for group in &self.groups {
            match kinds.iter_mut().find(|(kind, _)| *kind == group.kind) {
                Some((_, n_items)) => *n_items += n_drawn(group),
                None => kinds.push((&group.kind, n_drawn(group))),
            }
        }
        kinds
    }
}

/// An epoch is a list in memory.
const MAX_RATIO: f64 = 1000.0;

fn n_drawn(group: &ItemGroup) -> usize {
    (group.lens.len() as f64 * group.ratio) as usize
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn group(kind: &str, ratio: f64, n_items: u32) -> ItemGroup {
        let lens = (0..n_items).map(|item| item * 7919 % 101 + 10).collect();
        ItemGroup { kind: kind.to_owned(), ratio, lens }
    }

    fn groups() -> Vec<ItemGroup> {
        vec![group("image", 1.0, 50), group("text", 0.5, 33), group("image", 2.5, 12)]
    }

    fn sampler(rank: usize, ranks: usize) -> BatchSampler {
        let order = ItemOrder::Shuffled { seed: 3 };
        BatchSampler::new(groups(), SamplerOptions { batch_size: 2, accumulation: 2, rank, ranks, order }).unwrap()
    }

    #[test]
    fn ranks_share_an_epoch_without_gap_or_overlap() {
        let ranks: Vec<_> = (0..3).map(|rank| sampler(rank, 3).epoch(5)).collect();
        let mut drawn: HashMap<usize, usize> = HashMap::new();
        for rank in &ranks {
            assert_eq!(rank.len(), sampler(0, 3).n_batches());
            for &item in rank.iter().flatten() {
                *drawn.entry(item).or_default() += 1;
            }
        }
        // 80 images in global batches of 12, and 16 texts.
        assert_eq!(drawn.values().sum::<usize>(), 72 + 12);
        assert_eq!(sampler(0, 3).n_left_over(), 8 + 4);
        assert!(drawn.iter().all(|(&item, &times)| times <= if item < 83 { 1 } else { 3 }), "{drawn:?}");
    }

    #[test]
    fn a_global_batch_is_of_one_kind_and_of_similar_lengths() {
        let lens: Vec<u32> = groups().into_iter().flat_map(|group| group.lens).collect();
        let kind = |item: usize| (50..83).contains(&item);
        let ranks: Vec<_> = (0..3).map(|rank| sampler(rank, 3).epoch(0)).collect();
        for step in 0..ranks[0].len() / 2 {
            let items: Vec<usize> = ranks.iter().flat_map(|rank| rank[2 * step..2 * step + 2].concat()).collect();
            assert!(items.iter().all(|&item| kind(item) == kind(items[0])));
            let spread = |items: &[usize]| {
                let lens = items.iter().map(|&item| lens[item]);
                lens.clone().max().unwrap() - lens.min().unwrap()
            };
            assert!(spread(&items) <= if kind(items[0]) { 100 } else { 40 }, "{items:?}");
        }
    }

    #[test]
    fn epochs_differ_and_repeat() {
        let sampler = sampler(1, 2);
        assert_eq!(sampler.epoch(4), sampler.epoch(4));
        assert_ne!(sampler.epoch(4), sampler.epoch(5));
        let steps = |epoch| sampler.epoch(epoch).into_iter().map(|batch| batch[0] < 50).collect::<Vec<_>>();
        assert_ne!(steps(0), steps(1), "the global batches are shuffled too");
    }

    #[test]
    fn options_out_of_range_are_errors() {
        let options = SamplerOptions { batch_size: 2, accumulation: 2, rank: 0, ranks: 2, order: ItemOrder::Stored };
        for bad in [
            SamplerOptions { batch_size: 0, ..options.clone() },
            SamplerOptions { accumulation: 0, ..options.clone() },
            SamplerOptions { rank: 2, ..options.clone() },
            SamplerOptions { ranks: 0, ..options.clone() },
            SamplerOptions { batch_size: usize::MAX, ..options.clone() },
            SamplerOptions { batch_size: 100, ..options.clone() },
        ] {
            assert!(BatchSampler::new(groups(), bad.clone()).is_err(), "{bad:?}");
        }
        for ratio in [-0.1, f64::NAN, f64::INFINITY, 1e9, 0.0] {
            assert!(BatchSampler::new(vec![group("image", ratio, 50)], options.clone()).is_err(), "{ratio}");
        }
        assert!(BatchSampler::new(Vec::new(), options).is_err());
    }
}
