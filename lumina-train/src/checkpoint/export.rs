//! Trained models as Hugging Face folders, which inference and `transformers` open.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::Tensor;
use bytes::Bytes;
use half::{bf16, f16};
use lumina_checkpoint::{Checkpoint, Dtype, save_safetensors};

use super::folder;
use super::model_files::Carried;
use crate::Result;

/// A tensor's bytes in a type, row-major and little-endian.
pub(crate) fn bytes_of<const D: usize>(tensor: Tensor<D>, dtype: Dtype) -> lumina_nn::Result<Bytes> {
    to_bytes(&lumina_nn::ops::read(tensor)?, dtype)
}

/// Values in a type, little-endian.
pub(crate) fn to_bytes(values: &[f32], dtype: Dtype) -> lumina_nn::Result<Bytes> {
    Ok(match dtype {
        Dtype::F16 => values.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()).collect(),
        Dtype::BF16 => values.iter().flat_map(|&value| bf16::from_f32(value).to_le_bytes()).collect(),
        Dtype::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        other => {
            return Err(lumina_nn::Error::ComputeType { dtype: other });
        }
    })
}

/// Writes a network's parameters under their checkpoint names.
///
/// # Errors
/// [`Error::Checkpoint`](crate::Error::Checkpoint) where the file cannot be written or the device fails; what was there before is
/// untouched.
pub fn save_parameters(model: &impl Module, names: &HashMap<ParamId, String>, dtype: Dtype, file: &Path) -> Result<()> {
    struct Collect<'a> {
        names: &'a HashMap<ParamId, String>,
        dtype: Dtype,
        tensors: BTreeMap<String, (Vec<usize>, lumina_nn::Result<Bytes>)>,
    }
    impl ModuleVisitor for Collect<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(name) = self.names.get(&param.id) {
                let tensor = param.val().detach();
                let shape = tensor.dims().to_vec();
                self.tensors.insert(name.clone(), (shape, bytes_of(tensor, self.dtype)));
            }
        }
    }
    let mut collect = Collect { names, dtype, tensors: BTreeMap::new() };
    model.visit(&mut collect);
    let tensors = collect.tensors.into_iter().map(|(name, (shape, bytes))| (name, dtype, shape, move || Ok(bytes?)));
    Ok(save_safetensors(file, tensors)?)
}

/// Copies a model's folder with its weights in another type of 16 or 32 bits, a tensor at a time.
///
/// # Errors
/// [`Error::Checkpoint`](crate::Error::Checkpoint) where the model cannot be read, [`Error::Write`](crate::Error::Write), also where
/// the folder is there already.
pub fn convert(model: &Path, folder: &Path, dtype: Dtype) -> Result<()> {
    let checkpoint = Checkpoint::open(model)?;
    folder::create(folder, |partial| {
        let file = Carried::of_model(model)?.write(partial, dtype)?;
        let views = checkpoint.names().filter_map(|name| checkpoint.get(name));
        let tensors = views.map(|view| {
            let (name, shape) = (view.name().to_owned(), view.shape().to_vec());
            (name, dtype, shape, move || Ok(to_bytes(&view.to_f32()?, dtype)?))
        });
        Ok(save_safetensors(partial.join(file), tensors)?)
    })
}
