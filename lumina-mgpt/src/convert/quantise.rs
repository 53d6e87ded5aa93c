//! From a checkpoint to a GGUF file, with weights in narrower types on the way.

use std::ops::ControlFlow;
use std::path::Path;

use bytes::Bytes;
use rayon::prelude::*;

use super::describe::{self, Config};
use super::heads::Heads;
use super::metadata::RowOrder;
use super::names::{Role, Rotated, role, rotated, to_gguf};
use super::write::GgufWriter;
use crate::{Checkpoint, Dtype, TensorView};
use crate::{Error, Result};

/// Elements that one thread converts at a time: a whole number of blocks of every type.
const CHUNK: usize = 1 << 14;

/// Elements between two reports: enough for threads to share, and the most that is held in the target's type.
const SLICE: usize = CHUNK << 8;

/// In which types the tensors of a model are written.
///
/// | tensors | type |
/// | --- | --- |
/// | weights of the linear layers of attention and MLP | as asked |
/// | head | as asked, but `q8_0` where that is `q4_0`: its errors reach the logits as they are, and it is 4 % of a 7B model |
/// | embedding | the checkpoint's: of it a row a token is read, so narrowing saves no time; that of the head where the two are tied |
/// | norms, biases | `f32`: small, and added or multiplied at full width |
/// | others (the image tokenizer's encoder) | the checkpoint's |
///
/// A matrix whose rows are no whole number of blocks keeps the checkpoint's type.
///
/// ```
/// use lumina_checkpoint::Dtype;
/// use lumina_checkpoint::gguf::QuantiseOptions;
///
/// let smallest = QuantiseOptions::new(Dtype::Q4_0).embedding(Dtype::Q8_0).head(Dtype::Q4_0);
/// # let _ = smallest;
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuantiseOptions {
    linear: Dtype,
    head: Option<Dtype>,
    embedding: Option<Dtype>,
    row_order: RowOrder,
}

impl QuantiseOptions {
    /// Linear weights in `q8_0`, `q4_0`, `bf16`, `f16` or `f32`, and everything else as the table says.
    pub fn new(linear: Dtype) -> Self {
        Self { linear, head: None, embedding: None, row_order: RowOrder::default() }
    }

    /// The type of the head.
    #[must_use]
    pub fn head(self, dtype: Dtype) -> Self {
        Self { head: Some(dtype), ..self }
    }

    /// The type of the embedding.
    #[must_use]
    pub fn embedding(self, dtype: Dtype) -> Self {
        Self { embedding: Some(dtype), ..self }
    }

    /// For whom queries and keys are laid out: by default for this crate, which then uses them where they lie, and
    /// llama.cpp refuses the file. With [`RowOrder::LlamaCpp`] it runs the model (text only, as it hides image tokens),
    /// and this crate copies a sixth of the weights to the heap.
    #[must_use]
    pub fn row_order(self, order: RowOrder) -> Self {
        Self { row_order: order, ..self }
    }

    /// The type in which a tensor is written. The head is `tied` where it is the embedding's table.
    pub fn dtype(&self, view: &TensorView, tied: bool) -> Dtype {
        let head = self.head.unwrap_or(if self.linear == Dtype::Q4_0 { Dtype::Q8_0 } else { self.linear });
        let wanted = match role(view.name()) {
            Role::Linear => self.linear,
            Role::Head => head,
            Role::Embedding if tied => self.embedding.unwrap_or(head),
            Role::Embedding => self.embedding.unwrap_or(float_of(view)),
            Role::Small => Dtype::F32,
            Role::Other => return view.dtype(),
        };
        if wanted.bytes_of(view.shape()).is_some() { wanted } else { float_of(view) }
    }
}

/// The type of a tensor, if kernels know it.
fn float_of(view: &TensorView) -> Dtype {
    if view.dtype().format().is_some() { view.dtype() } else { Dtype::F32 }
}

/// How far the writing of a file has come.
#[derive(Debug, Clone, Copy)]
pub struct QuantiseProgress<'a> {
    /// The tensor that is being written, by its Hugging Face name.
    pub tensor: &'a str,
    /// Bytes of the checkpoint's tensors done so far.
    pub bytes: u64,
    /// Bytes of all its tensors that are written.
    pub total_bytes: u64,
}

/// Writes the model in `checkpoint` (tensors, `config.json`, and the files of its tokenizer where it has them) to a GGUF
/// file at `path`.
///
/// Tensors are read where they lie, converted in slices by the threads of the current rayon pool, and written as they
/// come: on the heap are a slice, and of files for llama.cpp one tensor of queries or keys. `progress` hears of every
/// slice, and stops the work by breaking; the file then does not appear.
///
/// The `config.json` and the tokenizer go into the metadata, not next to the file: a model is then one file, and a
/// tokenizer that does not belong to it cannot be beside it by mistake. They are what
/// [`Checkpoint::document`](Checkpoint::document) gives back.
///
/// ```no_run
/// use std::ops::ControlFlow;
///
/// use lumina_checkpoint::gguf::{QuantiseOptions, quantise};
/// use lumina_checkpoint::{Checkpoint, Dtype};
///
/// let checkpoint = Checkpoint::open("Lumina-mGPT-7B-768")?;
/// quantise(&checkpoint, "Lumina-mGPT-7B-768-Q8_0.gguf", &QuantiseOptions::new(Dtype::Q8_0), &mut |progress| {
///     println!("{} % {}", progress.bytes * 100 / progress.total_bytes.max(1), progress.tensor);
///     ControlFlow::Continue(())
/// })?;
/// # Ok::<(), lumina_checkpoint::Error>(())
/// ```
///
/// # Errors
/// [`Error::Quantise`] where a type cannot hold a tensor's values, is not written, or has no place in GGUF;
/// [`Error::Metadata`] where `config.json` or the tokenizer does not do; [`Error::Cancelled`]; [`Error::Write`]. What was
/// at `path` before is then untouched.
pub fn quantise(
    checkpoint: &Checkpoint,
    path: impl AsRef<Path>,
    options: &QuantiseOptions,
    progress: &mut dyn FnMut(QuantiseProgress<'_>) -> ControlFlow<()>,
) -> Result<()> {
    let path = path.as_ref();
    let order = options.row_order;
    let (config, config_file) = Config::of(checkpoint)?;
    let metadata = describe::metadata(checkpoint, &config, &config_file, options.linear, order)?;
    let tied = !checkpoint.contains("lm_head.weight");

    let mut plan = Vec::new();
    for view in checkpoint.names().filter_map(|name| checkpoint.get(name)) {
        let dtype = options.dtype(&view, tied);
        // What llama.cpp has no name for, it refuses.
        let name = match (to_gguf(view.name()), order) {
            (Some(name), _) => name,
            (None, RowOrder::HuggingFace) => view.name().to_owned(),
            (None, RowOrder::LlamaCpp) => continue,
        };
        let mut shape = view.shape().to_vec();
        let rotated = rotated(view.name()).filter(|_| order == RowOrder::LlamaCpp);
        if let Some(Rotated { query, norm: true }) = rotated {
            shape = norm_of_each_head(checkpoint, &view, config.heads(query) as usize)?;
        }
        plan.push((name, dtype, shape, rotated, view));
    }
    let total_bytes = plan.iter().map(|(.., view)| view_bytes(view)).sum();
    let described = plan.iter().map(|(name, dtype, shape, ..)| (name.as_str(), *dtype, shape));
    let mut writer = GgufWriter::create(path, metadata, described)?;
    let mut bytes_before = 0;
    for (_, dtype, _, rotated, view) in &plan {
        let source = match rotated {
            None => view.bytes().clone(),
            Some(rotated) => in_pairs(view, *rotated, config.heads(rotated.query) as usize)?,
        };
        convert(view, &source, *dtype, |converted, share| {
            writer.append(converted)?;
            let bytes = bytes_before + (view_bytes(view) as f64 * share) as u64;
            let report = QuantiseProgress { tensor: view.name(), bytes, total_bytes };
            match progress(report) {
                ControlFlow::Continue(()) => Ok(()),
                ControlFlow::Break(()) => Err(Error::Cancelled { file: path.to_owned() }),
            }
        })?;
        bytes_before += view_bytes(view);
    }
    writer.finish()
}

/// A tensor in another type, on the heap, converted by the threads of the current rayon pool. A tensor that has the type
/// already is not copied.
///
/// # Errors
/// [`Error::Quantise`] where the type cannot hold a value, is not written, or has blocks that do not fit the rows;
/// [`Error::TensorType`] where the tensor has no floats.
pub fn quantise_tensor(view: &TensorView, dtype: Dtype) -> Result<Bytes> {
    if view.dtype() == dtype {
        return Ok(view.bytes().clone());
    }
    let Some(length) = dtype.bytes_of(view.shape()) else {
        return Err(unfit(view, format!("rows of shape {:?} are no whole number of blocks of {dtype}", view.shape())));
    };
    let mut converted = Vec::with_capacity(length);
    convert(view, view.bytes(), dtype, |bytes, _| {
        converted.extend_from_slice(bytes);
        Ok(())
    })?;
    Ok(converted.into())
}

/// Bytes of a tensor in its file, without putting them in order.
fn view_bytes(view: &TensorView) -> u64 {
    view.dtype().bytes_of(view.shape()).unwrap_or_default() as u64
}

/// Hands over `source`, elements in the view's type, in `dtype`, slice by slice, with the share that is done then.
fn convert(
    view: &TensorView,
    source: &[u8],
    dtype: Dtype,
    mut take: impl FnMut(&[u8], f64) -> Result<()>,
) -> Result<()> {
    let from = view.dtype();
    // Whole blocks, of whichever type.
    let bytes_in = |dtype: Dtype, elements: usize| elements / dtype.block_elements() * dtype.block_bytes();
    let slice_bytes = bytes_in(from, SLICE);
    let mut done = 0;
    let mut converted = Vec::new();
    for (index, slice) in source.chunks(slice_bytes).enumerate() {
        done += slice.len();
        let share = done as f64 / source.len() as f64;
        if from == dtype {
            take(slice, share)?;
            continue;
        }
        let format = dtype.format().ok_or_else(|| unfit(view, format!("{dtype} is no type for weights")))?;
        let elements = slice.len() / from.block_bytes() * from.block_elements();
        converted.resize(bytes_in(dtype, elements), 0);
        let parts = slice.par_chunks(bytes_in(from, CHUNK)).zip(converted.par_chunks_mut(bytes_in(dtype, CHUNK)));
        parts.enumerate().try_for_each_init(
            || vec![0.0; CHUNK],
            |values, (part, (bytes, out))| {
                let values = &mut values[..bytes.len() / from.block_bytes() * from.block_elements()];
                view.read_f32(bytes, values)?;
                format.quantise_row(values, out).map_err(|error| {
                    let first = index * SLICE + part * CHUNK;
                    unfit(view, describe_failure(&error, first))
                })
            },
        )?;
        take(&converted, share)?;
    }
    Ok(())
}

/// The kernel's message, with the element's place in the tensor, as the kernel saw a part that begins at `first`.
fn describe_failure(error: &lumina_kernels::Error, first: usize) -> String {
    match error {
        lumina_kernels::Error::Value { format, element, value } => {
            format!("element {} is {value}, which {format} cannot hold", first + element)
        }
        other => other.to_string(),
    }
}

/// The shape of a QK-norm with a row a head, held against the projection before it: what a config says of heads must not
/// make much of a small file.
fn norm_of_each_head(checkpoint: &Checkpoint, view: &TensorView, n_heads: usize) -> Result<Vec<usize>> {
    let projection = view.name().rsplit_once("_norm.").map(|(stem, _)| format!("{stem}_proj.weight"));
    let projection = projection.and_then(|name| checkpoint.get(&name));
    let outputs = projection.and_then(|projection| projection.shape().first().copied());
    match *view.shape() {
        [_, width] if outputs.is_some() && n_heads.checked_mul(width) == outputs => Ok(vec![n_heads, width]),
        ref shape => {
            let outputs = outputs.unwrap_or_default();
            Err(unfit(view, format!("shape {shape:?} does not fit {n_heads} heads of a projection to {outputs}")))
        }
    }
}

/// The elements of a tensor of queries or keys in llama.cpp's order, in the view's type; norms with a row a head.
fn in_pairs(view: &TensorView, rotated: Rotated, n_heads: usize) -> Result<Bytes> {
    let shape = view.shape();
    let bytes = view.bytes();
    let refuse = || unfit(view, format!("shape {shape:?} does not fit {n_heads} heads of an even width"));
    let dtype = view.dtype();
    if rotated.norm {
        let &[rows, width] = shape else { return Err(refuse()) };
        let heads = Heads::new(width, dtype.block_bytes()).filter(|_| !dtype.is_quantised()).ok_or_else(refuse)?;
        if rows == 0 || !n_heads.is_multiple_of(rows) {
            return Err(refuse());
        }
        let ordered = heads.halves_to_pairs(bytes);
        let each = n_heads / rows;
        let repeated = ordered.chunks(width * dtype.block_bytes()).flat_map(|row| std::iter::repeat_n(row, each));
        return Ok(repeated.flatten().copied().collect::<Vec<u8>>().into());
    }
    let rows = *shape.first().filter(|rows| rows.is_multiple_of(n_heads)).ok_or_else(refuse)?;
    let unit_bytes = bytes.len() / rows.max(1);
    let whole = unit_bytes * rows == bytes.len() && !(shape.len() == 1 && dtype.is_quantised());
    let heads = Heads::new(rows / n_heads, unit_bytes).filter(|_| whole).ok_or_else(refuse)?;
    Ok(heads.halves_to_pairs(bytes).into())
}

fn unfit(view: &TensorView, reason: String) -> Error {
    Error::Quantise { file: view.file().to_owned(), tensor: view.name().to_owned(), reason }
}
