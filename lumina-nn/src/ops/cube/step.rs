//! What a pass on a GPU reads: one upload, and launches that can be replayed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use lumina_cube::attention::{BLOCK_TOKENS, Pass, PassWords};
use lumina_cube::draw::{Draw, NAN_LOGIT, NOTHING_LEFT, draw};
use lumina_cube::{ALIGNMENT, Buffer, Recording};

use super::attention::{GpuKvPool, GpuRow};
use super::rows::GpuRows;
use crate::Result;
use crate::ops::hidden::Hidden;

/// Passes of at most so many tokens are recorded: decoding, and windows of several tokens, with guidance those of 64.
const MAX_RECORDED_TOKENS: usize = 144;

/// Recordings that are kept.
const MAX_RECORDINGS: usize = 16;

/// What a pass reads from the host, packed for one upload.
pub struct GpuInputs {
    /// All parts, each from a multiple of [`ALIGNMENT`] words on.
    words: Vec<u32>,
    /// Words of each part: tokens, cosines, sines, selected tokens, draws, hidden states, and those of the pass.
    parts: [usize; 10],
    pass: PassWords,
    shape: Shape,
    pool: Arc<GpuKvPool>,
}

/// What a pass of some layers of a network is made of.
#[derive(Clone, Copy, Default)]
pub struct GpuPassValues<'a> {
    /// The tokens of all rows, one row after the other.
    pub tokens: &'a [u32],
    /// Cosines and sines of their positions, `[n, head_dim / 2]`.
    pub rotation: [&'a [f32]; 2],
    /// Hidden states `[n, hidden]` that other layers have computed; empty where the pass begins with the tokens.
    pub hidden: &'a [f32],
    /// The tokens whose results are wanted.
    pub selected: &'a [usize],
    /// Draws from those.
    pub draws: &'a [Draw],
}

/// What decides the launches of a pass. Passes of one shape make the same ones.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Shape {
    /// Tokens of each row, and whether it is a prompt, which has a kernel of its own.
    rows: Vec<(usize, bool)>,
    /// Blocks of a row's table, a power of two.
    table_len: usize,
    selected: usize,
    draws: usize,
    /// Blocks of the buffers that keys and values are in: others are larger.
    generation: usize,
}

impl GpuInputs {
    /// The values of a pass of all `rows`. `None` without rows or tokens.
    pub fn new(rows: &[GpuRow<'_>], values: GpuPassValues<'_>) -> Option<Self> {
        let GpuPassValues { tokens, rotation: [cos, sin], hidden, selected, draws } = values;
        let pool = rows.first()?.kv.pool().clone();
        let blocks_of = |row: &GpuRow<'_>| (row.position + row.len).div_ceil(BLOCK_TOKENS);
        let table_len = rows.iter().map(blocks_of).max().filter(|_| !tokens.is_empty())?.next_power_of_two();
        let prompts: Vec<bool> = rows.iter().map(GpuRow::is_prompt).collect();
        let lens = rows.iter().map(|row| row.len);
        let generation = pool.generation();
        let own = lens.zip(prompts.iter().copied()).collect();
        let shape = Shape { rows: own, table_len, selected: selected.len(), draws: draws.len(), generation };

        let positions = rows.iter().flat_map(|row| row.position..row.position + row.len);
        let positions: Vec<u32> = positions.map(|position| position as u32).collect();
        let of_row = rows.iter().enumerate().flat_map(|(index, row)| std::iter::repeat_n(index as u32, row.len));
        let tables: Vec<&[u32]> = rows.iter().map(|row| &row.kv.blocks()[..blocks_of(row)]).collect();
        let room = [table_len * BLOCK_TOKENS, generation];
        let pass = PassWords::new(&positions, &of_row.collect::<Vec<_>>(), &tables, &prompts, room);

        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        let selected: Vec<u32> = selected.iter().map(|&token| token as u32).collect();
        let draws: Vec<u32> = draws.iter().flat_map(Draw::words).collect();
        let [positions, of_row, tables, tiles] = &pass.words;
        let (cos, sin, hidden) = (&bits(cos), &bits(sin), &bits(hidden));
        let all = [tokens, cos, sin, &selected, &draws, hidden, positions, of_row, tables, tiles];
        let mut words = Vec::new();
        for part in all {
            words.extend_from_slice(part);
            words.resize(words.len().next_multiple_of(ALIGNMENT), 0);
        }
        Some(Self { words, parts: all.map(<[u32]>::len), pass, shape, pool })
    }

    /// Number of tokens.
    fn n(&self) -> usize {
        self.parts[0]
    }
}

/// The inputs of a pass on the device.
pub struct GpuPass {
    pub(super) pool: Arc<GpuKvPool>,
    pub(super) pass: Pass,
    inputs: Buffer,
    tokens: Buffer,
    cos: Buffer,
    sin: Buffer,
    selected: Buffer,
    draws: Buffer,
    hidden: Buffer,
    n: usize,
}

impl GpuPass {
    /// Uploads them.
    pub fn new(inputs: &GpuInputs) -> Self {
        let pool = inputs.pool.clone();
        let buffer = pool.gpu().upload(&inputs.words);
        let mut start = 0;
        let parts = inputs.parts.map(|len| {
            let part = buffer.part(start..start + len);
            start += len.next_multiple_of(ALIGNMENT);
            part
        });
        let [tokens, cos, sin, selected, draws, hidden, positions, rows, tables, tiles] = parts;
        let pass = Pass::of(inputs.pass.clone(), [positions, rows, tables, tiles]);
        Self { pool, pass, inputs: buffer, tokens, cos, sin, selected, draws, hidden, n: inputs.n() }
    }

    fn rows(&self, values: &Buffer, width: usize) -> Hidden {
        GpuRows { gpu: self.pool.gpu().clone(), values: values.clone(), width }.into()
    }

    /// A row of `values` for each token.
    fn row_each(&self, values: &Buffer) -> Hidden {
        self.rows(values, values.len() / self.n.max(1))
    }

    /// The tokens' rows of a table, `[n, width]`.
    pub(in crate::ops) fn embed(&self, table: &lumina_cube::Matrix) -> Hidden {
        let values = lumina_cube::embedding::embedding(self.pool.gpu(), table, &self.tokens);
        self.rows(&values, table.columns())
    }

    /// The hidden states that the pass begins with, `[n, hidden]`; `None` where it begins with the tokens.
    pub fn hidden(&self) -> Option<Hidden> {
        (!self.hidden.is_empty()).then(|| self.row_each(&self.hidden))
    }

    /// Cosines and sines, `[n, head_dim / 2]`.
    pub fn rotation(&self) -> [Hidden; 2] {
        [&self.cos, &self.sin].map(|values| self.row_each(values))
    }

    /// Draws tokens from `logits` `[selected, ids]`, which begin with that of the id `first_id`: what the pass was made
    /// with. `None` without draws.
    ///
    /// # Panics
    /// If the logits are not on the GPU.
    pub fn draw(&self, logits: &Hidden, first_id: u32) -> Option<GpuTokens> {
        let n = self.draws.len() / Draw::WORDS;
        let tokens = (n > 0).then(|| self.pool.gpu().empty(n))?;
        draw(self.pool.gpu(), logits.buffer(), first_id, logits.dims()[1], None, &self.draws, &tokens);
        Some(GpuTokens { pool: self.pool.clone(), tokens })
    }

    /// The rows of `x` `[n, width]` whose results are wanted.
    ///
    /// # Panics
    /// If `x` is not on the GPU.
    #[must_use]
    pub fn select(&self, x: &Hidden) -> Hidden {
        let width = x.dims()[1];
        let values = lumina_cube::embedding::select(self.pool.gpu(), x.buffer(), width, &self.selected);
        self.rows(&values, width)
    }
}

/// Tokens that a pass draws on the device, `[draws]`.
pub struct GpuTokens {
    pool: Arc<GpuKvPool>,
    tokens: Buffer,
}

impl GpuTokens {
    /// The tokens; `None` where a logit was NaN, or nothing was left to draw from: the logits say which.
    ///
    /// # Errors
    /// `Error::Gpu`.
    pub fn read(&self) -> Result<Option<Vec<u32>>> {
        let tokens = self.pool.gpu().read(&self.tokens)?;
        Ok((!tokens.iter().any(|token| [NAN_LOGIT, NOTHING_LEFT].contains(token))).then_some(tokens))
    }
}

/// What a pass gives: hidden states or logits, and tokens where it draws some.
pub struct GpuResult {
    /// Hidden states of all tokens, or logits of the selected ones.
    pub rows: Hidden,
    /// A token for each draw.
    pub tokens: Option<GpuTokens>,
}

/// Passes that were recorded, by their shape and by `K`, what else decides the launches.
pub struct Recordings<K> {
    all: Mutex<VecDeque<Recorded<K>>>,
}

struct Recorded<K> {
    shape: Shape,
    key: K,
    state: State,
}

/// A pass is recorded the second time, as many are made once.
enum State {
    Seen,
    Made(Box<(Recording, GpuPass, GpuResult)>),
    /// The device cannot record it.
    Refused,
}

impl<K> Default for Recordings<K> {
    fn default() -> Self {
        Self { all: Mutex::default() }
    }
}

impl<K: PartialEq> Recordings<K> {
    /// Makes the launches of `run`, and gives their result to `read` before another pass can overwrite it. A short pass
    /// that is seen the second time is recorded, and from then on replayed: by its shape, and by `key`, which is all
    /// else that decides its launches. What cannot be recorded is launched one by one. The caller has the
    /// [turn](GpuKvPool::turn).
    ///
    /// # Errors
    /// `Error::Gpu`, and those of `read`.
    pub fn run<T>(
        &self,
        inputs: &GpuInputs,
        key: K,
        mut run: impl FnMut(&GpuPass) -> GpuResult,
        read: impl FnOnce(&GpuResult) -> Result<T>,
    ) -> Result<T> {
        let gpu = inputs.pool.gpu();
        if inputs.n() > MAX_RECORDED_TOKENS {
            return read(&run(&GpuPass::new(inputs)));
        }
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        // Buffers that keys and values have left are not kept alive by launches that nobody makes any more.
        all.retain(|recorded| recorded.shape.generation == inputs.shape.generation);
        let known = all.iter().position(|own| own.shape == inputs.shape && own.key == key);
        let Some(mut recorded) = known.and_then(|index| all.remove(index)) else {
            all.truncate(MAX_RECORDINGS - 1);
            all.push_front(Recorded { shape: inputs.shape.clone(), key, state: State::Seen });
            return read(&run(&GpuPass::new(inputs)));
        };
        match &recorded.state {
            State::Made(made) => gpu.write(&made.1.inputs, &inputs.words),
            State::Seen => {
                let pass = GpuPass::new(inputs);
                recorded.state = match gpu.record(|| run(&pass)) {
                    Ok((recording, result)) => State::Made(Box::new((recording, pass, result))),
                    Err(_) => State::Refused,
                };
            }
            State::Refused => {}
        }
        let result = match &recorded.state {
            State::Made(made) => made.0.replay().map_err(Into::into).and_then(|()| read(&made.2)),
            State::Seen | State::Refused => read(&run(&GpuPass::new(inputs))),
        };
        all.push_front(recorded);
        result
    }
}

impl<K> std::fmt::Debug for Recordings<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recordings").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for GpuPass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GpuPass").field("tokens", &self.tokens.len()).finish_non_exhaustive()
    }
}
