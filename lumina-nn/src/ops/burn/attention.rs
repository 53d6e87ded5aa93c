//! Attention on tensors.

use std::sync::Arc;

use burn::tensor::{Bool, DType, Int, Tensor, TensorData, activation};
use lumina_kernels::attention::causal::{self as cpu, AttentionInputs, AttentionShape};

use super::first_device;
use super::kernel::{Array, Gradient, Kernel, Operand, View, operands, run};
use crate::Compute;
use crate::ops::attention::KvRow;
use crate::ops::hidden::Hidden;
use crate::ops::kv::LayerKv;

/// Attention of rows to their KV caches and to themselves.
pub(in crate::ops) fn cached_attention(
    qkv: [Hidden; 3],
    head_dim: usize,
    rows: &mut [KvRow<'_>],
    compute: &Compute,
) -> Hidden {
    let device = compute.device();
    let [q, k, v] = qkv.map(|x| split_heads(x.into_tensor(&device), head_dim));
    let mut start = 0;
    let rows = rows.iter_mut().map(|row| {
        let own = |x: &Tensor<3>| x.clone().narrow(0, start, row.len).swap_dims(0, 1);
        let (q, k, v) = (own(&q), own(&k), own(&v));
        start += row.len;
        let (k, v) = match row.kv {
            LayerKv::Tensors(kv) => kv.append(row.position, k, v),
            LayerKv::Host(_) => unreachable!("{}", crate::ops::ONE_PLACE),
        };
        attention(q.unsqueeze(), k.unsqueeze(), v.unsqueeze(), row.position)
    });
    let mut rows: Vec<Tensor<2>> = rows.collect();
    if rows.len() == 1 { rows.swap_remove(0) } else { Tensor::cat(rows, 0) }.into()
}

/// `[n, heads · head_dim]` → `[n, heads, head_dim]`.
fn split_heads(x: Tensor<2>, head_dim: usize) -> Tensor<3> {
    let [n, width] = x.dims();
    x.reshape([n, width / head_dim, head_dim])
}

/// Causal attention of whole rows: `q` `[n, heads · head_dim]`, `k` and `v` `[n, kv_heads · head_dim]` → `[n, heads ·
/// head_dim]`.
pub(in crate::ops) fn causal_attention(qkv: [Hidden; 3], head_dim: usize, lens: &[usize]) -> Hidden {
    let device = first_device(qkv.each_ref().map(Hidden::device));
    of_heads(qkv.map(|x| split_heads(x.into_tensor(&device), head_dim)), lens).into()
}

/// `q` `[n, heads, head_dim]`, `k` and `v` `[n, kv_heads, head_dim]`.
fn of_heads([q, k, v]: [Tensor<3>; 3], lens: &[usize]) -> Tensor<2> {
    let ([n, heads, head_dim], [_, kv_heads, _]) = (q.dims(), k.dims());
    let fits = k.dims() == [n, kv_heads, head_dim]
        && v.dims() == k.dims()
        && lens.iter().sum::<usize>() == n
        && kv_heads > 0
        && heads.is_multiple_of(kv_heads)
        && head_dim > 0;
    match operands([Operand::of(&q), Operand::of(&k), Operand::of(&v)]).filter(|_| fits) {
        Some(operands) => {
            run(Causal { lens: lens.into(), shape: AttentionShape { heads, kv_heads, head_dim } }, operands)
        }
        None => composed([q, k, v], lens),
    }
}

fn composed([q, k, v]: [Tensor<3>; 3], lens: &[usize]) -> Tensor<2> {
    let heads = q.dims()[1];
    if let Some(batch) = PaddedBatch::new(lens, heads) {
        let [q, k, v] = [q, k, v].map(|x| batch.pad(x));
        return batch.unpad(attention(q, k, v, 0));
    }
    let mut start = 0;
    let rows = lens.iter().map(|&len| {
        start += len;
        let [q, k, v] = [&q, &k, &v].map(|x| x.clone().narrow(0, start - len, len).swap_dims(0, 1).unsqueeze());
        attention(q, k, v, 0)
    });
    let mut rows: Vec<Tensor<2>> = rows.collect();
    if rows.len() == 1 { rows.swap_remove(0) } else { Tensor::cat(rows, 0) }
}

#[derive(Debug, Clone)]
struct Causal {
    lens: Arc<[usize]>,
    shape: AttentionShape,
}

impl Kernel<3> for Causal {
    /// The log-sum-exp of the scores of each query.
    type Saved = Arc<Vec<Vec<f32>>>;

    fn forward(&self, [q, k, v]: [View<'_>; 3]) -> (Array, Self::Saved) {
        let width = self.shape.heads * self.shape.head_dim;
        let inputs = AttentionInputs { q: q.values, k: k.values, v: v.values };
        let cpu::AttentionOutput { y: values, log_sum_exp } = cpu::forward(inputs, &self.lens, &self.shape);
        let shape = vec![values.len() / width, width];
        (Array { values, shape }, Arc::new(log_sum_exp))
    }

    fn backward(
        &self,
        [q, k, v]: [View<'_>; 3],
        log_sum_exp: Self::Saved,
        dy: &[f32],
        _: [bool; 3],
    ) -> [Option<Gradient>; 3] {
        let inputs = AttentionInputs { q: q.values, k: k.values, v: v.values };
        let cpu::AttentionGradients { dq, dk, dv } = cpu::backward(inputs, &log_sum_exp, &self.lens, &self.shape, dy);
        [dq, dk, dv].map(|gradient| Some(gradient.into()))
    }
}

/// Attention of `q` `[rows, heads, len, head_dim]`, from `position` on, to `k` and `v` `[rows, kv_heads, seen,
/// head_dim]`, from 0 on; the result is `[rows · len, heads · head_dim]`.
fn attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, position: usize) -> Tensor<2> {
    let ([rows, heads, len, head_dim], [_, kv_heads, seen, _]) = (q.dims(), k.dims());
    let (dtype, device) = (q.dtype(), q.device());
    let group = heads / kv_heads;
    // The heads that share keys and values become rows of one product.
    let q = q.reshape([rows, kv_heads, group * len, head_dim]);
    let scores = q.matmul(k.swap_dims(2, 3)) * (head_dim as f64).powf(-0.5);
    let mut scores = scores.cast(DType::F32).reshape([rows * kv_heads, group, len, seen]);
    if len > 1 {
        let hidden: Vec<bool> = (0..len).flat_map(|query| (0..seen).map(move |key| key > position + query)).collect();
        let mask = Tensor::<4, Bool>::from_data(TensorData::new(hidden, [1, 1, len, seen]), &device);
        scores = scores.mask_fill(mask.expand([rows * kv_heads, group, len, seen]), f32::NEG_INFINITY);
    }
    let weights = activation::softmax(scores, 3).cast(dtype).reshape([rows, kv_heads, group * len, seen]);
    let attended = weights.matmul(v).reshape([rows, heads, len, head_dim]);
    attended.swap_dims(1, 2).reshape([rows * len, heads * head_dim])
}

/// Short rows padded to one length, as those of a training batch. One product for all costs a fraction of one for each,
/// above all in the backward pass, where a slice of a tensor has a gradient as large as the whole.
struct PaddedBatch<'a> {
    lens: &'a [usize],
    longest: usize,
}

/// Scores of one product, at most: 256 MB.
const MAX_SCORES: usize = 1 << 26;

impl<'a> PaddedBatch<'a> {
    /// The rows of these lengths; `None` where they are computed one by one.
    fn new(lens: &'a [usize], heads: usize) -> Option<Self> {
        let longest = lens.iter().copied().max()?;
        let fits = lens.len() * heads * longest * longest <= MAX_SCORES;
        (lens.len() > 1 && fits).then_some(Self { lens, longest })
    }

    fn is_even(&self) -> bool {
        self.lens.iter().all(|&len| len == self.longest)
    }

    /// `[n, heads, head_dim]` → `[rows, heads, longest, head_dim]`. The padding of shorter rows is not attended
    /// to, as it comes after everything else.
    fn pad(&self, x: Tensor<3>) -> Tensor<4> {
        let [_, heads, head_dim] = x.dims();
        let x = if self.is_even() {
            x
        } else {
            let mut start = 0;
            let places: Vec<i32> = self
                .lens
                .iter()
                .flat_map(|&len| {
                    start += len;
                    (0..self.longest).map(move |place| (start - len + place.min(len - 1)) as i32)
                })
                .collect();
            let places = Tensor::<1, Int>::from_data(places.as_slice(), &x.device());
            x.select(0, places)
        };
        x.reshape([self.lens.len(), self.longest, heads, head_dim]).swap_dims(1, 2)
    }

    /// `[rows · longest, width]` → `[n, width]`.
    fn unpad(&self, x: Tensor<2>) -> Tensor<2> {
        if self.is_even() {
            return x;
        }
        let places: Vec<i32> = (0..)
            .zip(self.lens)
            .flat_map(|(row, &len)| (row * self.longest..row * self.longest + len).map(|place| place as i32))
            .collect();
        let places = Tensor::<1, Int>::from_data(places.as_slice(), &x.device());
        x.select(0, places)
    }
}
