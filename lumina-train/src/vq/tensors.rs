//! Tensors between device, host and file.

use std::collections::HashMap;

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::{DType, Tensor};
use bytes::Bytes;
use lumina_core::checkpoint::{Checkpoint, Dtype};

use crate::{Error, Result};

/// Name, type, shape and bytes, ready to be written.
pub(super) struct Named {
    pub(super) name: String,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    pub(super) bytes: Bytes,
}

/// A tensor's values on the host.
pub(super) fn values<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>> {
    let failed = |error: &dyn std::fmt::Debug| Error::Compute { reason: format!("{error:?}") };
    let data = tensor.try_into_data().map_err(|error| failed(&error))?;
    data.convert_dtype(DType::F32).try_into_vec::<f32>().map_err(|error| failed(&error))
}

/// A tensor of floats for a file, in `dtype`.
pub(super) fn named_floats<const D: usize>(name: String, tensor: Tensor<D>, dtype: Dtype) -> Result<Named> {
    let shape = tensor.dims().to_vec();
    let values = values(tensor)?;
    let bytes: Vec<u8> = match dtype {
        Dtype::F16 => values.iter().flat_map(|&value| half::f16::from_f32(value).to_le_bytes()).collect(),
        Dtype::BF16 => values.iter().flat_map(|&value| half::bf16::from_f32(value).to_le_bytes()).collect(),
        Dtype::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        other => {
            let reason = format!("{other} is no type for trained weights; choose f32, bf16 or f16");
            return Err(Error::Setting { field: "dtype", reason });
        }
    };
    Ok(Named { name, dtype, shape, bytes: bytes.into() })
}

/// The floats of a checkpoint's tensor, of `length` if that is known.
pub(super) fn floats(checkpoint: &Checkpoint, name: &str, length: Option<usize>) -> Result<Vec<f32>> {
    let broken = |reason: String| Error::TrainingState { file: checkpoint.path().to_owned(), reason };
    let view = checkpoint.get(name).ok_or_else(|| broken(format!("`{name}` is missing")))?;
    let values = view.to_f32()?;
    match length {
        Some(length) if length != values.len() => {
            Err(broken(format!("`{name}` has {} numbers, expected {length}", values.len())))
        }
        _ => Ok(values),
    }
}

/// A module's parameters for a file, under their names in the checkpoint.
pub(super) fn parameters<M: Module>(module: &M, names: &HashMap<ParamId, String>, dtype: Dtype) -> Result<Vec<Named>> {
    let mut collect = Collect { names, dtype, found: Ok(Vec::new()) };
    module.visit(&mut collect);
    collect.found
}

struct Collect<'a> {
    names: &'a HashMap<ParamId, String>,
    dtype: Dtype,
    found: Result<Vec<Named>>,
}

impl ModuleVisitor for Collect<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let (Ok(found), Some(name)) = (&mut self.found, self.names.get(&param.id)) else { return };
        match named_floats(name.clone(), param.val(), self.dtype) {
            Ok(tensor) => found.push(tensor),
            Err(error) => self.found = Err(error),
        }
    }
}
