//! A weight matrix, wherever it lives, and its product with activations.

use std::ops::Range;

use burn::module::{Module, Param};
use burn::tensor::{DType, Tensor, TensorData};

use super::MappedMatrix;

/// A matrix `[outputs, inputs]`: a Burn parameter, or bytes that kernels read.
#[derive(Module, Debug)]
pub(crate) enum Weight {
    Tensor(Param<Tensor<2>>),
    Mapped(MappedMatrix),
}

impl Weight {
    /// Number of rows.
    pub(super) fn outputs(&self) -> usize {
        match self {
            Self::Tensor(weight) => weight.dims()[0],
            Self::Mapped(weight) => weight.rows(),
        }
    }

    /// `x · Wᵀ`: `[n, inputs]` → `[n, outputs]`, in the type of `x`.
    pub(super) fn product(&self, x: Tensor<2>) -> Tensor<2> {
        let [product] = Self::products([(self, 0..self.outputs())], x);
        product
    }

    /// `x · Wᵀ` with some rows of each weight, in the type of `x`.
    pub(super) fn products<const N: usize>(weights: [(&Self, Range<usize>); N], x: Tensor<2>) -> [Tensor<2>; N] {
        let mapped = weights.each_ref().map(|(weight, rows)| match weight {
            Self::Mapped(matrix) => Some((matrix, rows.clone())),
            Self::Tensor(_) => None,
        });
        if mapped.iter().all(Option::is_some) {
            let mapped = mapped.map(|weight| weight.expect("all of them are, by the line above"));
            return products_of_mapped(mapped, x);
        }
        weights.map(|(weight, rows)| match weight {
            Self::Tensor(weight) => product_of_tensor(weight.val(), rows, x.clone()),
            Self::Mapped(weight) => {
                let [product] = products_of_mapped([(weight, rows)], x.clone());
                product
            }
        })
    }
}

fn product_of_tensor(weight: Tensor<2>, rows: Range<usize>, x: Tensor<2>) -> Tensor<2> {
    let weight = if rows.len() == weight.dims()[0] { weight } else { weight.narrow(0, rows.start, rows.len()) };
    let weight = weight.cast(x.dtype());
    #[cfg(feature = "flex")]
    if let Some(y) = super::flex::linear(&x, &weight) {
        return y;
    }
    x.matmul(weight.transpose())
}

/// Meets Burn at the activations: on a CPU device reading them is a move, not a copy, where this is the only handle.
fn products_of_mapped<const N: usize>(weights: [(&MappedMatrix, Range<usize>); N], x: Tensor<2>) -> [Tensor<2>; N] {
    let device = x.device();
    let [n, _] = x.dims();
    let data = x.into_data();
    let x = data.as_slice::<f32>().expect("mapped weights compute in f32, which Compute::check made sure of");
    let mut outputs = weights.each_ref().map(|(_, rows)| rows.len()).into_iter();
    MappedMatrix::products(x, n, weights).map(|y| {
        let shape = [n, outputs.next().unwrap_or_default()];
        Tensor::from_data(TensorData::new(y, shape), (&device, DType::F32))
    })
}
