//! Which tokens a pass has.

use crate::{Buffer, Gpu};

use super::kv::{AttentionShape, BLOCK_TOKENS};
use super::prompt::QUERIES;

/// The tokens of a pass, for all layers: their sequences, called rows, and their positions in them.
#[derive(Clone, Debug)]
pub struct Pass {
    /// Number of tokens.
    pub(super) n: usize,
    /// `[n]`: the position of each token in its row, which is its place in the cache.
    pub(super) positions: Buffer,
    /// `[n]`: which row of `tables`.
    pub(super) rows: Buffer,
    /// `[n_rows, table_len]`: the blocks of each row.
    pub(super) tables: Buffer,
    pub(super) table_len: usize,
    /// No position is as large: how far the grid reaches.
    pub(super) max_len: usize,
    /// Blocks that caches must have.
    blocks: usize,
    /// `[tiles, 3]`: first token, number of tokens, and place of the first token. Tiles of all sizes, then those of
    /// prompts.
    pub(super) tiles: Buffer,
    tiles_by_size: Vec<Tiles>,
    /// Tiles of prompts, whose attention is by tensor cores.
    pub(super) prompts: Tiles,
    pub(super) mask: Option<Mask>,
    tokens: Tokens,
}

/// A pass before it is on the device: so that it can share an upload.
#[derive(Clone, Debug)]
pub struct PassWords {
    /// What the device reads: positions, rows, tables, tiles.
    pub words: [Vec<u32>; 4],
    table_len: usize,
    max_len: usize,
    blocks: usize,
    tiles_by_size: Vec<Tiles>,
    prompts: Tiles,
    tokens: Tokens,
}

/// A token of a pass is of a row, at a position.
#[derive(Clone, Debug)]
struct Tokens {
    positions: Vec<u32>,
    rows: Vec<u32>,
    /// For each row, whether its tokens are those of a prompt.
    prompts: Vec<bool>,
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

/// Queries that share a cube, and so each read of the keys: consecutive tokens of a row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tile {
    /// Its first token.
    pub(super) first: usize,
    pub(super) len: usize,
    /// Tokens of such tiles before these.
    pub(super) place: usize,
}

/// Tiles of up to so many tokens.
#[derive(Clone, Debug)]
pub(super) struct Tiles {
    pub(super) size: usize,
    pub(super) tiles: Vec<Tile>,
    /// Tiles in the buffer before these.
    pub(super) before: usize,
}

/// The sizes that tiles of tokens can have that are not those of prompts.
const TILE_SIZES: [usize; 4] = [1, 2, 4, 8];

impl Pass {
    /// The tokens of a pass: their `positions`, the `rows` that they belong to, and the blocks of each row in `tables`.
    /// No two tokens have one position in a row. Consecutive positions of a row should be next to each other: they
    /// share reads of the keys.
    ///
    /// # Panics
    /// If there are more or fewer rows than positions, or a row has no table or no block for a position.
    pub fn new(gpu: &Gpu, positions: &[u32], rows: &[u32], tables: &[&[u32]]) -> Self {
        let max_len = positions.iter().max().map_or(0, |last| *last as usize + 1);
        let blocks = tables.iter().flat_map(|table| table.iter()).max().map_or(0, |last| *last as usize + 1);
        Self::with_room(gpu, positions, rows, tables, [max_len, blocks])
    }

    /// [`Pass::new`] with room for other positions and blocks, so that what is launched with it can be recorded, and
    /// made again after [`Pass::update`]: positions below `max_len`, in caches of at least `blocks` blocks.
    ///
    /// # Panics
    /// As [`Pass::new`], and if a position or block is not below its bound.
    pub fn with_room(
        gpu: &Gpu,
        positions: &[u32],
        rows: &[u32],
        tables: &[&[u32]],
        [max_len, blocks]: [usize; 2],
    ) -> Self {
        let words = PassWords::new(positions, rows, tables, &vec![false; tables.len()], [max_len, blocks]);
        let buffers = words.words.each_ref().map(|words| gpu.upload(words));
        Self::of(words, buffers)
    }

    /// A pass whose words are in these buffers.
    ///
    /// # Panics
    /// If they are of other sizes.
    pub fn of(words: PassWords, buffers: [Buffer; 4]) -> Self {
        let PassWords { words, table_len, max_len, blocks, tiles_by_size, prompts, tokens } = words;
        for (words, buffer) in words.iter().zip(&buffers) {
            assert_eq!(buffer.len(), words.len(), "a buffer has the words of its part");
        }
        let [positions, rows, tables, tiles] = buffers;
        let n = tokens.rows.len();
        let mask = None;
        Self { n, positions, rows, tables, table_len, max_len, blocks, tiles, tiles_by_size, prompts, mask, tokens }
    }

    /// Other positions and blocks for the same rows: what was recorded with the pass then works on them. A mask stays.
    ///
    /// # Panics
    /// If tokens that had consecutive positions have not now, a position or block is beyond the room, or a table is
    /// longer than `max_len` takes.
    pub fn update(&mut self, gpu: &Gpu, positions: &[u32], tables: &[&[u32]]) {
        self.tokens.positions = positions.to_vec();
        self.tokens.check(tables, [self.max_len, self.blocks]);
        for tile in self.tiles_by_size.iter().chain([&self.prompts]).flat_map(|tiles| &tiles.tiles) {
            let own = &positions[tile.first..tile.first + tile.len];
            assert!(own.windows(2).all(|pair| pair[0] + 1 == pair[1]), "positions {own:?} are not consecutive");
        }
        assert!(tables.iter().all(|table| table.len() <= self.table_len), "tables have {} blocks", self.table_len);
        gpu.write(&self.positions, positions);
        gpu.write(&self.tables, &padded(tables, self.table_len));
        if let Some(mask) = &self.mask {
            gpu.write(&mask.starts, &self.tokens.starts(32 * mask.words));
        }
    }

    /// The pass with a mask, for drafts that branch: for each token `words` words with a bit for each token of its row
    /// in this pass, in their order, set for those that it sees, itself included: `[n, words]`. It also sees all
    /// positions before the row's first token of the pass, and none after its own.
    ///
    /// Tokens of different branches have positions of their own here, whatever the angles of their rotation. Those of
    /// prompts see all positions up to their own, whatever their bits.
    ///
    /// # Panics
    /// If `mask` has another size, or a row's positions are not consecutive or more than bits.
    #[must_use]
    pub fn with_mask(self, gpu: &Gpu, mask: &[u32], words: usize) -> Self {
        assert_eq!(mask.len(), self.n * words, "a mask of {} tokens has {words} words each", self.n);
        let starts = gpu.upload(&self.tokens.starts(32 * words));
        Self { mask: Some(Mask { starts, bits: gpu.upload(mask), words }), ..self }
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.n
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.n == 0
    }

    /// The largest tiles of at most so many tokens that some tokens fill. `None` without tokens.
    pub(super) fn tiles_of(&self, most: usize) -> Option<&Tiles> {
        self.tiles_by_size.iter().rev().find(|tiles| tiles.size <= most)
    }

    pub(super) fn check_cache(&self, shape: &AttentionShape, cache: &Buffer) {
        let found = cache.len() / shape.block_words();
        assert!(found >= self.blocks, "the cache has {found} blocks, and the pass uses {}", self.blocks);
        assert!(u32::try_from(cache.len()).is_ok(), "a cache of {} words has indices beyond 32 bits", cache.len());
    }
}

impl PassWords {
    /// As [`Pass::with_room`], where some rows are `prompts`: attention of their tokens is by tensor cores, which
    /// rounds differently. Elsewhere a pass without prompts serves: see [`has_prompts`](super::has_prompts).
    ///
    /// # Panics
    /// As [`Pass::with_room`], and if `prompts` has not one for each row.
    pub fn new(
        positions: &[u32],
        rows: &[u32],
        tables: &[&[u32]],
        prompts: &[bool],
        [max_len, blocks]: [usize; 2],
    ) -> Self {
        let longest = tables.iter().map(|table| table.len()).max().unwrap_or(0);
        let table_len = max_len.div_ceil(BLOCK_TOKENS).max(longest).max(1);
        let tokens = Tokens { positions: positions.to_vec(), rows: rows.to_vec(), prompts: prompts.to_vec() };
        tokens.check(tables, [max_len, blocks]);
        let (tiles_by_size, prompts) = tokens.tiles();
        let all = tiles_by_size.iter().chain([&prompts]).flat_map(|tiles| &tiles.tiles);
        let tiles = all.flat_map(|tile| [tile.first, tile.len, tile.place].map(|word| word as u32)).collect();
        let words = [positions.to_vec(), rows.to_vec(), padded(tables, table_len), tiles];
        Self { words, table_len, max_len, blocks, tiles_by_size, prompts, tokens }
    }
}

impl Tokens {
    fn check(&self, tables: &[&[u32]], [max_len, blocks]: [usize; 2]) {
        assert_eq!(self.positions.len(), self.rows.len(), "each token has a position and a row");
        assert_eq!(tables.len(), self.prompts.len(), "each row has a table, and is a prompt or not");
        for (&position, &row) in self.positions.iter().zip(&self.rows) {
            let room = tables.get(row as usize).map_or(0, |table| table.len() * BLOCK_TOKENS).min(max_len);
            assert!((position as usize) < room, "position {position} of row {row} is not below {room}");
        }
        let last = tables.iter().flat_map(|table| table.iter()).max();
        assert!(last.is_none_or(|last| (*last as usize) < blocks), "block {last:?} is not one of {blocks}");
    }

    /// Tiles of each size that some tokens fill, and those of prompts.
    fn tiles(&self) -> (Vec<Tiles>, Tiles) {
        let mut runs: [Vec<Tile>; 2] = Default::default();
        for (index, &row) in self.rows.iter().enumerate() {
            let runs = &mut runs[usize::from(self.prompts[row as usize])];
            match runs.last_mut() {
                Some(run) if self.follows(index) => run.len += 1,
                last => {
                    let place = last.map_or(0, |run| run.place + run.len);
                    runs.push(Tile { first: index, len: 1, place });
                }
            }
        }
        let [decoding, prompts] = runs;
        let longest = decoding.iter().map(|run| run.len).max().unwrap_or(0);
        let mut before = 0;
        let mut of_size = |runs: &[Tile], size: usize| {
            let of_run = |run: &Tile| {
                let Tile { first, len, place } = *run;
                let tile = move |at| Tile { first: first + at, len: size.min(len - at), place: place + at };
                (0..len).step_by(size).map(tile)
            };
            let tiles = Tiles { size, tiles: runs.iter().flat_map(of_run).collect(), before };
            before += tiles.tiles.len();
            tiles
        };
        let sizes = TILE_SIZES.into_iter().take_while(|size| *size <= longest);
        let by_size = sizes.map(|size| of_size(&decoding, size)).collect();
        (by_size, of_size(&prompts, QUERIES))
    }

    /// Whether a token has the position after that of the token before it.
    fn follows(&self, index: usize) -> bool {
        let Self { positions, rows, .. } = self;
        index > 0 && rows[index] == rows[index - 1] && positions[index] == positions[index - 1] + 1
    }

    /// For each token the position of its row's first token.
    fn starts(&self, most: usize) -> Vec<u32> {
        // The start and the next position of each row.
        let mut ranges = vec![None; self.prompts.len()];
        let start_of = |(&row, &position): (&u32, &u32)| {
            let (start, next) = ranges[row as usize].get_or_insert((position, position));
            assert_eq!(position, *next, "positions of row {row} are not consecutive");
            *next += 1;
            assert!((*next - *start) as usize <= most, "row {row} has more than {most} tokens");
            *start
        };
        self.rows.iter().zip(&self.positions).map(start_of).collect()
    }
}

/// Tables of one length, filled up with block 0, which nobody reads.
fn padded(tables: &[&[u32]], len: usize) -> Vec<u32> {
    let row = |table: &&[u32]| table.iter().copied().chain(std::iter::repeat(0)).take(len).collect::<Vec<_>>();
    tables.iter().flat_map(row).collect()
}
