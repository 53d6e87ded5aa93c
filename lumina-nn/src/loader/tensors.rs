//! Parameters of Burn from a checkpoint's tensors.

use std::collections::HashMap;
use std::fmt::Display;

use burn::module::{Param, ParamId};
use burn::tensor::{Bytes, DType, Tensor, TensorData};
use lumina_checkpoint::{Dtype, TensorView};

use super::collect::{Loader, Part};
use super::parts::floats;
use crate::Compute;

impl<'a> Loader<'a> {
    /// The loader of a network of which only the parameters of Burn that `keep` accepts have their values. In the place
    /// of each other one is a single zero, `[1; D]`, on the same device and under the same name: its tensor is not
    /// read. Such a network cannot compute until it has all values.
    #[must_use]
    pub fn keeping(self, keep: &'a dyn Fn(&str) -> bool) -> Self {
        Self { keep: Some(keep), ..self }
    }

    /// A parameter in the type that [`Compute::master_weights`] chose, by default the compute type.
    pub fn param<const D: usize>(&self, name: impl Display, shape: [usize; D]) -> Param<Tensor<D>> {
        let path = self.path(name);
        let view = self.view(&path, &shape, Part::Model);
        self.parameter(path, view, Part::Model)
    }

    /// The parameter of a tensor; its name is remembered unless it is frozen.
    pub(super) fn parameter<const D: usize>(
        &self,
        path: String,
        view: Option<TensorView>,
        part: Part,
    ) -> Param<Tensor<D>> {
        let compute = &self.target.compute;
        let frozen = part == Part::Model && self.adapter.is_some();
        let dtype = if frozen { compute.burn_dtype() } else { compute.parameter_dtype() };
        let placeholder = || Tensor::zeros([1; D], (&compute.device(), dtype));
        let tensor = match view {
            Some(view) if self.keep.is_none_or(|keep| keep(&path)) => to_tensor(&view, compute, dtype),
            Some(_) => placeholder(),
            // It is missing, which [`Loader::finish`] reports.
            None => return Param::from_tensor(placeholder()),
        };
        let param = Param::from_tensor(tensor);
        let mut state = self.shared.state.borrow_mut();
        if frozen {
            state.frozen.insert(param.id, path);
            return param.set_require_grad(false);
        }
        state.names.insert(param.id, path);
        param
    }

    /// The checkpoint's names of the parameters made so far, under which training saves them. A weight in host memory
    /// is no parameter, and one tensor asked for twice is two parameters of one name. Under an adapter they are the
    /// adapter's alone.
    pub fn parameter_names(&self) -> HashMap<ParamId, String> {
        self.shared.state.borrow().names.clone()
    }

    /// The checkpoint's names of the model's own parameters under an adapter, which are frozen.
    pub fn frozen_names(&self) -> HashMap<ParamId, String> {
        self.shared.state.borrow().frozen.clone()
    }
}

/// Copies a view of floats or quantised ones into a tensor; one tensor at a time is on the heap.
fn to_tensor<const D: usize>(view: &TensorView, compute: &Compute, dtype: DType) -> Tensor<D> {
    let of_bytes = |stored| TensorData::from_bytes(Bytes::from_bytes_vec(view.bytes().to_vec()), view.shape(), stored);
    let data = match view.dtype() {
        Dtype::F64 => of_bytes(DType::F64),
        Dtype::F32 => of_bytes(DType::F32),
        Dtype::F16 => of_bytes(DType::F16),
        Dtype::BF16 => of_bytes(DType::BF16),
        _ => TensorData::new(floats(view), view.shape()),
    };
    Tensor::from_data(data.convert_dtype(dtype), (&compute.device(), dtype))
}
