//! A weight matrix, wherever it lives, and its product with activations.

use std::ops::Range;

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use super::MappedMatrix;
use super::hidden::{Hidden, Place};

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

    /// `x · Wᵀ`: `[n, inputs]` → `[n, outputs]`.
    pub(super) fn product(&self, x: &Hidden) -> Hidden {
        let [product] = Self::products([(self, 0..self.outputs())], x);
        product
    }

    /// `x · Wᵀ` with some rows of each weight, where the weights are.
    pub(super) fn products<const N: usize>(weights: [(&Self, Range<usize>); N], x: &Hidden) -> [Hidden; N] {
        let mapped = weights.each_ref().map(|(weight, rows)| match weight {
            Self::Mapped(matrix) => Some((matrix, rows.clone())),
            Self::Tensor(_) => None,
        });
        if mapped.iter().all(Option::is_some) {
            let mapped = mapped.map(|weight| weight.expect("all of them are, by the line above"));
            return products_of_mapped(mapped, x);
        }
        weights.map(|(weight, rows)| match weight {
            Self::Tensor(weight) => product_of_tensor(weight.val(), rows, x).into(),
            Self::Mapped(weight) => {
                let [product] = products_of_mapped([(weight, rows)], x);
                product
            }
        })
    }
}

fn product_of_tensor(weight: Tensor<2>, rows: Range<usize>, x: &Hidden) -> Tensor<2> {
    let weight = if rows.len() == weight.dims()[0] { weight } else { weight.narrow(0, rows.start, rows.len()) };
    let x = x.to_tensor(&weight.device());
    let weight = weight.cast(x.dtype());
    #[cfg(feature = "flex")]
    if let Some(y) = super::host::linear(&x, &weight) {
        return y;
    }
    x.matmul(weight.transpose())
}

fn products_of_mapped<const N: usize>(weights: [(&MappedMatrix, Range<usize>); N], x: &Hidden) -> [Hidden; N] {
    let read;
    let x = match &x.0 {
        Place::Host(x) => x,
        Place::Tensor(x) => {
            let x = Hidden::from(x.clone()).into_host();
            read = x.expect("mapped weights are for CPU devices, which Compute::check made sure of");
            &read
        }
    };
    MappedMatrix::products(x, weights).map(Hidden::from)
}
