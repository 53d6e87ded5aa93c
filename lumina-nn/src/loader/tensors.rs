//! Parameters of Burn from a checkpoint's tensors.

use std::collections::HashMap;
use std::fmt::Display;

use burn::module::{Param, ParamId};
use burn::tensor::{Bytes, DType, Tensor, TensorData};
use lumina_checkpoint::{Dtype, TensorView};

use super::collect::{Loader, Part};
use super::parts::floats;
use crate::Compute;

impl Loader<'_> {
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
        let tensor = match view {
            Some(view) => to_tensor(&view, compute, dtype),
            None => return self.placeholder(),
        };
        let param = Param::from_tensor(tensor);
        if frozen {
            return param.set_require_grad(false);
        }
        self.shared.state.borrow_mut().names.insert(param.id, path);
        param
    }

    /// In place of a tensor that is missing, which [`Loader::finish`] reports.
    fn placeholder<const D: usize>(&self) -> Param<Tensor<D>> {
        let compute = &self.target.compute;
        Param::from_tensor(Tensor::zeros([1; D], (&compute.device(), compute.parameter_dtype())))
    }

    /// The checkpoint's names of the parameters made so far, under which training saves them. A weight in host memory
    /// is no parameter, and one tensor asked for twice is two parameters of one name. Under an adapter they are the
    /// adapter's alone.
    pub fn parameter_names(&self) -> HashMap<ParamId, String> {
        self.shared.state.borrow().names.clone()
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
