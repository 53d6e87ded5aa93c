//! Causal attention.

use burn::tensor::{Bool, DType, Int, Tensor, TensorData, activation};

use super::hidden::{Hidden, Pair};
use lumina_kernels::attention::causal as attention_kernel;
use lumina_kernels::attention::causal::Shape;
use lumina_kernels::attention::kv_storage as key_values;
use lumina_kernels::attention::kv_storage::CachedRow;

/// Attention of rows to themselves, each from its beginning on: `q` `[n, heads · head_dim]`, `k` and `v`
/// `[n, kv_heads · head_dim]`, with the rows' tokens one after the other, as many as `lens` says. The result is as `q`.
///
/// A token sees itself and what comes before it in its row; `heads / kv_heads` consecutive heads share keys and values.
pub fn causal_attention(q: Hidden, k: Hidden, v: Hidden, head_dim: usize, lens: &[usize]) -> Hidden {
    let ([n, width], [_, kv_width]) = (q.dims(), k.dims());
    let shape = Shape { heads: width / head_dim, kv_heads: kv_width / head_dim, head_dim };
    match (q.beside(k), v) {
        (Pair::Host(q, k), v) => {
            let v = v.into_host().expect("it is where queries and keys are");
            let mut y = q.sibling(width);
            attention_kernel::into(&q.values, &k.values, &v.values, lens, &shape, &mut y.values);
            y.into()
        }
        (Pair::Tensors(q, k), v) => {
            let v = v.into_tensor(&k.device());
            let split = |x: Tensor<2>, heads| x.reshape([n, heads, head_dim]);
            causal_of_tensors(split(q, shape.heads), split(k, shape.kv_heads), split(v, shape.kv_heads), lens).into()
        }
    }
}

fn causal_of_tensors(q: Tensor<3>, k: Tensor<3>, v: Tensor<3>, lens: &[usize]) -> Tensor<2> {
    #[cfg(feature = "flex")]
    if let Some(y) = super::host::causal_attention(&q, &k, &v, lens) {
        return y;
    }
    let heads = q.dims()[1];
    if let Some(together) = Together::of(lens, heads) {
        let [q, k, v] = [q, k, v].map(|x| together.pad(x));
        return together.cut(attention(q, k, v, 0));
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

/// Attention of rows to what their caches have and to themselves, in the program's own memory and `f32`: `q`
/// `[n, heads · head_dim]`, `k` and `v` `[n, kv_heads · head_dim]`, with the rows' tokens one after the other. The caches take up
/// keys and values. The result is as `q`; that of a row does not depend on the others.
///
/// # Panics
/// If a row does not fit its cache, or is of another shape.
pub fn cached_attention(q: Hidden, k: Hidden, v: Hidden, rows: &mut [CachedRow<'_>]) -> Hidden {
    let device = q.device();
    let width = q.dims()[1];
    let [q, k, v] = [q, k, v].map(|x| x.into_host().expect("caches in memory go with CPU devices"));
    let mut y = q.sibling(width);
    key_values::attention(&q.values, &k.values, &v.values, rows, &mut y.values);
    let y = Hidden::from(y);
    match device {
        Some(device) => y.into_tensor(&device).into(),
        None => y,
    }
}

/// Attention of `q` `[rows, heads, len, head_dim]`, from `position` on, to `k` and `v` `[rows, kv_heads, seen, head_dim]`,
/// from 0 on; the result is `[rows · len, heads · head_dim]`.
pub fn attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, position: usize) -> Tensor<2> {
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

/// Short rows that attend side by side, as those of a training batch. In one product they cost a fraction of what they
/// cost one by one, above all on the way back, where a part cut out of a tensor has a gradient as large as the whole.
struct Together<'a> {
    lens: &'a [usize],
    longest: usize,
}

/// Scores of one product, at most: 256 MB.
const MOST_SCORES: usize = 1 << 26;

impl<'a> Together<'a> {
    /// The rows of these lengths, unless they are to go one by one.
    fn of(lens: &'a [usize], heads: usize) -> Option<Self> {
        let longest = lens.iter().copied().max()?;
        let fits = lens.len() * heads * longest * longest <= MOST_SCORES;
        (lens.len() > 1 && fits).then_some(Self { lens, longest })
    }

    fn is_even(&self) -> bool {
        self.lens.iter().all(|&len| len == self.longest)
    }

    /// `[n, heads, head_dim]` → `[rows, heads, longest, head_dim]`. What fills the ends of shorter rows is nowhere
    /// looked at, as it comes after everything else.
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
    fn cut(&self, x: Tensor<2>) -> Tensor<2> {
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
