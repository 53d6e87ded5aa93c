//! Merging an adapter into the weights.

use std::path::Path;

use bytes::Bytes;
use lumina_checkpoint::gguf::check_finite;
use lumina_checkpoint::{Adapter, Checkpoint, Dtype, TensorView, save_safetensors};
use rayon::prelude::*;

use crate::Result;
use crate::checkpoint::{self, ModelFiles, WeightType};

/// Writes a model with an adapter's updates added to its weights, `W + scale · B · A`, as a Hugging Face folder.
///
/// The weights that change are saved in `dtype`; their updates are rounded least in `f32`. All other tensors are copied
/// as they are. One tensor at a time is on the heap. Mirrors `peft`'s `merge_and_unload`.
///
/// # Errors
/// [`Error::Checkpoint`](crate::Error::Checkpoint) where model or adapter cannot be opened or do not fit each other,
/// or a merged value is not finite in `dtype`, with the name of its tensor;
/// [`Error::WeightType`](crate::Error::WeightType) for a `dtype` other than `f32`, `bf16` and `f16`;
/// [`Error::Write`](crate::Error::Write), also where the folder exists already.
pub fn merge(model: &Path, adapter: &Path, merged: &Path, dtype: Dtype) -> Result<()> {
    let base = lumina_mgpt::convert::open(model)?;
    let file = adapter.join(Adapter::WEIGHTS);
    let adapter = Adapter::open(adapter)?;
    let listed = base.names().filter_map(|name| name.strip_suffix(".weight").filter(|layer| adapter.adapts(layer)));
    for layer in adapter.layers().chain(listed) {
        check_fits(&base, &adapter, layer)
            .map_err(|reason| lumina_checkpoint::Error::Adapter { file: file.clone(), reason })?;
    }
    check_targets(&base, &adapter)
        .map_err(|reason| lumina_checkpoint::Error::Adapter { file: file.clone(), reason })?;
    let weight_type = WeightType::try_from(dtype)?;
    checkpoint::create(merged, |partial| {
        let file = ModelFiles::of_model(model)?.write(partial, weight_type)?;
        let views = base.names().filter_map(|name| base.get(name));
        let tensors = views.map(|view| {
            let matrices = view.name().strip_suffix(".weight").and_then(|layer| adapter.matrices(layer));
            let (name, shape) = (view.name().to_owned(), view.shape().to_vec());
            let stored = if matrices.is_some() { dtype } else { view.dtype() };
            let scale = adapter.scale();
            (name, stored, shape, move || match matrices {
                Some([a, b]) => updated(&view, &a, &b, scale, weight_type),
                None => Ok(view.bytes().clone()),
            })
        });
        Ok(save_safetensors(partial.join(file), tensors)?)
    })
}

/// Whether the adapter has a pair for every layer of the model that it says it changes.
fn check_targets(checkpoint: &Checkpoint, adapter: &Adapter) -> Result<(), String> {
    let matrices = checkpoint.names().filter_map(|name| checkpoint.get(name)).filter(|view| view.shape().len() == 2);
    for layer in matrices.filter_map(|view| view.name().strip_suffix(".weight").map(str::to_owned)) {
        if let (Some(target), None) = (adapter.target_of(&layer), adapter.matrices(&layer)) {
            return Err(format!("it has no matrices for `{layer}`, and `{target}` is one of `target_modules`"));
        }
    }
    Ok(())
}

/// Whether a layer's matrices belong to a weight of the model.
fn check_fits(checkpoint: &Checkpoint, adapter: &Adapter, layer: &str) -> Result<(), String> {
    let name = format!("{layer}.weight");
    let file = checkpoint.path().display();
    let weight = checkpoint.get(&name).ok_or_else(|| format!("it changes `{name}`, which is missing from {file}"))?;
    let [a, b] =
        adapter.matrices(layer).ok_or_else(|| format!("it has no tensor for `{layer}`, one of `target_modules`"))?;
    let expected = [b.shape()[0], a.shape()[1]];
    if weight.shape() != expected || !weight.dtype().is_float() {
        let (found, dtype) = (weight.shape(), weight.dtype());
        return Err(format!(
            "it changes `{name}` as a float matrix {expected:?}, which is {dtype} {found:?} in {file}"
        ));
    }
    Ok(())
}

/// `W + scale · B · A`, row by row.
fn updated(
    weight: &TensorView,
    a: &TensorView,
    b: &TensorView,
    scale: f64,
    dtype: WeightType,
) -> lumina_checkpoint::Result<Bytes> {
    let (mut values, a_values, b_values) = (weight.to_f32()?, a.to_f32()?, b.to_f32()?);
    let (rank, inputs) = (a.shape()[0], a.shape()[1]);
    let rows = values.par_chunks_mut(inputs.max(1)).zip(b_values.par_chunks(rank));
    rows.for_each(|(row, b)| {
        let mut update = vec![0.0f32; row.len()];
        for (a, b) in a_values.chunks_exact(inputs).zip(b) {
            for (update, a) in update.iter_mut().zip(a) {
                *update += a * b;
            }
        }
        for (value, update) in row.iter_mut().zip(update) {
            *value += scale as f32 * update;
        }
    });
    let bytes = dtype.bytes_of(&values);
    check_finite(weight, dtype.dtype(), &bytes, 0)?;
    Ok(bytes)
}
