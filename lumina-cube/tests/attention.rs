//! Attention and its cache, against `f64`.
#![cfg(any(feature = "wgpu", feature = "cuda"))]
#![allow(clippy::unwrap_used, reason = "a panic is the failure")]

mod support;

use half::{bf16, f16};
use lumina_cube::attention::{AttentionShape, BLOCK_TOKENS, KvFormat, NormParams, Pass, attention, norm_rotate_write};
use lumina_cube::{Buffer, Gpu};
use support::{gpu, values, worst};

const FORMATS: [KvFormat; 4] = [KvFormat::F32, KvFormat::F16, KvFormat::BF16, KvFormat::Q8_0];

const EPSILON: f32 = 1e-5;

fn shape(heads: usize, kv_heads: usize, head_dim: usize, format: KvFormat) -> AttentionShape {
    AttentionShape { heads, kv_heads, head_dim, format }
}

/// A token of a pass: (row, position).
type Token = (usize, usize);

/// A layer with its cache, and rows of random tokens.
struct Layer {
    gpu: Gpu,
    shape: AttentionShape,
    cache: Buffer,
    tables: Vec<Vec<u32>>,
    /// Weight and bias of queries and keys, `[parts, head_dim]`.
    norms: [Vec<f32>; 4],
    norm_buffers: [Buffer; 4],
}

impl Layer {
    /// Rows of up to `len` tokens, whose blocks lie in any order among others. All of the cache is NaN before it is
    /// written.
    fn new(gpu: &Gpu, shape: AttentionShape, rows: usize, len: usize) -> Self {
        let per_row = len.div_ceil(BLOCK_TOKENS);
        let blocks = rows * per_row;
        // A step that divides no number of blocks goes through all of them.
        let step = (1..).map(|n| 2 * n + 1).find(|step| (2..=*step).all(|d| step % d != 0 || blocks % d != 0)).unwrap();
        let place = |index: usize| ((index * step + 1) % blocks) as u32;
        let tables = (0..rows).map(|row| (0..per_row).map(|block| place(row * per_row + block)).collect()).collect();
        let cache = gpu.upload(&vec![u32::MAX; blocks * shape.block_words()]);
        let AttentionShape { heads, kv_heads, head_dim, .. } = shape;
        // Each second head has parameters of its own, where the number is even.
        let part = |heads: usize| if heads.is_multiple_of(2) { heads / 2 } else { 1 };
        let norm = |heads: usize, seed: u32| values(part(heads) * head_dim, seed).iter().map(|x| x + 1.5).collect();
        let norms = [
            norm(heads, 1),
            values(part(heads) * head_dim, 2),
            norm(kv_heads, 3),
            values(part(kv_heads) * head_dim, 4),
        ];
        let norm_buffers = norms.each_ref().map(|values| gpu.upload_f32(values));
        Self { gpu: gpu.clone(), shape, cache, tables, norms, norm_buffers }
    }

    fn pass(&self, tokens: &[Token]) -> Pass {
        let (positions, rows) = split(tokens);
        Pass::new(&self.gpu, &positions, &rows, &self.tables())
    }

    fn tables(&self) -> Vec<&[u32]> {
        self.tables.iter().map(Vec::as_slice).collect()
    }

    /// Numbers of tokens, which depend on row and position alone.
    fn inputs(&self, tokens: &[Token]) -> Inputs {
        let AttentionShape { heads, kv_heads, head_dim, .. } = self.shape;
        let each = |width: usize, kind: usize| -> Vec<f32> {
            let seed = |&(row, position): &Token| (row * 7919 + position * 13 + kind * 1_000_003) as u32;
            tokens.iter().flat_map(|token| values(width, seed(token))).collect()
        };
        let angles = each(head_dim / 2, 3);
        Inputs {
            q: each(heads * head_dim, 0),
            k: each(kv_heads * head_dim, 1),
            v: each(kv_heads * head_dim, 2),
            cos: angles.iter().map(|angle| (3.0 * angle).cos()).collect(),
            sin: angles.iter().map(|angle| (3.0 * angle).sin()).collect(),
        }
    }

    /// q, k, v, cosines and sines on the device.
    fn upload(&self, inputs: &Inputs) -> [Buffer; 5] {
        [&inputs.q, &inputs.k, &inputs.v, &inputs.cos, &inputs.sin].map(|values| self.gpu.upload_f32(values))
    }

    /// Writes the tokens, and returns their rotated queries.
    fn write(&self, inputs: &Inputs, pass: &Pass) -> Buffer {
        self.launch(&self.upload(inputs), pass)
    }

    fn launch(&self, [q, k, v, cos, sin]: &[Buffer; 5], pass: &Pass) -> Buffer {
        let [q_weight, q_bias, k_weight, k_bias] = &self.norm_buffers;
        let params = NormParams { q_weight, q_bias, k_weight, k_bias, cos, sin, epsilon: EPSILON };
        norm_rotate_write(&self.gpu, [q, k, v], &params, &self.shape, &self.cache, pass)
    }

    /// Writes the tokens and attends to them: `[n, heads · head_dim]`.
    fn run(&self, tokens: &[Token]) -> Vec<f32> {
        let pass = self.pass(tokens);
        let q = self.write(&self.inputs(tokens), &pass);
        self.gpu.read_f32(&attention(&self.gpu, &q, &self.shape, &self.cache, &pass)).unwrap()
    }

    fn padded_dim(&self) -> usize {
        self.shape.head_dim.next_multiple_of(per_load(self.shape.format))
    }

    /// Rotated queries without padding.
    fn queries(&self, q: &Buffer) -> Vec<f32> {
        let heads = self.gpu.read_f32(q).unwrap();
        let of_head = |head: &[f32]| {
            assert!(head[self.shape.head_dim..].iter().all(|x| *x == 0.0));
            head[..self.shape.head_dim].to_vec()
        };
        heads.chunks(self.padded_dim()).flat_map(of_head).collect()
    }

    /// What the cache has of some tokens, by the documented layout: keys and values, `[n, kv_heads, head_dim]`.
    fn cached(&self, tokens: &[Token]) -> [Vec<f32>; 2] {
        self.decoded(&self.gpu.read(&self.cache).unwrap(), tokens)
    }

    /// [`Layer::cached`] of words that were read.
    fn decoded(&self, words: &[u32], tokens: &[Token]) -> [Vec<f32>; 2] {
        let AttentionShape { kv_heads, head_dim, format, .. } = self.shape;
        let loads = self.padded_dim() / per_load(format);
        let tensor = kv_heads * BLOCK_TOKENS * loads * 4;
        let (mut keys, mut all_values) = (Vec::new(), Vec::new());
        for &(row, position) in tokens {
            let (block, place) = (self.tables[row][position / BLOCK_TOKENS] as usize, position % BLOCK_TOKENS);
            let block = &words[block * self.shape.block_words()..][..self.shape.block_words()];
            for head in 0..kv_heads {
                let scale = |of_values: usize| match format {
                    KvFormat::Q8_0 => {
                        let scales = 2 * tensor + (of_values * kv_heads + head) * BLOCK_TOKENS;
                        f32::from_bits(block[scales + place])
                    }
                    _ => 1.0,
                };
                let key = |load: usize| &block[((head * loads + load) * BLOCK_TOKENS + place) * 4..][..4];
                let value = |load: usize| &block[tensor + ((head * BLOCK_TOKENS + place) * loads + load) * 4..][..4];
                let key: Vec<u32> = (0..loads).flat_map(|load| key(load).to_vec()).collect();
                let value: Vec<u32> = (0..loads).flat_map(|load| value(load).to_vec()).collect();
                keys.extend(unpacked(&key, format, scale(0)).into_iter().take(head_dim));
                all_values.extend(unpacked(&value, format, scale(1)).into_iter().take(head_dim));
            }
        }
        [keys, all_values]
    }

    /// Attention in `f64` of a token's rotated query to tokens of its row in the words of the cache.
    fn exact(&self, words: &[u32], query: &[f32], seen: &[Token]) -> Vec<f64> {
        let AttentionShape { heads, kv_heads, head_dim, .. } = self.shape;
        let [keys, values] = self.decoded(words, seen);
        let row = |all: &[f32], token: usize, kv: usize| -> Vec<f64> {
            all[(token * kv_heads + kv) * head_dim..][..head_dim].iter().map(|x| f64::from(*x)).collect()
        };
        let of_head = |head: usize| {
            let kv = head / (heads / kv_heads);
            let query = &query[head * head_dim..][..head_dim];
            let score = |token| -> f64 {
                let key = row(&keys, token, kv);
                let dot: f64 = query.iter().zip(key).map(|(q, k)| f64::from(*q) * k).sum();
                dot / (head_dim as f64).sqrt()
            };
            let scores: Vec<f64> = (0..seen.len()).map(score).collect();
            let highest = scores.iter().fold(f64::MIN, |a, b| a.max(*b));
            let weights: Vec<f64> = scores.iter().map(|score| (score - highest).exp()).collect();
            let total: f64 = weights.iter().sum();
            let mut result = vec![0.0; head_dim];
            for (token, weight) in weights.iter().enumerate() {
                for (result, value) in result.iter_mut().zip(row(&values, token, kv)) {
                    *result += weight / total * value;
                }
            }
            result
        };
        (0..heads).flat_map(of_head).collect()
    }
}

struct Inputs {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

fn split(tokens: &[Token]) -> (Vec<u32>, Vec<u32>) {
    tokens.iter().map(|(row, position)| (*position as u32, *row as u32)).unzip()
}

fn per_load(format: KvFormat) -> usize {
    match format {
        KvFormat::F32 => 4,
        KvFormat::F16 | KvFormat::BF16 => 8,
        KvFormat::Q8_0 => 16,
    }
}

fn unpacked(words: &[u32], format: KvFormat, scale: f32) -> Vec<f32> {
    let of_word = |word: &u32| match format {
        KvFormat::F32 => vec![f32::from_bits(*word)],
        KvFormat::F16 => [*word as u16, (word >> 16) as u16].map(|half| f16::from_bits(half).to_f32()).to_vec(),
        KvFormat::BF16 => [*word as u16, (word >> 16) as u16].map(|half| bf16::from_bits(half).to_f32()).to_vec(),
        KvFormat::Q8_0 => word.to_le_bytes().map(|byte| f32::from(byte as i8) * scale).to_vec(),
    };
    words.iter().flat_map(of_word).collect()
}

/// Numbers of heads as a format rounds them.
fn rounded(values: &[f32], head_dim: usize, format: KvFormat) -> Vec<f32> {
    let of_head = |head: &[f32]| -> Vec<f32> {
        match format {
            KvFormat::F32 => head.to_vec(),
            KvFormat::F16 => head.iter().map(|x| f16::from_f32(x.clamp(-65504.0, 65504.0)).to_f32()).collect(),
            KvFormat::BF16 => head.iter().map(|x| bf16::from_f32(*x).to_f32()).collect(),
            KvFormat::Q8_0 => {
                let largest = head.iter().fold(0.0f32, |most, x| most.max(x.abs()));
                let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
                head.iter().map(|x| (x * inverse).round_ties_even() * (largest / 127.0)).collect()
            }
        }
    };
    values.chunks(head_dim).flat_map(of_head).collect()
}

/// Norm and rotation in `f64`: `x` `[n, heads, head_dim]`.
fn norm_rotated(x: &[f32], (weight, bias): (&[f32], &[f32]), inputs: &Inputs, heads: usize, dim: usize) -> Vec<f64> {
    let (half, group) = (dim / 2, heads / (weight.len() / dim));
    let of_head = |(index, x): (usize, &[f32])| {
        let (token, part) = (index / heads, index % heads / group * dim);
        let x: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
        let mean = x.iter().sum::<f64>() / dim as f64;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / dim as f64;
        let factor = 1.0 / (variance + f64::from(EPSILON)).sqrt();
        let z = |i: usize| (x[i] - mean) * factor * f64::from(weight[part + i]) + f64::from(bias[part + i]);
        let rotated = |i: usize| {
            let angle = token * half + i % half;
            let (cos, sin) = (f64::from(inputs.cos[angle]), f64::from(inputs.sin[angle]));
            if i < half { z(i) * cos - z(i + half) * sin } else { z(i) * cos + z(i - half) * sin }
        };
        (0..dim).map(rotated).collect::<Vec<_>>()
    };
    x.chunks(dim).enumerate().flat_map(of_head).collect()
}

/// All positions of a row from `first` on.
fn row(row: usize, first: usize, len: usize) -> Vec<Token> {
    (first..first + len).map(|position| (row, position)).collect()
}

/// Queries and keys in `f32` are those of `f64`, and in other formats the cache has exactly what rounding on the host
/// gives.
#[test]
fn the_cache_has_what_is_written() {
    let Some(gpu) = gpu() else { return };
    for [heads, kv_heads, dim] in [[2, 2, 128], [4, 1, 2], [3, 3, 6], [8, 2, 24], [2, 1, 256], [2, 2, 90]] {
        let tokens = [row(0, 60, 9), row(1, 0, 1), row(2, 130, 3)].concat();
        let mut exact = None;
        for format in FORMATS {
            let layer = Layer::new(&gpu, shape(heads, kv_heads, dim, format), 3, 150);
            let inputs = layer.inputs(&tokens);
            let q = layer.queries(&layer.write(&inputs, &layer.pass(&tokens)));
            let cached = layer.cached(&tokens);
            let [q_weight, q_bias, k_weight, k_bias] = layer.norms.each_ref().map(Vec::as_slice);
            let (q32, keys, values) = exact.get_or_insert_with(|| {
                let expected = norm_rotated(&inputs.q, (q_weight, q_bias), &inputs, heads, dim);
                assert!(worst(&q, &expected) < 1e-6, "queries [{heads}, {dim}]: {:e}", worst(&q, &expected));
                let expected = norm_rotated(&inputs.k, (k_weight, k_bias), &inputs, kv_heads, dim);
                let found = worst(&cached[0], &expected);
                assert!(found < 1e-6, "keys [{kv_heads}, {dim}]: {found:e}");
                (q.clone(), cached[0].clone(), inputs.v.clone())
            });
            assert_eq!(&q, q32, "queries do not depend on the format");
            assert_eq!(cached[0], rounded(keys, dim, format), "keys of {dim} in {format:?}");
            assert_eq!(cached[1], rounded(values, dim, format), "values of {dim} in {format:?}");
        }
    }
}

/// Each format and shape, at positions on both sides of the borders of blocks and splits.
#[test]
fn attention_is_that_of_f64() {
    let Some(gpu) = gpu() else { return };
    let shapes = [[2, 2, 128], [4, 1, 128], [8, 1, 16], [2, 1, 2], [3, 3, 24], [10, 1, 10], [1, 1, 256]];
    for (index, [heads, kv_heads, dim]) in shapes.into_iter().enumerate() {
        // The size of the published models in all formats, others in two.
        for format in
            FORMATS.into_iter().skip(if index < 2 { 0 } else { index % 2 }).step_by(if index < 2 { 1 } else { 2 })
        {
            let layer = Layer::new(&gpu, shape(heads, kv_heads, dim, format), 2, 600);
            let all = [row(0, 0, 600), row(1, 0, 70)].concat();
            layer.write(&layer.inputs(&all), &layer.pass(&all));
            let words = gpu.read(&layer.cache).unwrap();
            for position in [0, 1, 63, 64, 255, 256, 257, 511, 512, 599] {
                let token = (0, position);
                let pass = layer.pass(&[token]);
                let q = layer.write(&layer.inputs(&[token]), &pass);
                let found = gpu.read_f32(&attention(&gpu, &q, &layer.shape, &layer.cache, &pass)).unwrap();
                let expected = layer.exact(&words, &layer.queries(&q), &row(0, 0, position + 1));
                let worst = worst(&found, &expected);
                assert!(worst < 2e-6, "[{heads}, {kv_heads}, {dim}] in {format:?} at {position}: {worst:e}");
            }
        }
    }
}

/// What exact decoding of several tokens rests on: one by one, several at once, and beside other rows.
#[test]
fn a_token_has_the_same_result_in_any_company() {
    let Some(gpu) = gpu() else { return };
    let [wide, grouped, odd] = [[2, 2, 128], [8, 2, 16], [8, 1, 20]];
    let shapes = [[wide, odd], [wide, grouped], [odd, grouped], [wide, grouped]];
    for (format, shapes) in FORMATS.into_iter().zip(shapes) {
        for [heads, kv_heads, dim] in shapes {
            let shape = shape(heads, kv_heads, dim, format);
            let width = heads * dim;
            let expect = |found: &[f32], expected: &[f32], tokens: &[Token], what: &str| {
                assert_eq!(found.len(), expected.len());
                for ((found, expected), token) in found.chunks(width).zip(expected.chunks(width)).zip(tokens) {
                    assert_eq!(found, expected, "[{heads}, {kv_heads}, {dim}] in {format:?}, {what}, {token:?}");
                }
            };
            // All at once, eight queries of a head of keys in a cube.
            let len = 300;
            let at_once = Layer::new(&gpu, shape, 3, len);
            let [together, other] = [row(0, 0, len), row(1, 0, 40)].map(|tokens| at_once.run(&tokens));
            let of =
                |from: &[f32], range: std::ops::Range<usize>| from[range.start * width..range.end * width].to_vec();

            // In pieces, between tokens of two other rows, in another cache where nothing is written after them.
            let pieces = Layer::new(&gpu, shape, 3, 2 * len);
            let mut start = 0;
            for (index, n) in [2, 5, 9, 1, 50, 13, 3, 200, 17].into_iter().enumerate() {
                let (before, own) = (row(1, index * 4, 4), row(0, start, n));
                let tokens = [&before[..], &own, &[(2, index)]].concat();
                let found = pieces.run(&tokens);
                expect(&of(&found, 0..4), &of(&other, index * 4..index * 4 + 4), &before, "before others");
                expect(&of(&found, 4..4 + n), &of(&together, start..start + n), &own, "after others");
                start += n;
            }
            assert_eq!(pieces.cached(&row(0, 0, len)), at_once.cached(&row(0, 0, len)));

            // One by one, where a cube has one query: at first alone in the cache, then with later ones in it.
            let alone = Layer::new(&gpu, shape, 3, len);
            for position in (0..12).chain([62, 63, 64, 65, 127, 128, 191, 192, 254, 255, 256, 257, 299]) {
                let layer = if position < 12 { &alone } else { &pieces };
                let found = layer.run(&[(0, position)]);
                expect(&found, &of(&together, position..position + 1), &[(0, position)], "alone");
            }
        }
    }
}

/// More tokens than have their results of splits at a time.
#[test]
fn many_tokens_are_dealt_with_in_parts() {
    let Some(gpu) = gpu() else { return };
    let shape = shape(64, 8, 8, KvFormat::F32);
    let layer = Layer::new(&gpu, shape, 1, 1300);
    let all = layer.run(&row(0, 0, 1300));
    for position in [0, 7, 500, 700, 1092, 1093, 1299] {
        let found = layer.run(&[(0, position)]);
        assert_eq!(found, all[position * 512..][..512], "{position}");
    }
}

/// Drafts that branch: each token sees what was there before, and its own branch.
#[test]
fn masks_show_branches() {
    let Some(gpu) = gpu() else { return };
    for (format, [heads, kv_heads, dim]) in FORMATS.into_iter().zip([[2, 2, 128], [8, 1, 16], [4, 2, 20], [2, 2, 8]]) {
        for before in [0, 60, 250] {
            let layer = Layer::new(&gpu, shape(heads, kv_heads, dim, format), 2, before + 50);
            let width = heads * dim;
            if before > 0 {
                layer.run(&row(0, 0, before));
            }
            layer.run(&row(1, 0, 3));
            // The parent of each token of row 0; a token sees itself and those above. 40 tokens take two words.
            let parents: Vec<Option<usize>> = (0..40usize).map(|i| i.checked_sub(1).map(|i| i / 2)).collect();
            let branch = |i: usize| std::iter::successors(Some(i), |i| parents[*i]).collect::<Vec<_>>();
            let tokens = [row(1, 3, 2), row(0, before, 40)].concat();
            let mut mask = vec![0b01, 0, 0b11, 0];
            for token in 0..40 {
                let mut words = [0u32; 2];
                branch(token).into_iter().for_each(|seen| words[seen / 32] |= 1 << (seen % 32));
                mask.extend(words);
            }
            let pass = layer.pass(&tokens).with_mask(&gpu, &mask, 2);
            let q = layer.write(&layer.inputs(&tokens), &pass);
            let found = gpu.read_f32(&attention(&gpu, &q, &layer.shape, &layer.cache, &pass)).unwrap();
            let (queries, words) = (layer.queries(&q), gpu.read(&layer.cache).unwrap());
            for token in 0..40 {
                let mut seen = row(0, 0, before);
                seen.extend(branch(token).into_iter().rev().map(|index| (0, before + index)));
                let place = (token + 2) * width;
                let expected = layer.exact(&words, &queries[place..][..width], &seen);
                let worst = worst(&found[place..][..width], &expected);
                assert!(worst < 2e-6, "{format:?} after {before}, token {token}: {worst:e}");
            }
            // The other row has a mask that hides nothing, and the results of none.
            assert_eq!(found[..2 * width], layer.run(&row(1, 3, 2)), "{format:?}");
        }
    }
}

/// What was recorded works on the positions and blocks of later passes.
#[test]
fn a_recording_serves_all_positions() {
    let Some(gpu) = gpu() else { return };
    let layer = Layer::new(&gpu, shape(4, 2, 16, KvFormat::F16), 2, 600);
    let fresh = Layer::new(&gpu, layer.shape, 2, 600);
    layer.run(&[row(0, 0, 300), row(1, 0, 600)].concat());
    fresh.run(&[row(0, 0, 300), row(1, 0, 600)].concat());
    let tokens = |first: usize| [row(0, first, 3), row(1, 2 * first, 3)].concat();
    let (positions, rows) = split(&tokens(0));
    let mut pass = Pass::with_room(&gpu, &positions, &rows, &layer.tables(), [600, 20]);
    let inputs = layer.inputs(&tokens(0));
    let uploads = layer.upload(&inputs);
    let turn = gpu.turn();
    let run = || {
        let q = layer.launch(&uploads, &pass);
        attention(&gpu, &q, &layer.shape, &layer.cache, &pass)
    };
    let (recording, result) = gpu.record(run).unwrap();
    for first in [0, 62, 255, 297] {
        let tokens = tokens(first);
        let inputs = layer.inputs(&tokens);
        for (buffer, values) in uploads.iter().zip([&inputs.q, &inputs.k, &inputs.v, &inputs.cos, &inputs.sin]) {
            gpu.write(buffer, &values.iter().map(|value| value.to_bits()).collect::<Vec<_>>());
        }
        pass.update(&gpu, &split(&tokens).0, &layer.tables());
        recording.replay().unwrap();
        assert_eq!(gpu.read_f32(&result).unwrap(), fresh.run(&tokens), "from {first}");
    }
    drop(turn);
}

/// Numbers beyond those of `f16` become its largest, and NaN spoils its number of a head and its row, and no others.
#[test]
fn what_is_not_finite_stays_visible() {
    let Some(gpu) = gpu() else { return };
    for format in FORMATS {
        let layer = Layer::new(&gpu, shape(2, 2, 16, format), 2, 64);
        let tokens = row(0, 0, 3);
        let mut inputs = layer.inputs(&tokens);
        inputs.v[3] = 1e6;
        inputs.v[20] = f32::NAN;
        inputs.v[32 + 16 + 5] = f32::NEG_INFINITY;
        let pass = layer.pass(&tokens);
        let q = layer.write(&inputs, &pass);
        let found = gpu.read_f32(&attention(&gpu, &q, &layer.shape, &layer.cache, &pass)).unwrap();
        let [_, values] = layer.cached(&tokens);
        match format {
            KvFormat::F16 => assert_eq!((values[3], values[32 + 16 + 5]), (65504.0, -65504.0)),
            KvFormat::Q8_0 => assert!(values[32 + 16..][..16].iter().all(|value| value.is_nan())),
            _ => assert_eq!(values[32 + 16 + 5], f32::NEG_INFINITY),
        }
        for token in 0..3 {
            // Head 0 has no NaN, head 1 has one at number 4.
            assert!(found[token * 32..][..16].iter().all(|x| x.is_finite()), "{format:?}");
            assert!(found[token * 32 + 16 + 4].is_nan(), "{format:?}: {found:?}");
        }
        assert!(layer.run(&row(1, 0, 2)).iter().all(|x| x.is_finite()), "{format:?}");
    }
}

/// The CPU's attention, which the tests of models compare with.
#[test]
fn attention_is_that_of_the_cpu() {
    use lumina_kernels::attention::cached::{AttentionPath, CachedRow, forward_into};
    use lumina_kernels::attention::causal::AttentionInputs;
    use lumina_kernels::attention::kv_storage::KvStorage;
    let Some(gpu) = gpu() else { return };
    for (format, host) in [(KvFormat::F32, lumina_kernels::Format::F32), (KvFormat::BF16, lumina_kernels::Format::BF16)]
    {
        let layer = Layer::new(&gpu, shape(4, 2, 32, format), 1, 100);
        let tokens = row(0, 0, 100);
        let pass = layer.pass(&tokens);
        let q = layer.write(&layer.inputs(&tokens), &pass);
        let found = gpu.read_f32(&attention(&gpu, &q, &layer.shape, &layer.cache, &pass)).unwrap();
        let [k, v] = layer.cached(&tokens);
        let q = layer.queries(&q);
        let mut cache = KvStorage::new(host, 2, 100, 32).unwrap();
        let mut rows = [CachedRow { cache: &mut cache, position: 0, len: 100, path: AttentionPath::AsDecoding }];
        let mut expected = vec![0.0; q.len()];
        forward_into(AttentionInputs { q: &q, k: &k, v: &v }, &mut rows, &mut expected);
        let expected: Vec<f64> = expected.iter().map(|x| f64::from(*x)).collect();
        let worst = worst(&found, &expected);
        assert!(worst < 4e-6, "{format:?}: {worst:e}");
    }
}
