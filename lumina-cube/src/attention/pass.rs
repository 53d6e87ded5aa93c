//! Which tokens a pass has.

use std::sync::{Arc, Mutex, PoisonError};

use crate::{Buffer, Gpu};

use super::kv::{AttentionShape, BLOCK_TOKENS};

/// The tokens of a pass, for all layers: their sequences, called rows, and their positions in them.
#[derive(Clone, Debug)]
pub struct Pass {
    /// Number of tokens.
    pub(super) n: usize,
    /// `[n]`: the position of each token in its row, which is its place in the cache.
    pub(super) positions: Buffer,
    /// `[n]`: which row of `tables`.
    pub(super) rows: Buffer,
    /// `[rows, table_len]`: the blocks of each row.
    pub(super) tables: Buffer,
    pub(super) table_len: usize,
    /// No position is as large: how far the grid reaches.
    pub(super) max_len: usize,
    /// Blocks that caches must have.
    pub(super) blocks: usize,
    /// Runs of consecutive tokens: the first, and how many.
    runs: Vec<(usize, usize)>,
    pub(super) mask: Option<Mask>,
    /// Tiles that were made, by their size. They follow from the runs, so a recording can be made again with them.
    tiles: Arc<Mutex<Vec<(usize, Tiles)>>>,
    host: Host,
}

/// Queries that share reads of the keys, on the host and on the device.
pub(super) type Tiles = (Arc<[Tile]>, Buffer);

/// Parts of a pass on the device, for [`Pass::of_parts`].
#[derive(Clone, Debug)]
pub struct PassParts {
    /// `[n]`: the position of each token in its row.
    pub positions: Buffer,
    /// `[n]`: which row of `tables` each token is of.
    pub rows: Buffer,
    /// `[rows, table_len]`: the blocks of each row, of which those that no token sees may be any.
    pub tables: Buffer,
}

/// What a launch must know of the tokens on the host.
#[derive(Clone, Debug)]
struct Host {
    rows: Vec<u32>,
    n_rows: usize,
}

/// Which tokens of its row and pass each token sees.
#[derive(Clone, Debug)]
pub(super) struct Mask {
    /// `[n]`: the position of the row's first token of the pass.
    pub(super) starts: Buffer,
    /// `[n, words]`: a bit for each token of the same row in the pass.
    pub(super) bits: Buffer,
    pub(super) words: usize,
}

/// Queries that share a cube, and so each read of the keys: (first token, how many).
pub(super) type Tile = (usize, usize);

impl Pass {
    /// The tokens of a pass: their `positions`, the `rows` that they belong to, and the blocks of each row in `tables`.
    /// No two tokens have one position in a row. Consecutive positions of a row are best next to each other: they share
    /// reads of the keys.
    ///
    /// # Panics
    /// If there are more or fewer rows than positions, or a row has no table or no block for a position.
    pub fn new(gpu: &Gpu, positions: &[u32], rows: &[u32], tables: &[&[u32]]) -> Self {
        let max_len = positions.iter().max().map_or(0, |last| *last as usize + 1);
        let blocks = tables.iter().flat_map(|table| table.iter()).max().map_or(0, |last| *last as usize + 1);
        Self::with_room(gpu, positions, rows, tables, max_len, blocks)
    }

    /// [`Pass::new`] with room for others, so that what is launched with it can be recorded and made again after
    /// [`Pass::update`]: for positions below `max_len`, and caches of at least so many blocks.
    ///
    /// # Panics
    /// As [`Pass::new`], and if a position or block is not below its bound.
    pub fn with_room(
        gpu: &Gpu,
        positions: &[u32],
        rows: &[u32],
        tables: &[&[u32]],
        max_len: usize,
        blocks: usize,
    ) -> Self {
        let longest = tables.iter().map(|table| table.len()).max().unwrap_or(0);
        let table_len = max_len.div_ceil(BLOCK_TOKENS).max(longest).max(1);
        let host = Host { rows: rows.to_vec(), n_rows: tables.len() };
        check(positions, tables, &host, max_len, blocks);
        Self {
            n: positions.len(),
            positions: gpu.upload(positions),
            rows: gpu.upload(rows),
            tables: gpu.upload(&padded(tables, table_len)),
            table_len,
            max_len,
            blocks,
            runs: runs(positions, rows),
            mask: None,
            tiles: Arc::default(),
            host,
        }
    }

    /// The tokens of a pass whose parts the caller has put on the device: rows of `lens` consecutive tokens each, and
    /// tables of `table_len` blocks for each, of caches of at least `blocks` blocks.
    ///
    /// # Panics
    /// If there are more or fewer positions than tokens.
    pub fn of_parts(lens: &[usize], parts: PassParts, table_len: usize, blocks: usize) -> Self {
        let PassParts { positions, rows, tables } = parts;
        let mut n = 0;
        let mut runs = Vec::with_capacity(lens.len());
        for &len in lens {
            runs.push((n, len));
            n += len;
        }
        assert!(positions.len() == n && rows.len() == n, "{n} tokens have a position and a row each");
        assert_eq!(tables.len(), lens.len() * table_len, "each row has {table_len} blocks in its table");
        let max_len = table_len * BLOCK_TOKENS;
        let host = Host { rows: Vec::new(), n_rows: lens.len() };
        Self { n, positions, rows, tables, table_len, max_len, blocks, runs, mask: None, tiles: Arc::default(), host }
    }

    /// Other positions and blocks for the same rows: what was recorded with the pass then works on them.
    ///
    /// # Panics
    /// If tokens that had consecutive positions have not now, a position or block is beyond the room, or a table is
    /// longer than it may be.
    pub fn update(&self, gpu: &Gpu, positions: &[u32], tables: &[&[u32]]) {
        check(positions, tables, &self.host, self.max_len, self.blocks);
        for &(first, len) in &self.runs {
            let run = &positions[first..first + len];
            assert!(run.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{run:?} are not consecutive");
        }
        assert!(tables.iter().all(|table| table.len() <= self.table_len), "tables have {} blocks", self.table_len);
        gpu.write(&self.positions, positions);
        gpu.write(&self.tables, &padded(tables, self.table_len));
    }

    /// The pass with a mask for drafts that branch: for each token the tokens that it sees of the same row in this pass,
    /// a bit each in the order of the pass, 32 in a word, itself included. It sees all positions before the row's
    /// first token of the pass besides, and none after its own. `words` are those of one token, `mask` `[n, words]`.
    ///
    /// Tokens of different branches have positions of their own in the cache, whatever the angles of their rotation.
    ///
    /// # Panics
    /// If `mask` has another size, or a row's positions in the pass are not consecutive or more than bits.
    #[must_use]
    pub fn with_mask(self, gpu: &Gpu, positions: &[u32], mask: &[u32], words: usize) -> Self {
        assert_eq!(mask.len(), self.n * words, "{} tokens have {words} words each", self.n);
        assert_eq!(positions.len(), self.n, "tokens and positions");
        let mut starts = Vec::with_capacity(self.n);
        for (index, (&row, &position)) in self.host.rows.iter().zip(positions).enumerate() {
            let before = self.host.rows[..index].iter().rposition(|other| *other == row);
            let start = before.map_or(position, |before| starts[before]);
            let next = before.map_or(position, |before| positions[before] + 1);
            assert!(position == next, "positions of row {row} are not consecutive: {position} instead of {next}");
            assert!((position - start) < 32 * words as u32, "row {row} has more tokens than the mask has bits");
            starts.push(start);
        }
        let mask = Mask { starts: gpu.upload(&starts), bits: gpu.upload(mask), words };
        Self { mask: Some(mask), ..self }
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.n
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.n == 0
    }

    /// Tokens of the longest run.
    pub(super) fn longest_run(&self) -> usize {
        self.runs.iter().map(|run| run.1).max().unwrap_or(0)
    }

    /// The tokens in tiles of up to `size` that are consecutive in a row. They are uploaded by the first layer that asks.
    pub(super) fn tiles(&self, gpu: &Gpu, size: usize) -> Tiles {
        let mut made = self.tiles.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, tiles)) = made.iter().find(|(own, _)| *own == size) {
            return tiles.clone();
        }
        let of_run = |&(first, len): &(usize, usize)| {
            (first..first + len).step_by(size).map(move |start| (start, size.min(first + len - start)))
        };
        let tiles: Arc<[Tile]> = self.runs.iter().flat_map(of_run).collect();
        let words: Vec<u32> = tiles.iter().flat_map(|tile| [tile.0 as u32, tile.1 as u32]).collect();
        let tiles = (tiles, gpu.upload(&words));
        made.push((size, tiles.clone()));
        tiles
    }

    pub(super) fn check_cache(&self, shape: &AttentionShape, cache: &Buffer) {
        let found = cache.len() / shape.block_words();
        assert!(found >= self.blocks, "the cache has {found} blocks, and the pass uses {}", self.blocks);
        assert!(u32::try_from(cache.len()).is_ok(), "a cache of {} words has indices beyond 32 bits", cache.len());
    }
}

fn check(positions: &[u32], tables: &[&[u32]], host: &Host, max_len: usize, blocks: usize) {
    assert_eq!(positions.len(), host.rows.len(), "each token has a position and a row");
    assert_eq!(tables.len(), host.n_rows, "each row has a table");
    for (&position, &row) in positions.iter().zip(&host.rows) {
        let room = tables.get(row as usize).map_or(0, |table| table.len() * BLOCK_TOKENS).min(max_len);
        assert!((position as usize) < room, "position {position} of row {row} is not below {room}");
    }
    let all_fit = tables.iter().all(|table| table.iter().all(|block| (*block as usize) < blocks));
    assert!(all_fit, "{tables:?} have blocks that are not below {blocks}");
}

/// Tables of one length, filled up with block 0, which nobody reads.
fn padded(tables: &[&[u32]], len: usize) -> Vec<u32> {
    let row = |table: &&[u32]| table.iter().copied().chain(std::iter::repeat(0)).take(len).collect::<Vec<_>>();
    tables.iter().flat_map(row).collect()
}

/// Runs of tokens with consecutive positions in one row.
fn runs(positions: &[u32], rows: &[u32]) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for index in 0..positions.len() {
        match runs.last_mut() {
            Some((_, len)) if rows[index] == rows[index - 1] && positions[index] == positions[index - 1] + 1 => {
                *len += 1
            }
            _ => runs.push((index, 1)),
        }
    }
    runs
}
