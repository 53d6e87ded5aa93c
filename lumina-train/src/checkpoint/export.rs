//! Weights in files, in a type of 16 or 32 bits.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::Tensor;
use bytes::Bytes;
use half::{bf16, f16};
use lumina_checkpoint::{Checkpoint, Dtype, save_safetensors};
use lumina_nn::ops::read;

use super::{ModelFiles, create};
use crate::{Error, Result};

/// A type that weights are saved in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WeightType {
    F32,
    BF16,
    F16,
}

impl TryFrom<Dtype> for WeightType {
    type Error = Error;
    fn try_from(dtype: Dtype) -> Result<Self> {
        match dtype {
            Dtype::F32 => Ok(Self::F32),
            Dtype::BF16 => Ok(Self::BF16),
            Dtype::F16 => Ok(Self::F16),
            dtype => Err(Error::WeightType { dtype }),
        }
    }
}

impl WeightType {
    pub(crate) fn dtype(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::BF16 => Dtype::BF16,
            Self::F16 => Dtype::F16,
        }
    }

    /// What `config.json` calls it.
    pub(super) fn torch_name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::BF16 => "bfloat16",
            Self::F16 => "float16",
        }
    }

    /// Values in this type, little-endian.
    pub(crate) fn bytes_of(self, values: &[f32]) -> Bytes {
        match self {
            Self::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::BF16 => values.iter().flat_map(|&value| bf16::from_f32(value).to_le_bytes()).collect(),
            Self::F16 => values.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()).collect(),
        }
    }
}

/// The bytes of a tensor, row-major and little-endian, for [`save_safetensors`].
pub(crate) fn tensor_bytes<const D: usize>(tensor: Tensor<D>, dtype: WeightType) -> lumina_checkpoint::Result<Bytes> {
    Ok(dtype.bytes_of(&read(tensor)?))
}

/// Writes a network's parameters under their checkpoint names, in `f32`, `bf16` or `f16`.
///
/// # Errors
/// [`Error::WeightType`], and [`Error::Checkpoint`] where the file cannot be written or the device fails. What was
/// there before is then untouched.
pub fn save_parameters(model: &impl Module, names: &HashMap<ParamId, String>, dtype: Dtype, file: &Path) -> Result<()> {
    struct Collect<'a> {
        names: &'a HashMap<ParamId, String>,
        dtype: WeightType,
        tensors: BTreeMap<String, (Vec<usize>, lumina_checkpoint::Result<Bytes>)>,
    }
    impl ModuleVisitor for Collect<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(name) = self.names.get(&param.id) {
                let tensor = param.val().detach();
                let shape = tensor.dims().to_vec();
                self.tensors.insert(name.clone(), (shape, tensor_bytes(tensor, self.dtype)));
            }
        }
    }
    let mut collect = Collect { names, dtype: dtype.try_into()?, tensors: BTreeMap::new() };
    model.visit(&mut collect);
    let tensors = collect.tensors.into_iter().map(|(name, (shape, bytes))| (name, dtype, shape, move || bytes));
    Ok(save_safetensors(file, tensors)?)
}

/// Copies a model's folder with its weights in `f32`, `bf16` or `f16`, a tensor at a time.
///
/// # Errors
/// [`Error::WeightType`], [`Error::Checkpoint`] where the model cannot be read, [`Error::Write`], also where the folder
/// exists already.
pub fn convert(model: &Path, folder: &Path, dtype: Dtype) -> Result<()> {
    average(&[(model, 1.0)], folder, dtype)
}

/// Writes a model whose weights are the weighted means of those of several, in `f32`, `bf16` or `f16`, a tensor at a
/// time. The other files are the last one's.
///
/// Of checkpoints of one training, each from the end of a run with a falling learning rate, the mean is often better
/// than any of them, most of all for what the training data do not show (arXiv 1803.05407, arXiv 2203.05482).
///
/// # Errors
/// Those of [`convert`], [`Error::NoModels`], [`Error::OutOfRange`] where a weight is not above 0, or not finite, and
/// [`Error::DifferentModels`] where a tensor of one is not in another.
pub fn average(models: &[(impl AsRef<Path>, f32)], folder: &Path, dtype: Dtype) -> Result<()> {
    let ((last, last_weight), others) = models.split_last().ok_or(Error::NoModels)?;
    let weights = models.iter().map(|(_, weight)| *weight);
    if let Some(weight) = weights.clone().find(|weight| !(*weight > 0.0 && weight.is_finite())) {
        let expected = "a finite number above 0".to_owned();
        return Err(Error::OutOfRange { field: "weight", value: weight.to_string(), expected });
    }
    let sum: f64 = weights.map(f64::from).sum();
    let part_of_sum = |weight: f32| (f64::from(weight) / sum) as f32;
    let last = last.as_ref();
    let checkpoint = lumina_mgpt::convert::open(last)?;
    let others = others.iter().map(|(model, weight)| {
        let model = model.as_ref();
        Ok((model, lumina_mgpt::convert::open(model)?, part_of_sum(*weight)))
    });
    let others = others.collect::<Result<Vec<_>>>()?;
    for (model, other, _) in &others {
        let shape = |of: &Checkpoint, name: &str| of.get(name).map(|view| view.shape().to_vec());
        let mut names = checkpoint.names().chain(other.names());
        if let Some(tensor) = names.find(|name| shape(&checkpoint, name) != shape(other, name)) {
            let (model, other, tensor) = (model.to_path_buf(), last.to_owned(), tensor.to_owned());
            return Err(Error::DifferentModels { model, other, tensor });
        }
    }
    let (last_part, saved) = (part_of_sum(*last_weight), WeightType::try_from(dtype)?);
    create(folder, |partial| {
        let file = ModelFiles::of_model(last)?.write(partial, saved)?;
        let views = checkpoint.names().filter_map(|name| checkpoint.get(name));
        let tensors = views.map(|view| {
            let (name, shape) = (view.name().to_owned(), view.shape().to_vec());
            let others: Vec<_> =
                others.iter().filter_map(|(_, other, part)| Some((other.get(&name)?, *part))).collect();
            let values = move || {
                let mut values = view.to_f32()?;
                values.iter_mut().for_each(|value| *value *= last_part);
                for (other, part) in others {
                    let other = other.to_f32()?;
                    values.iter_mut().zip(other).for_each(|(value, other)| *value += other * part);
                }
                Ok(saved.bytes_of(&values))
            };
            (name, dtype, shape, values)
        });
        Ok(save_safetensors(partial.join(file), tensors)?)
    })
}
