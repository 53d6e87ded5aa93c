//! Keys and values of one layer of one sequence, in blocks that are allocated as it grows.

use half::bf16;

use crate::parallel::*;
use crate::simd::prefetch::{LINE, prefetch};
use crate::{Error, Format, Result};

/// Tokens of a block. The processor does not prefetch beyond a page of memory, so longer blocks are read faster.
/// Shorter ones leave less unused at the end of a sequence.
pub const KV_BLOCK_TOKENS: usize = 128;

/// From this many values on, threads share the writing.
const MIN_PARALLEL_VALUES: usize = 1 << 16;

/// Keys and values of one layer of one sequence.
///
/// They are stored as `f32`, `bf16`, or 8-bit integers with a scale for each token and head ([`Format::Q8_0`]): smaller
/// types take less memory, and a token reads less. Blocks of [`KV_BLOCK_TOKENS`] tokens are allocated as the sequence
/// grows, and returned by [`KvStorage::truncate`].
pub struct KvStorage {
    shape: KvShape,
    tensors: KvTensors,
}

#[derive(Debug, Clone, Copy)]
struct KvShape {
    kv_heads: usize,
    head_dim: usize,
    /// Maximum number of tokens.
    capacity: usize,
}

impl KvShape {
    /// Values of a token. [`KvStorage::new`] makes sure that a block of them can be addressed.
    fn width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Tokens of the block at `index`: all blocks but the last are full.
    fn block_tokens(&self, index: usize) -> usize {
        KV_BLOCK_TOKENS.min(self.capacity.saturating_sub(index * KV_BLOCK_TOKENS))
    }
}

/// Keys and values in the type of the storage.
enum KvTensors {
    F32(KvPair<f32>),
    BF16(KvPair<bf16>),
    Q8(KvPair<i8>),
}

/// Evaluates an expression with the [`KvPair`] of any type.
macro_rules! with_pair {
    ($tensors:expr, $pair:ident => $result:expr) => {
        match $tensors {
            KvTensors::F32($pair) => $result,
            KvTensors::BF16($pair) => $result,
            KvTensors::Q8($pair) => $result,
        }
    };
}

struct KvPair<T> {
    keys: KvTensor<T>,
    values: KvTensor<T>,
}

impl<T> KvPair<T> {
    const fn new() -> Self {
        Self { keys: KvTensor { blocks: Vec::new() }, values: KvTensor { blocks: Vec::new() } }
    }

    /// The first `len` tokens of a head.
    fn head(&self, kv_head: usize, len: usize, head_dim: usize) -> KvViews<'_, T> {
        let view = |tensor| KvView { blocks: tensor, kv_head, len, head_dim };
        KvViews { keys: view(&self.keys.blocks), values: view(&self.values.blocks) }
    }
}

/// Keys, or values.
struct KvTensor<T> {
    blocks: Vec<KvBlock<T>>,
}

/// Keys or values of some tokens.
pub(super) struct KvBlock<T> {
    /// Capacity in tokens.
    tokens: usize,
    /// `[kv_heads, tokens, head_dim]`.
    values: Vec<T>,
    /// The scale of each token's values, `[kv_heads, tokens]`; empty where the type has no scale.
    scales: Vec<f32>,
}

impl<T: Element> KvBlock<T> {
    fn new(tokens: usize, shape: &KvShape) -> Result<Self> {
        let scales = if T::SCALED { zeros(tokens * shape.kv_heads)? } else { Vec::new() };
        Ok(Self { tokens, values: zeros(tokens * shape.width())?, scales })
    }

    /// Writes tokens `[n, kv_heads, head_dim]` from place `first` on.
    fn write(&mut self, first: usize, values: &[f32], shape: &KvShape) {
        let head_dim = shape.head_dim;
        for (place, token) in (first..).zip(values.chunks_exact(shape.width())) {
            for (head, values) in token.chunks_exact(head_dim).enumerate() {
                let at = head * self.tokens + place;
                let scale = T::quantise(values, &mut self.values[at * head_dim..][..head_dim]);
                if let Some(own) = self.scales.get_mut(at) {
                    *own = scale;
                }
            }
        }
    }
}

/// Places `from` and `to` of a slice of blocks, `from` being the later one.
fn two_blocks<T>(blocks: &mut [KvBlock<T>], from: usize, to: usize) -> (&KvBlock<T>, &mut KvBlock<T>) {
    let (before, after) = blocks.split_at_mut(from);
    (&after[0], &mut before[to])
}

/// Zeros, or an error where there is no memory for them.
fn zeros<T: Copy + Default>(len: usize) -> Result<Vec<T>> {
    let mut values = Vec::new();
    let failed = |_| Error::KvMemory { bytes: len as u64 * size_of::<T>() as u64 };
    values.try_reserve_exact(len).map_err(failed)?;
    values.resize(len, T::default());
    Ok(values)
}

impl<T: Element> KvTensor<T> {
    /// Allocates the blocks that are missing for `tokens` tokens.
    fn reserve(&mut self, tokens: usize, shape: &KvShape) -> Result<()> {
        while self.blocks.len() < tokens.div_ceil(KV_BLOCK_TOKENS) {
            self.blocks.push(KvBlock::new(shape.block_tokens(self.blocks.len()), shape)?);
        }
        Ok(())
    }

    /// Writes tokens `[n, kv_heads, head_dim]` from `position` on, into blocks that are there.
    fn append(&mut self, position: usize, values: &[f32], shape: &KvShape) {
        let width = shape.width();
        let n = values.len().checked_div(width).unwrap_or(0);
        if n == 0 {
            return;
        }
        let first_block = position / KV_BLOCK_TOKENS;
        let write = |(index, block): (usize, &mut KvBlock<T>)| {
            let start = (first_block + index) * KV_BLOCK_TOKENS;
            let (from, to) = (position.max(start), (position + n).min(start + KV_BLOCK_TOKENS));
            block.write(from - start, &values[(from - position) * width..(to - position) * width], shape);
        };
        let blocks = &mut self.blocks[first_block..(position + n).div_ceil(KV_BLOCK_TOKENS)];
        // A step of decoding is not worth another thread.
        if values.len() < MIN_PARALLEL_VALUES {
            blocks.iter_mut().enumerate().for_each(write);
        } else {
            blocks.par_iter_mut().enumerate().for_each(write);
        }
    }
}

impl<T: Element> KvTensor<T> {
    /// Copies a token to an earlier place.
    fn move_token(&mut self, from: usize, to: usize, shape: &KvShape) {
        let head_dim = shape.head_dim;
        let [from, to] = [from, to].map(|token| (token / KV_BLOCK_TOKENS, token % KV_BLOCK_TOKENS));
        for head in 0..shape.kv_heads {
            if from.0 == to.0 {
                let block = &mut self.blocks[from.0];
                let [from, to] = [from.1, to.1].map(|place| head * block.tokens + place);
                block.values.copy_within(from * head_dim..(from + 1) * head_dim, to * head_dim);
                if T::SCALED {
                    block.scales[to] = block.scales[from];
                }
            } else {
                let (source, target) = two_blocks(&mut self.blocks, from.0, to.0);
                let (from, to) = (head * source.tokens + from.1, head * target.tokens + to.1);
                target.values[to * head_dim..][..head_dim]
                    .copy_from_slice(&source.values[from * head_dim..][..head_dim]);
                if T::SCALED {
                    target.scales[to] = source.scales[from];
                }
            }
        }
    }
}

impl KvStorage {
    /// The formats that keys and values can have.
    pub const FORMATS: [Format; 3] = [Format::F32, Format::BF16, Format::Q8_0];

    /// Storage for up to `capacity` tokens, or for as many of them as can be addressed; `None` for a format that is not
    /// one of [`KvStorage::FORMATS`]. Nothing is allocated yet.
    pub fn new(format: Format, kv_heads: usize, capacity: usize, head_dim: usize) -> Option<Self> {
        let tensors = match format {
            Format::F32 => KvTensors::F32(KvPair::new()),
            Format::BF16 => KvTensors::BF16(KvPair::new()),
            Format::Q8_0 => KvTensors::Q8(KvPair::new()),
            _ => return None,
        };
        let mut storage = Self { shape: KvShape { kv_heads, head_dim, capacity }, tensors };
        storage.shape.capacity = match storage.token_bytes() {
            Some(bytes) => capacity.min(isize::MAX as usize / bytes.max(1)),
            None => 0,
        };
        Some(storage)
    }

    /// Maximum number of tokens: less than was asked for where so many cannot be addressed.
    pub fn capacity(&self) -> usize {
        self.shape.capacity
    }

    /// Heads of keys and values.
    pub(super) fn kv_heads(&self) -> usize {
        self.shape.kv_heads
    }

    /// Elements of a head.
    pub(super) fn head_dim(&self) -> usize {
        self.shape.head_dim
    }

    /// Bytes of the blocks allocated so far.
    pub fn bytes(&self) -> usize {
        self.block_bytes(with_pair!(&self.tensors, pair => pair.values.blocks.len()))
    }

    /// Bytes of `tokens` tokens, in whole blocks.
    pub fn bytes_of(&self, tokens: usize) -> usize {
        self.block_bytes(tokens.min(self.shape.capacity).div_ceil(KV_BLOCK_TOKENS))
    }

    /// Bytes of the first `blocks` blocks: all but the last one are full.
    fn block_bytes(&self, blocks: usize) -> usize {
        let tokens = blocks.saturating_mul(KV_BLOCK_TOKENS).min(self.shape.capacity);
        // `new` has chosen the capacity so that this cannot overflow.
        self.token_bytes().unwrap_or(0) * tokens
    }

    /// Bytes of keys and values of a token; `None` where they cannot be counted.
    fn token_bytes(&self) -> Option<usize> {
        let KvShape { kv_heads, head_dim, .. } = self.shape;
        let head_bytes = match self.tensors {
            KvTensors::F32(_) => head_dim.checked_mul(4),
            KvTensors::BF16(_) => head_dim.checked_mul(2),
            KvTensors::Q8(_) => head_dim.checked_add(size_of::<f32>()),
        };
        head_bytes?.checked_mul(kv_heads)?.checked_mul(2)
    }

    /// Allocates what `tokens` tokens need, of those that fit, in blocks of [`KV_BLOCK_TOKENS`].
    ///
    /// # Errors
    /// [`Error::KvMemory`] where there is no memory for them. What was there before, and maybe some more, is there.
    pub fn reserve(&mut self, tokens: usize) -> Result<()> {
        let (shape, tokens) = (self.shape, tokens.min(self.shape.capacity));
        with_pair!(&mut self.tensors, pair => {
            pair.keys.reserve(tokens, &shape)?;
            pair.values.reserve(tokens, &shape)
        })
    }

    /// Moves the tokens at `start + places[0]`, `start + places[1]` … to `start`, `start + 1` …: those of a branch of
    /// drafts that is kept. Places ascend. What is after them then is for [`KvStorage::truncate`].
    ///
    /// # Panics
    /// If a place is not written.
    pub fn keep(&mut self, start: usize, places: &[usize]) {
        let shape = self.shape;
        for (to, from) in places.iter().enumerate().filter(|(to, from)| to < from) {
            with_pair!(&mut self.tensors, pair => {
                pair.keys.move_token(start + from, start + to, &shape);
                pair.values.move_token(start + from, start + to, &shape);
            });
        }
    }

    /// Returns the blocks that the first `len` tokens do not need.
    pub fn truncate(&mut self, len: usize) {
        let blocks = len.div_ceil(KV_BLOCK_TOKENS);
        with_pair!(&mut self.tensors, pair => {
            pair.keys.blocks.truncate(blocks);
            pair.values.blocks.truncate(blocks);
        });
    }

    /// Writes keys and values `[len, kv_heads, head_dim]` from `position` on.
    ///
    /// # Panics
    /// If there is no memory for them. [`KvStorage::reserve`] says so before.
    pub(super) fn append(&mut self, position: usize, keys: &[f32], values: &[f32]) {
        let shape = self.shape;
        let n = keys.len().checked_div(shape.width()).unwrap_or(0);
        self.reserve(position + n).expect("the caller has reserved memory");
        with_pair!(&mut self.tensors, pair => {
            pair.keys.append(position, keys, &shape);
            pair.values.append(position, values, &shape);
        });
    }

    /// The first `len` tokens of a head of keys and values.
    pub(super) fn head(&self, kv_head: usize, len: usize) -> AnyKvViews<'_> {
        let head_dim = self.shape.head_dim;
        match &self.tensors {
            KvTensors::F32(pair) => AnyKvViews::F32(pair.head(kv_head, len, head_dim)),
            KvTensors::BF16(pair) => AnyKvViews::BF16(pair.head(kv_head, len, head_dim)),
            KvTensors::Q8(pair) => AnyKvViews::Q8(pair.head(kv_head, len, head_dim)),
        }
    }
}

/// Keys and values of one head.
#[derive(Clone, Copy)]
pub(super) struct KvViews<'a, T> {
    pub(super) keys: KvView<'a, T>,
    pub(super) values: KvView<'a, T>,
}

/// The first tokens of one head of keys or values, in blocks.
#[derive(Clone, Copy)]
pub(super) struct KvView<'a, T> {
    pub(super) blocks: &'a [KvBlock<T>],
    pub(super) kv_head: usize,
    /// Tokens.
    pub(super) len: usize,
    pub(super) head_dim: usize,
}

/// Tokens of one head that are consecutive in memory.
pub(super) struct Segment<'a, T> {
    /// `[n, head_dim]`.
    pub(super) values: &'a [T],
    /// `[n]`; empty where the type has no scale.
    pub(super) scales: &'a [f32],
    /// The address of the head's tokens in the next block, which are not consecutive with these.
    next: *const T,
}

impl<T> Segment<'_, T> {
    /// Prefetches `n` values of a token of the next block from element `start` on, while the token at the same place of
    /// this block is read: the processor does not predict where the next block is.
    #[inline(always)]
    pub(super) fn prefetch_next(&self, place: usize, head_dim: usize, start: usize, n: usize) {
        let address = self.next.wrapping_add(place * head_dim + start).cast();
        (0..n * size_of::<T>()).step_by(LINE).for_each(|byte| prefetch(address, byte));
    }
}

impl<'a, T: Element> KvView<'a, T> {
    /// The tokens in their order, block by block.
    #[inline(always)]
    pub(super) fn segments(self) -> impl Iterator<Item = Segment<'a, T>> {
        let Self { blocks, kv_head, len, head_dim } = self;
        let mut left = len;
        blocks.iter().enumerate().map_while(move |(index, block)| {
            let n = left.min(block.tokens);
            left -= n;
            let first = kv_head * block.tokens;
            let next = blocks.get(index + 1).unwrap_or(block);
            (n > 0).then(|| Segment {
                values: &block.values[first * head_dim..][..n * head_dim],
                scales: block.scales.get(first..first + n).unwrap_or_default(),
                next: next.values.as_ptr().wrapping_add(kv_head * next.tokens * head_dim),
            })
        })
    }

    /// Stores all values in `f32`, `[len, head_dim]`.
    pub(super) fn dequantise(&self, to: &mut Vec<f32>) {
        to.clear();
        for Segment { values, scales, .. } in self.segments() {
            let start = to.len();
            to.extend(values.iter().map(|value| value.to_f32()));
            for (token, scale) in to[start..].chunks_exact_mut(self.head_dim).zip(scales) {
                token.iter_mut().for_each(|value| *value *= scale);
            }
        }
    }
}

/// [`KvViews`] of any type.
#[derive(Clone, Copy)]
pub(super) enum AnyKvViews<'a> {
    F32(KvViews<'a, f32>),
    BF16(KvViews<'a, bf16>),
    Q8(KvViews<'a, i8>),
}

/// The type of stored keys and values.
pub(super) trait Element: Copy + Default + Send + Sync + 'static {
    /// Whether the values of a token's head share a scale.
    const SCALED: bool;

    /// The value before its scale.
    fn to_f32(self) -> f32;

    /// Stores a token's head, and returns its scale.
    fn quantise(values: &[f32], to: &mut [Self]) -> f32;
}

impl Element for f32 {
    const SCALED: bool = false;

    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }

    fn quantise(values: &[f32], to: &mut [Self]) -> f32 {
        to.copy_from_slice(values);
        1.0
    }
}

impl Element for bf16 {
    const SCALED: bool = false;

    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    fn quantise(values: &[f32], to: &mut [Self]) -> f32 {
        to.iter_mut().zip(values).for_each(|(to, value)| *to = Self::from_f32(*value));
        1.0
    }
}

impl Element for i8 {
    const SCALED: bool = true;

    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from(self)
    }

    /// The largest magnitude becomes 127.
    fn quantise(values: &[f32], to: &mut [Self]) -> f32 {
        let largest = values.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        let factor = if largest > 0.0 { 127.0 / largest } else { 0.0 };
        to.iter_mut().zip(values).for_each(|(to, value)| *to = (value * factor).round() as Self);
        largest / 127.0
    }
}

impl std::fmt::Debug for KvStorage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KvStorage").field("shape", &self.shape).field("bytes", &self.bytes()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numerical_gradients::numbers;

    #[test]
    fn takes_the_bytes_that_it_says() {
        let bytes = |format| KvStorage::new(format, 2, 10, 32).map(|cache| cache.bytes_of(10));
        assert_eq!(KvStorage::FORMATS.map(bytes), [Some(5120), Some(2560), Some(1440)]);
        assert_eq!(bytes(Format::Q4_0), None);
    }

    #[test]
    fn blocks_are_allocated_as_it_grows_and_returned() {
        for format in KvStorage::FORMATS {
            let mut cache = KvStorage::new(format, 2, 300, 8).unwrap();
            let token = cache.bytes_of(1) / KV_BLOCK_TOKENS;
            let mut position = 0;
            for (len, tokens) in [(1, 128), (127, 128), (1, 256), (128, 300), (43, 300)] {
                let (k, v) = (numbers(len * 16, 1), numbers(len * 16, 2));
                cache.append(position, &k, &v);
                position += len;
                assert_eq!(cache.bytes(), tokens * token, "{format} after {position}");
                assert_eq!(cache.bytes_of(position), cache.bytes());
            }
            cache.truncate(128);
            assert_eq!(cache.bytes(), 128 * token);
            cache.truncate(0);
            assert_eq!(cache.bytes(), 0);
        }
    }
}
