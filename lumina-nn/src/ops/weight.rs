//! A weight matrix, wherever it resides, and its product with activations.

use std::ops::Range;

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use super::hidden::{Activation, Hidden};
use super::host::HostMatrix;

/// A matrix `[outputs, inputs]`: a Burn parameter, or bytes in host memory that kernels read.
#[derive(Module, Debug)]
pub(crate) enum Weight {
    Burn(Param<Tensor<2>>),
    Host(HostMatrix),
}

/// Some rows of a weight.
#[derive(Clone)]
pub(super) struct WeightRows<'a> {
    pub(super) weight: &'a Weight,
    pub(super) rows: Range<usize>,
}

impl Weight {
    /// Number of rows.
    pub(super) fn outputs(&self) -> usize {
        match self {
            Self::Burn(weight) => weight.dims()[0],
            Self::Host(weight) => weight.rows(),
        }
    }

    /// All rows.
    pub(super) fn all(&self) -> WeightRows<'_> {
        WeightRows { weight: self, rows: 0..self.outputs() }
    }
}

/// `x · Wᵀ` with some rows of each weight: `[n, inputs]` → `[n, rows]` each, where the weights are.
pub(super) fn matmul<const N: usize>(weights: [WeightRows<'_>; N], x: &Hidden) -> [Hidden; N] {
    let on_host = weights.each_ref().map(|WeightRows { weight, rows }| match weight {
        Weight::Host(matrix) => Some((matrix, rows.clone())),
        Weight::Burn(_) => None,
    });
    if on_host.iter().all(Option::is_some) {
        return host_matmul(on_host.map(|weight| weight.expect("all of them are, by the line above")), x);
    }
    weights.map(|WeightRows { weight, rows }| match weight {
        Weight::Burn(weight) => {
            let weight = weight.val();
            super::burn::linear(x.to_tensor(&weight.device()), weight, rows).into()
        }
        Weight::Host(weight) => {
            let [y] = host_matmul([(weight, rows)], x);
            y
        }
    })
}

fn host_matmul<const N: usize>(weights: [(&HostMatrix, Range<usize>); N], x: &Hidden) -> [Hidden; N] {
    let read;
    let x = match &x.0 {
        Activation::Host(x) => x,
        Activation::Burn(x) => {
            let x = Hidden::from(x.clone()).into_host();
            read = x.expect("weights in host memory are for CPU devices, which `Compute::check` made sure of");
            &read
        }
    };
    HostMatrix::matmul(x, weights).map(Hidden::from)
}
