//! What a pass on a GPU reads: one upload, and launches that can be replayed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use lumina_cube::attention::{BLOCK_TOKENS, Pass, PassParts};
use lumina_cube::{Buffer, Recording};

use super::attention::{GpuKvPool, GpuRow};
use super::rows::GpuRows;
use crate::Result;
use crate::ops::hidden::Hidden;

/// Parts of the upload begin at a multiple of so many words.
const ALIGNMENT: usize = 64;

/// Passes of at most so many tokens are recorded: decoding, and windows of several tokens.
const MAX_RECORDED_TOKENS: usize = 64;

/// Recordings that are kept.
const MAX_RECORDINGS: usize = 16;

/// What a pass reads from the host, packed for one upload.
pub struct GpuInputs {
    words: Vec<u32>,
    shape: Shape,
    pool: Arc<GpuKvPool>,
}

/// What decides the launches of a pass. Passes of one shape make the same ones.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Shape {
    n: usize,
    /// Tokens of each row.
    lens: Vec<usize>,
    /// Blocks of a row's table, a power of two.
    table_len: usize,
    half: usize,
    selected: usize,
    /// Blocks of the buffers that keys and values are in: others are larger.
    generation: usize,
}

impl GpuInputs {
    /// The tokens of all `rows`, one row after the other, with cosines and sines of their positions `[n, head_dim / 2]`;
    /// results are wanted of the tokens `selected`. `None` without rows or tokens.
    pub fn new(rows: &[GpuRow<'_>], tokens: &[u32], (cos, sin): (&[f32], &[f32]), selected: &[usize]) -> Option<Self> {
        let pool = rows.first()?.kv.pool().clone();
        let half = cos.len().checked_div(tokens.len())?;
        let blocks = rows.iter().map(|row| (row.position + row.len).div_ceil(BLOCK_TOKENS));
        let table_len = blocks.max()?.next_power_of_two();
        let lens = rows.iter().map(|row| row.len).collect();
        let generation = pool.generation();
        let shape = Shape { n: tokens.len(), lens, table_len, half, selected: selected.len(), generation };
        let mut words = Vec::with_capacity(shape.len());
        let mut part = |values: &mut dyn Iterator<Item = u32>| {
            words.extend(values);
            words.resize(words.len().next_multiple_of(ALIGNMENT), 0);
        };
        part(&mut tokens.iter().copied());
        part(&mut rows.iter().flat_map(|row| (row.position..row.position + row.len).map(|position| position as u32)));
        part(&mut rows.iter().enumerate().flat_map(|(index, row)| std::iter::repeat_n(index as u32, row.len)));
        part(&mut rows.iter().flat_map(|row| {
            let blocks = row.kv.blocks().iter().copied();
            blocks.chain(std::iter::repeat(0)).take(table_len)
        }));
        part(&mut cos.iter().map(|value| value.to_bits()));
        part(&mut sin.iter().map(|value| value.to_bits()));
        part(&mut selected.iter().map(|&token| token as u32));
        Some(Self { words, shape, pool })
    }
}

impl Shape {
    /// Words of each part: tokens, positions, rows, tables, cosines, sines, selected tokens.
    fn parts(&self) -> [usize; 7] {
        let &Self { n, table_len, half, selected, .. } = self;
        [n, n, n, self.lens.len() * table_len, n * half, n * half, selected]
    }

    /// Words of all parts.
    fn len(&self) -> usize {
        self.parts().iter().map(|part| part.next_multiple_of(ALIGNMENT)).sum()
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
    half: usize,
}

impl GpuPass {
    /// Uploads them.
    pub fn new(inputs: &GpuInputs) -> Self {
        let GpuInputs { words, shape, pool } = inputs;
        let buffer = pool.gpu().upload(words);
        let mut start = 0;
        let [tokens, positions, rows, tables, cos, sin, selected] = shape.parts().map(|len| {
            let part = buffer.part(start..start + len);
            start += len.next_multiple_of(ALIGNMENT);
            part
        });
        let parts = PassParts { positions, rows, tables };
        let pass = Pass::of_parts(&shape.lens, parts, shape.table_len, shape.generation);
        Self { pool: pool.clone(), pass, inputs: buffer, tokens, cos, sin, selected, half: shape.half }
    }

    fn hidden(&self, values: &Buffer, width: usize) -> Hidden {
        GpuRows { gpu: self.pool.gpu().clone(), values: values.clone(), width }.into()
    }

    /// The tokens' rows of a table, `[n, width]`.
    pub(in crate::ops) fn embed(&self, table: &lumina_cube::Matrix) -> Hidden {
        let values = lumina_cube::embedding::embedding(self.pool.gpu(), table, &self.tokens);
        self.hidden(&values, table.columns())
    }

    /// Cosines and sines, `[n, head_dim / 2]`.
    pub fn rotation(&self) -> [Hidden; 2] {
        [&self.cos, &self.sin].map(|values| self.hidden(values, self.half))
    }

    /// The rows of `x` `[n, width]` whose results are wanted.
    ///
    /// # Panics
    /// If `x` is not on the GPU.
    #[must_use]
    pub fn select(&self, x: &Hidden) -> Hidden {
        let width = x.dims()[1];
        let values = lumina_cube::embedding::select(self.pool.gpu(), x.buffer(), width, &self.selected);
        self.hidden(&values, width)
    }
}

/// Passes that were recorded, by their shape and by `K`, what else decides the launches.
pub struct Recordings<K> {
    all: Mutex<VecDeque<Recorded<K>>>,
}

struct Recorded<K> {
    shape: Shape,
    key: K,
    /// `None` after the first pass of a shape, which may be the only one.
    made: Option<(Recording, GpuPass, Hidden)>,
}

impl<K> Default for Recordings<K> {
    fn default() -> Self {
        Self { all: Mutex::default() }
    }
}

impl<K: PartialEq> Recordings<K> {
    /// Makes the launches of `run`, and gives their result to `read` before another pass can overwrite it. A short pass
    /// that is seen the second time is recorded, and from then on replayed: by its shape, and by `key`, which is all
    /// else that decides its launches.
    ///
    /// # Errors
    /// [`Error::Gpu`](crate::Error::Gpu), and those of `read`.
    pub fn run<T>(
        &self,
        inputs: &GpuInputs,
        key: K,
        mut run: impl FnMut(&GpuPass) -> Hidden,
        read: impl FnOnce(&Hidden) -> Result<T>,
    ) -> Result<T> {
        let gpu = inputs.pool.gpu();
        let _turn = gpu.turn();
        if inputs.shape.n > MAX_RECORDED_TOKENS {
            return read(&run(&GpuPass::new(inputs)));
        }
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        // Buffers that keys and values have left are not kept alive by launches that nobody makes any more.
        all.retain(|recorded| recorded.shape.generation == inputs.shape.generation);
        let known = all.iter().position(|own| own.shape == inputs.shape && own.key == key);
        let Some(mut recorded) = known.and_then(|index| all.remove(index)) else {
            all.truncate(MAX_RECORDINGS - 1);
            all.push_front(Recorded { shape: inputs.shape.clone(), key, made: None });
            return read(&run(&GpuPass::new(inputs)));
        };
        let made = match recorded.made.take() {
            Some(made) => {
                gpu.write(&made.1.inputs, &inputs.words);
                made
            }
            None => {
                let pass = GpuPass::new(inputs);
                let (recording, result) = gpu.record(|| run(&pass))?;
                (recording, pass, result)
            }
        };
        made.0.replay()?;
        let result = read(&made.2);
        recorded.made = Some(made);
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
