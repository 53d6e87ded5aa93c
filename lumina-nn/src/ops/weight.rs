//! A weight matrix, wherever it resides, and its product with activations.

use std::ops::Range;

use super::hidden::{Activation, Hidden};
use super::host::HostMatrix;

/// A matrix `[outputs, inputs]`: bytes in host memory that kernels read, the same on a GPU, or a parameter of Burn.
#[cfg_attr(feature = "burn", derive(burn::module::Module))]
#[derive(Debug)]
pub(crate) enum Weight {
    Host(HostMatrix),
    #[cfg(feature = "cube")]
    Gpu(GpuMatrix),
    #[cfg(feature = "burn")]
    Burn(BurnMatrix),
}

/// A parameter of Burn.
#[cfg(feature = "burn")]
#[derive(burn::module::Module, Debug)]
pub(crate) struct BurnMatrix {
    pub(crate) parameter: burn::module::Param<burn::tensor::Tensor<2>>,
    /// How both operands of a product are rounded on a CPU.
    #[module(skip)]
    pub(crate) precision: lumina_kernels::ActivationPrecision,
}

/// A matrix on a GPU. Cloning it copies no weight.
#[cfg(feature = "cube")]
#[derive(Debug, Clone)]
pub(crate) struct GpuMatrix {
    pub(crate) matrix: lumina_cube::Matrix,
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
            #[cfg(feature = "burn")]
            Self::Burn(weight) => weight.parameter.dims()[0],
            Self::Host(weight) => weight.rows(),
            #[cfg(feature = "cube")]
            Self::Gpu(weight) => weight.matrix.rows(),
        }
    }

    /// All rows.
    pub(super) fn all(&self) -> WeightRows<'_> {
        WeightRows { weight: self, rows: 0..self.outputs() }
    }
}

/// `x · Wᵀ` with some rows of each weight: `[n, inputs]` → `[n, rows]` each, where the weights are.
pub(super) fn matmul<const N: usize>(weights: [WeightRows<'_>; N], x: &Hidden) -> [Hidden; N] {
    #[cfg(feature = "cube")]
    {
        let on_gpu = weights.each_ref().map(|WeightRows { weight, rows }| match weight {
            Weight::Gpu(GpuMatrix { matrix }) => Some(lumina_cube::MatrixRows { matrix, rows: rows.clone() }),
            _ => None,
        });
        if let Activation::Gpu(x) = &x.0
            && let Some(weights) = all_of(on_gpu)
        {
            let widths = weights.each_ref().map(|weight| weight.rows.len());
            let mut widths = widths.into_iter();
            return lumina_cube::matmul::matmul(&x.gpu, &x.values, x.n(), weights)
                .map(|y| x.with(y, widths.next().unwrap_or(0)).into());
        }
    }
    let on_host = weights.each_ref().map(|WeightRows { weight, rows }| match weight {
        Weight::Host(matrix) => Some((matrix, rows.clone())),
        _ => None,
    });
    if let Some(weights) = all_of(on_host) {
        return host_matmul(weights, x);
    }
    weights.map(|WeightRows { weight, rows }| match weight {
        #[cfg(feature = "burn")]
        Weight::Burn(weight) => {
            let (precision, weight) = (weight.precision, weight.parameter.val());
            super::burn::linear(x.to_tensor(&weight.device()), weight, rows, precision).into()
        }
        Weight::Host(weight) => {
            let [y] = host_matmul([(weight, rows)], x);
            y
        }
        #[cfg(feature = "cube")]
        Weight::Gpu(_) => unreachable!("weights on a GPU are for activations there, which `Compute` makes sure of"),
    })
}

/// All of them, where none is missing.
fn all_of<T, const N: usize>(options: [Option<T>; N]) -> Option<[T; N]> {
    let is_whole = options.iter().all(Option::is_some);
    is_whole.then(|| options.map(|option| option.expect("none is missing, by the line above")))
}

fn host_matmul<const N: usize>(weights: [(&HostMatrix, Range<usize>); N], x: &Hidden) -> [Hidden; N] {
    match &x.0 {
        Activation::Host(x) => HostMatrix::matmul(x, weights).map(Hidden::from),
        #[cfg(feature = "cube")]
        Activation::Gpu(_) => unreachable!("{}", super::ONE_PLACE),
        #[cfg(feature = "burn")]
        Activation::Burn(x) => {
            let x = super::burn::host_rows(x.clone());
            let x = x.expect("weights in host memory are for CPU devices, which `Compute::check` made sure of");
            HostMatrix::matmul(&x, weights).map(Hidden::from)
        }
    }
}
