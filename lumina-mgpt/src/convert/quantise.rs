//! Writes a checkpoint as a GGUF file with quantised weights.

use std::ops::ControlFlow;
use std::path::Path;

use bytes::Bytes;
use lumina_checkpoint::gguf::{GgufWriter, check_finite, quantise_slices};
use lumina_checkpoint::{Checkpoint, Dtype, Error, Result, TensorView};
use lumina_nn::head_dtype;

use super::describe::{self, Config};
use super::heads::Heads;
use super::names::{Rotated, TensorRole, role, rotated, to_gguf};
use super::row_order::RowOrder;

/// The types in which the tensors of a model are written.
///
/// | tensors | type |
/// | --- | --- |
/// | weights of the linear layers of attention and MLP | as asked |
/// | head | as asked, but `q8_0` for `q4_0` ([`head_dtype`]) |
/// | embedding | as in the checkpoint; the type of the head where the two are tied |
/// | norms, biases | `f32` |
/// | others (the encoder of the image tokenizer) | as in the checkpoint |
///
/// Errors of the head reach the logits unchanged, and it is 4 % of a 7B model. A token reads one row of the embedding,
/// so quantising it saves no time. A matrix whose rows are not a whole number of blocks keeps the type of the
/// checkpoint.
///
/// ```
/// use lumina_mgpt::Dtype;
/// use lumina_mgpt::convert::QuantiseOptions;
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

    /// The order of the rows of queries and keys. With the default, [`RowOrder::HuggingFace`], this crate uses them
    /// memory-mapped, and llama.cpp refuses the file. With [`RowOrder::LlamaCpp`], llama.cpp runs the model (text only,
    /// because it hides image tokens), and this crate copies a sixth of the weights to the heap.
    #[must_use]
    pub fn row_order(self, order: RowOrder) -> Self {
        Self { row_order: order, ..self }
    }

    /// The type in which a tensor is written. `tied` says that the embedding is also the head.
    pub fn dtype(&self, view: &TensorView, tied: bool) -> Dtype {
        let head = self.head.unwrap_or(head_dtype(self.linear));
        let wanted = match role(view.name()) {
            TensorRole::Linear => self.linear,
            TensorRole::Head => head,
            TensorRole::Embedding if tied => self.embedding.unwrap_or(head),
            TensorRole::Embedding => self.embedding.unwrap_or(float_of(view)),
            TensorRole::Small => Dtype::F32,
            TensorRole::Other => return view.dtype(),
        };
        if wanted.bytes_of(view.shape()).is_some() { wanted } else { float_of(view) }
    }
}

/// The type of a tensor, or `f32` where kernels do not read it.
fn float_of(view: &TensorView) -> Dtype {
    if view.dtype().format().is_some() { view.dtype() } else { Dtype::F32 }
}

/// Progress of [`quantise`].
#[derive(Debug, Clone, Copy)]
pub struct QuantiseProgress<'a> {
    /// The tensor that is being written, by its Hugging Face name.
    pub tensor: &'a str,
    /// Bytes of the checkpoint's tensors that are done.
    pub bytes: u64,
    /// Bytes of all tensors of the checkpoint that will be written.
    pub total_bytes: u64,
}

/// Writes the model in `checkpoint` to a GGUF file at `path`: tensors, `config.json`, and the files of its tokenizer if
/// it has them.
///
/// Tensors are converted in slices, by the threads of the current rayon pool, and written one by one. The heap has one
/// slice at a time, and in llama.cpp's order one tensor of queries or keys. `progress` is called after every slice. It
/// stops the work by [`ControlFlow::Break`], and then no file is written.
///
/// The `config.json` and the tokenizer are written to the metadata. A model is then one file, and cannot be opened with
/// the tokenizer of another model by mistake. [`Checkpoint::document`] returns them after [`open`](super::open).
///
/// ```no_run
/// use std::ops::ControlFlow;
///
/// use lumina_mgpt::Dtype;
/// use lumina_mgpt::convert::{QuantiseOptions, open, quantise};
///
/// let checkpoint = open("Lumina-mGPT-7B-768")?;
/// quantise(&checkpoint, "Lumina-mGPT-7B-768-Q8_0.gguf", &QuantiseOptions::new(Dtype::Q8_0), &mut |progress| {
///     println!("{} % {}", progress.bytes * 100 / progress.total_bytes.max(1), progress.tensor);
///     ControlFlow::Continue(())
/// })?;
/// # Ok::<(), lumina_checkpoint::Error>(())
/// ```
///
/// # Errors
/// [`Error::Quantise`] where a type cannot represent the values of a tensor, or can be read only, and where a value is
/// infinite or NaN; [`Error::Unsavable`]
/// where GGUF lacks a type; [`Error::Metadata`] where `config.json` or the tokenizer cannot be used;
/// [`Error::Cancelled`]; [`Error::Write`]. An existing file at `path` then stays as it is.
pub fn quantise(
    checkpoint: &Checkpoint,
    path: impl AsRef<Path>,
    options: &QuantiseOptions,
    progress: &mut dyn FnMut(QuantiseProgress<'_>) -> ControlFlow<()>,
) -> Result<()> {
    let path = path.as_ref();
    let order = options.row_order;
    let config = Config::of(checkpoint)?;
    let metadata = describe::metadata(checkpoint, &config, options.linear, order)?;
    let tied = !checkpoint.contains("lm_head.weight");

    let mut plan = Vec::new();
    for view in checkpoint.names().filter_map(|name| checkpoint.get(name)) {
        let dtype = options.dtype(&view, tied);
        // llama.cpp refuses files with tensors that it does not know.
        let name = match (to_gguf(view.name()), order) {
            (Some(name), _) => name,
            (None, RowOrder::HuggingFace) => view.name().to_owned(),
            (None, RowOrder::LlamaCpp) => continue,
        };
        let mut shape = view.shape().to_vec();
        let rotated = rotated(view.name()).filter(|_| order == RowOrder::LlamaCpp);
        if let Some(Rotated { query, norm: true }) = rotated {
            shape = norm_of_each_head(checkpoint, &view, config.heads(query))?;
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
            Some(rotated) => in_pairs(view, *rotated, config.heads(rotated.query))?,
        };
        let mut elements = 0;
        quantise_slices(view, &source, *dtype, |converted, share| {
            check_finite(view, *dtype, converted, elements)?;
            elements += converted.len() / dtype.block_bytes() * dtype.block_elements();
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

/// The shape of a QK-norm with one row for each head. It is checked against the projection, so that a wrong number of
/// heads in a config cannot make a small file huge.
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

/// The elements of a tensor of queries or keys in llama.cpp's order and in the type of the view. Norms get one row for
/// each head.
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

/// The number of bytes of a tensor. In contrast to [`TensorView::bytes`] it copies nothing.
fn view_bytes(view: &TensorView) -> u64 {
    view.dtype().bytes_of(view.shape()).unwrap_or_default() as u64
}
