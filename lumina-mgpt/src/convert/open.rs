//! Opening a model: GGUF files with the names, the order of rows and the documents of a Hugging Face folder.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;

use lumina_checkpoint::gguf::Metadata;
use lumina_checkpoint::{Checkpoint, Dtype, Error, MappedTensor, Result};

use super::config::{Tensors, document};
use super::heads::Heads;
use super::names::{rotated, to_hugging_face};
use super::row_order::{RowOrder, is_chameleon, row_order};

/// Opens a model: [`Checkpoint::open`], with the tensors of a GGUF file named and ordered as in a Hugging Face folder,
/// and [`Checkpoint::document`] for what its metadata contains.
///
/// # Errors
/// Those of [`Checkpoint::open`], [`Error::Metadata`] and [`Error::TensorLayout`].
pub fn open(path: impl AsRef<Path>) -> Result<Checkpoint> {
    let path = path.as_ref();
    if let Some(name) = name_on_hub(path) {
        let reason = crate::Error::NotDownloaded { name };
        return Err(Error::Read { file: path.to_owned(), source: io::Error::new(ErrorKind::NotFound, reason) });
    }
    as_model(Checkpoint::open(path)?)
}

/// The model's name on the hub, where a path is one (`owner/name` or `owner/name@revision`) and there is no such folder
/// or file.
pub(crate) fn name_on_hub(path: &Path) -> Option<String> {
    let name = path.to_str()?;
    let is_name = |part: &str| {
        let known = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.');
        !part.is_empty() && !part.starts_with('.') && part.chars().all(known)
    };
    let (owner, rest) = name.split_once('/')?;
    let rest = rest.split_once('@').map_or(rest, |(rest, _)| rest);
    (is_name(owner) && is_name(rest) && !path.exists()).then(|| name.to_owned())
}

/// [`open`] for a checkpoint that is open already, in memory for example.
///
/// # Errors
/// As [`open`].
pub fn as_model(checkpoint: Checkpoint) -> Result<Checkpoint> {
    let Some(metadata) = checkpoint.metadata().cloned() else { return Ok(checkpoint) };
    let order = row_order(&metadata)?;
    let is_model = is_chameleon(&metadata);
    let mapped = checkpoint.map_tensors(|view| {
        let name = is_model.then(|| to_hugging_face(view.name())).flatten();
        let name = name.unwrap_or_else(|| view.name().to_owned());
        let heads = match order {
            RowOrder::HuggingFace => None,
            RowOrder::LlamaCpp => heads(&name, view.dtype(), view.shape(), &metadata)
                .map_err(|reason| Error::TensorLayout { file: view.file().to_owned(), tensor: name.clone(), reason })?,
        };
        let reorder = heads
            .map(|heads| Arc::new(move |bytes: &[u8], ordered: &mut [u8]| heads.pairs_to_halves(bytes, ordered)) as _);
        Ok(MappedTensor { name, reorder })
    })?;
    let tensors = Tensors {
        attention_bias: mapped.contains("model.layers.0.self_attn.q_proj.bias"),
        own_head: mapped.contains("lm_head.weight"),
    };
    Ok(mapped.with_documents(move |name| document(&metadata, tensors, name)))
}

/// The heads of a tensor that llama.cpp has in its own order, by its Hugging Face name; or why there are none.
fn heads(name: &str, dtype: Dtype, shape: &[usize], metadata: &Metadata) -> std::result::Result<Option<Heads>, String> {
    let Some(rotated) = rotated(name) else { return Ok(None) };
    let (n_heads, key) = super::config::heads(metadata, rotated.query).map_err(|error| error.to_string())?;
    let (width, unit_bytes) = match (shape, rotated.norm) {
        (&[.., width], true) if !dtype.is_quantised() => (width, dtype.block_bytes()),
        (&[rows], false) if !dtype.is_quantised() && rows.is_multiple_of(n_heads) => {
            (rows / n_heads, dtype.block_bytes())
        }
        (&[rows, columns], false) if rows.is_multiple_of(n_heads) => {
            (rows / n_heads, dtype.bytes_of(&[columns]).unwrap_or_default())
        }
        _ => return Err(format!("shape {shape:?} of {dtype} is not that of the {n_heads} heads of `{key}`")),
    };
    // Nothing to reorder, and no width to divide by.
    if shape.contains(&0) {
        return Ok(None);
    }
    let heads = Heads::new(width, unit_bytes);
    heads.map(Some).ok_or_else(|| format!("heads of {width} channels cannot be rotated, which goes two by two"))
}
