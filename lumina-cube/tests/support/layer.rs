//! A layer of attention with random tokens, and what it must give, in plain loops.
#![allow(clippy::unwrap_used, reason = "a panic is the failure")]

use half::{bf16, f16};
use lumina_cube::attention::{AttentionShape, BLOCK_TOKENS, KvFormat, NormParams, Pass, attention, norm_rotate_write};
use lumina_cube::{Buffer, Gpu};

use lumina_testing::numbers;

const EPSILON: f32 = 1e-5;

pub(crate) fn shape(heads: usize, kv_heads: usize, head_dim: usize, format: KvFormat) -> AttentionShape {
    AttentionShape { heads, kv_heads, head_dim, format }
}

/// A token of a pass: (row, position).
pub(crate) type Token = (usize, usize);

/// A layer with its cache, and rows of random tokens.
pub(crate) struct Layer {
    pub(crate) gpu: Gpu,
    pub(crate) shape: AttentionShape,
    pub(crate) cache: Buffer,
    pub(crate) tables: Vec<Vec<u32>>,
    /// Weight and bias of queries and keys, `[parts, head_dim]`.
    pub(crate) norms: [Vec<f32>; 4],
    pub(crate) norm_buffers: [Buffer; 4],
}

impl Layer {
    /// Rows of up to `len` tokens, whose blocks lie in any order among others. All of the cache is NaN before it is
    /// written.
    pub(crate) fn new(gpu: &Gpu, shape: AttentionShape, rows: usize, len: usize) -> Self {
        let per_row = len.div_ceil(BLOCK_TOKENS);
        let blocks = rows * per_row;
        // A step that divides no number of blocks goes through all of them.
        let step = (1..)
            .map(|n| 2 * n + 1)
            .find(|step| (2..=*step).all(|d| step % d != 0 || !blocks.is_multiple_of(d)))
            .unwrap();
        let place = |index: usize| ((index * step + 1) % blocks) as u32;
        let tables = (0..rows).map(|row| (0..per_row).map(|block| place(row * per_row + block)).collect()).collect();
        let cache = gpu.upload(&vec![u32::MAX; blocks * shape.block_words()]);
        let AttentionShape { heads, kv_heads, head_dim, .. } = shape;
        // Each second head has parameters of its own, where the number is even.
        let part = |heads: usize| if heads.is_multiple_of(2) { heads / 2 } else { 1 };
        let norm = |heads: usize, seed: u32| numbers(part(heads) * head_dim, seed).iter().map(|x| x + 1.5).collect();
        let norms = [
            norm(heads, 1),
            numbers(part(heads) * head_dim, 2),
            norm(kv_heads, 3),
            numbers(part(kv_heads) * head_dim, 4),
        ];
        let norm_buffers = norms.each_ref().map(|values| gpu.upload_f32(values));
        Self { gpu: gpu.clone(), shape, cache, tables, norms, norm_buffers }
    }

    pub(crate) fn pass(&self, tokens: &[Token]) -> Pass {
        let (positions, rows) = split(tokens);
        Pass::new(&self.gpu, &positions, &rows, &self.tables())
    }

    pub(crate) fn tables(&self) -> Vec<&[u32]> {
        self.tables.iter().map(Vec::as_slice).collect()
    }

    /// Numbers of tokens, which depend on row and position alone.
    pub(crate) fn inputs(&self, tokens: &[Token]) -> Inputs {
        let AttentionShape { heads, kv_heads, head_dim, .. } = self.shape;
        let each = |width: usize, kind: usize| -> Vec<f32> {
            let seed = |&(row, position): &Token| (row * 7919 + position * 13 + kind * 1_000_003) as u32;
            tokens.iter().flat_map(|token| numbers(width, seed(token))).collect()
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
    pub(crate) fn upload(&self, inputs: &Inputs) -> [Buffer; 5] {
        [&inputs.q, &inputs.k, &inputs.v, &inputs.cos, &inputs.sin].map(|values| self.gpu.upload_f32(values))
    }

    /// Writes the tokens, and returns their rotated queries.
    pub(crate) fn write(&self, inputs: &Inputs, pass: &Pass) -> Buffer {
        self.launch(&self.upload(inputs), pass)
    }

    pub(crate) fn launch(&self, [q, k, v, cos, sin]: &[Buffer; 5], pass: &Pass) -> Buffer {
        let [q_weight, q_bias, k_weight, k_bias] = &self.norm_buffers;
        let params = NormParams { q_weight, q_bias, k_weight, k_bias, cos, sin, epsilon: EPSILON };
        norm_rotate_write(&self.gpu, [q, k, v], &params, &self.shape, &self.cache, pass)
    }

    /// Writes the tokens and attends to them: `[n, heads · head_dim]`.
    pub(crate) fn run(&self, tokens: &[Token]) -> Vec<f32> {
        let pass = self.pass(tokens);
        let q = self.write(&self.inputs(tokens), &pass);
        self.gpu.read_f32(&attention(&self.gpu, &q, &self.shape, &self.cache, &pass)).unwrap()
    }

    pub(crate) fn padded_dim(&self) -> usize {
        self.shape.head_dim.next_multiple_of(per_load(self.shape.format))
    }

    /// Rotated queries without padding.
    pub(crate) fn queries(&self, q: &Buffer) -> Vec<f32> {
        let heads = self.gpu.read_f32(q).unwrap();
        let of_head = |head: &[f32]| {
            assert!(head[self.shape.head_dim..].iter().all(|x| *x == 0.0));
            head[..self.shape.head_dim].to_vec()
        };
        heads.chunks(self.padded_dim()).flat_map(of_head).collect()
    }

    /// What the cache has of some tokens, by the documented layout: keys and values, `[n, kv_heads, head_dim]`.
    pub(crate) fn cached(&self, tokens: &[Token]) -> [Vec<f32>; 2] {
        self.decoded(&self.gpu.read(&self.cache).unwrap(), tokens)
    }

    /// [`Layer::cached`] of words that were read.
    pub(crate) fn decoded(&self, words: &[u32], tokens: &[Token]) -> [Vec<f32>; 2] {
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
    pub(crate) fn exact(&self, words: &[u32], query: &[f32], seen: &[Token]) -> Vec<f64> {
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

pub(crate) struct Inputs {
    pub(crate) q: Vec<f32>,
    pub(crate) k: Vec<f32>,
    pub(crate) v: Vec<f32>,
    pub(crate) cos: Vec<f32>,
    pub(crate) sin: Vec<f32>,
}

pub(crate) fn split(tokens: &[Token]) -> (Vec<u32>, Vec<u32>) {
    tokens.iter().map(|(row, position)| (*position as u32, *row as u32)).unzip()
}

pub(crate) fn per_load(format: KvFormat) -> usize {
    match format {
        KvFormat::F32 => 4,
        KvFormat::F16 | KvFormat::BF16 => 8,
        KvFormat::Q8_0 => 16,
    }
}

pub(crate) fn unpacked(words: &[u32], format: KvFormat, scale: f32) -> Vec<f32> {
    let of_word = |word: &u32| match format {
        KvFormat::F32 => vec![f32::from_bits(*word)],
        KvFormat::F16 => [*word as u16, (word >> 16) as u16].map(|half| f16::from_bits(half).to_f32()).to_vec(),
        KvFormat::BF16 => [*word as u16, (word >> 16) as u16].map(|half| bf16::from_bits(half).to_f32()).to_vec(),
        KvFormat::Q8_0 => word.to_le_bytes().map(|byte| f32::from(byte as i8) * scale).to_vec(),
    };
    words.iter().flat_map(of_word).collect()
}

/// Numbers of heads as a format rounds them.
pub(crate) fn rounded(values: &[f32], head_dim: usize, format: KvFormat) -> Vec<f32> {
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
pub(crate) fn norm_rotated(
    x: &[f32],
    (weight, bias): (&[f32], &[f32]),
    inputs: &Inputs,
    heads: usize,
    dim: usize,
) -> Vec<f64> {
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
pub(crate) fn row(row: usize, first: usize, len: usize) -> Vec<Token> {
    (first..first + len).map(|position| (row, position)).collect()
}
