//! From a checkpoint to the parameters of a network.
//!
//! A network asks the loader for each of its tensors by name and shape, in its constructor; so names and shapes are
//! written once. What is missing or misshaped is collected, and [`Loader::finish`] reports all of it together, with
//! what the network did not ask for.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fmt::{Display, Write};
use std::rc::Rc;

use burn::module::{Param, ParamId};
use burn::tensor::{Bytes, DType, Tensor, TensorData};

use crate::checkpoint::{Checkpoint, Dtype, TensorView};
use crate::ops::linear::Weight;
use crate::ops::{Embedding, Linear, MappedMatrix};
use crate::{Compute, Error, Result, Weights};

/// One step of loading, for a progress bar.
#[derive(Debug, Clone)]
pub struct LoadProgress {
    /// The tensor just loaded.
    pub tensor: String,
    /// Bytes of the checkpoint's tensors used so far.
    pub bytes: u64,
}

/// Hands out a checkpoint's tensors by name; a path of names is walked with [`Loader::pp`].
#[derive(Clone)]
pub struct Loader<'a> {
    prefix: String,
    shared: Rc<Shared<'a>>,
}

struct Shared<'a> {
    source: Source<'a>,
    compute: Compute,
    state: RefCell<State>,
    progress: Option<&'a dyn Fn(LoadProgress)>,
}

enum Source<'a> {
    Checkpoint(&'a Checkpoint),
    /// Only the names and shapes are wanted.
    Shapes,
}

#[derive(Default)]
struct State {
    asked: BTreeMap<String, Vec<usize>>,
    problems: Vec<String>,
    names: HashMap<ParamId, String>,
    bytes: u64,
}

impl<'a> Loader<'a> {
    /// A loader of this checkpoint's tensors.
    pub fn new(checkpoint: &'a Checkpoint, compute: &Compute) -> Self {
        Self::with(Source::Checkpoint(checkpoint), compute, None)
    }

    /// Like [`Loader::new`], telling `progress` of each tensor.
    pub fn with_progress(checkpoint: &'a Checkpoint, compute: &Compute, progress: &'a dyn Fn(LoadProgress)) -> Self {
        Self::with(Source::Checkpoint(checkpoint), compute, Some(progress))
    }

    /// Names and shapes of the tensors that the network built by `build` asks for, in the order of their names.
    pub fn shapes_of<T>(compute: &Compute, build: impl FnOnce(&Loader<'_>) -> T) -> BTreeMap<String, Vec<usize>> {
        let loader = Loader::with(Source::Shapes, compute, None);
        build(&loader);
        loader.shared.state.take().asked
    }

    fn with(source: Source<'a>, compute: &Compute, progress: Option<&'a dyn Fn(LoadProgress)>) -> Self {
        let shared = Shared { source, compute: compute.clone(), state: RefCell::default(), progress };
        Self { prefix: String::new(), shared: Rc::new(shared) }
    }

    /// The loader of what lies below `name`.
    #[must_use]
    pub fn pp(&self, name: impl Display) -> Self {
        Self { prefix: self.path(name), shared: self.shared.clone() }
    }

    /// Where the network will compute.
    pub fn compute(&self) -> &Compute {
        &self.shared.compute
    }

    /// Whether the checkpoint has a tensor of this name, which makes an optional part present.
    pub fn contains(&self, name: impl Display) -> bool {
        match self.shared.source {
            Source::Checkpoint(checkpoint) => checkpoint.contains(&self.path(name)),
            Source::Shapes => false,
        }
    }

    /// The shape that the checkpoint gives a tensor, where several layouts are known.
    pub fn shape(&self, name: impl Display) -> Option<Vec<usize>> {
        match self.shared.source {
            Source::Checkpoint(checkpoint) => checkpoint.get(&self.path(name)).map(|view| view.shape().to_vec()),
            Source::Shapes => None,
        }
    }

    /// A parameter in the type that [`Compute::master_weights`] chose, by default the compute type.
    pub fn param<const D: usize>(&self, name: impl Display, shape: [usize; D]) -> Param<Tensor<D>> {
        let tensor = match self.view(&name, &shape) {
            Some(view) => self.to_tensor(&view),
            None => self.placeholder(),
        };
        self.named(name, tensor)
    }

    /// The parameter of a tensor, whose name is remembered.
    fn named<const D: usize>(&self, name: impl Display, tensor: Tensor<D>) -> Param<Tensor<D>> {
        let param = Param::from_tensor(tensor);
        self.shared.state.borrow_mut().names.insert(param.id, self.path(name));
        param
    }

    /// The checkpoint's names of the parameters handed out so far: what training saves them under. A weight that stays
    /// in its mapping is no parameter, and one tensor asked for twice is two parameters of one name.
    pub fn parameter_names(&self) -> HashMap<ParamId, String> {
        self.shared.state.borrow().names.clone()
    }

    /// A linear layer: `weight` `[outputs, inputs]` and, if asked, `bias` `[outputs]`.
    pub fn linear(&self, inputs: usize, outputs: usize, bias: bool) -> Linear {
        Linear::new(self.weight([outputs, inputs]), bias.then(|| self.param("bias", [outputs])))
    }

    /// An embedding table: `weight` `[entries, width]`.
    pub fn embedding(&self, entries: usize, width: usize) -> Embedding {
        Embedding::new(self.weight([entries, width]), entries)
    }

    /// The tensor `weight` as a matrix, where the compute target wants it.
    fn weight(&self, shape: [usize; 2]) -> Weight {
        let tensor = match self.view("weight", &shape) {
            None => self.placeholder(),
            Some(view) => {
                if self.shared.compute.placement() == Weights::Mapped
                    && let Some(matrix) = MappedMatrix::new(&view)
                {
                    return Weight::Mapped(matrix);
                }
                self.to_tensor(&view)
            }
        };
        Weight::Tensor(self.named("weight", tensor))
    }

    /// The tensor `name`, if it is there in this shape and a float type; the problem is noted otherwise.
    fn view(&self, name: impl Display, shape: &[usize]) -> Option<TensorView> {
        let path = self.path(name);
        let mut state = self.shared.state.borrow_mut();
        state.asked.insert(path.clone(), shape.to_vec());
        let Source::Checkpoint(checkpoint) = self.shared.source else { return None };
        let Some(view) = checkpoint.get(&path) else {
            let file = checkpoint.path().display();
            state.problems.push(format!("`{path}` {shape:?} is missing from {file}"));
            return None;
        };
        let file = view.file().display();
        if view.shape() != shape {
            let found = view.shape();
            state.problems.push(format!("`{path}` has shape {found:?} in {file}, expected {shape:?}"));
            return None;
        }
        if !view.dtype().is_float() {
            let found = view.dtype();
            state.problems.push(format!("`{path}` has type {found} in {file}, expected a float type"));
            return None;
        }
        state.bytes += view.bytes().len() as u64;
        let progress = LoadProgress { tensor: path, bytes: state.bytes };
        drop(state);
        if let Some(report) = self.shared.progress {
            report(progress);
        }
        Some(view)
    }

    /// Copies a view into a tensor of the compute type; one tensor at a time is on the heap.
    fn to_tensor<const D: usize>(&self, view: &TensorView) -> Tensor<D> {
        let stored = match view.dtype() {
            Dtype::F64 => DType::F64,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            _ => DType::F32,
        };
        let compute = &self.shared.compute;
        let bytes = Bytes::from_bytes_vec(view.bytes().to_vec());
        let data = TensorData::from_bytes(bytes, view.shape(), stored).convert_dtype(compute.parameter_dtype());
        Tensor::from_data(data, (compute.device(), compute.parameter_dtype()))
    }

    /// Stands in for a tensor that is not there until [`Loader::finish`] says so.
    fn placeholder<const D: usize>(&self) -> Tensor<D> {
        Tensor::zeros([1; D], (self.shared.compute.device(), self.shared.compute.parameter_dtype()))
    }

    fn path(&self, name: impl Display) -> String {
        if self.prefix.is_empty() { name.to_string() } else { format!("{}.{name}", self.prefix) }
    }

    /// Reports every tensor that was missing or misshaped, and those of the checkpoint that nobody asked for.
    ///
    /// `ignored` says which of the checkpoint's other tensors are known and not for this network.
    ///
    /// # Errors
    /// [`Error::Weights`] with one line a problem, each naming tensor, file and shapes.
    pub fn finish(&self, ignored: impl Fn(&str) -> bool) -> Result<()> {
        let Source::Checkpoint(checkpoint) = self.shared.source else { return Ok(()) };
        let state = self.shared.state.borrow();
        let mut problems = state.problems.clone();
        for name in checkpoint.names().filter(|name| !state.asked.contains_key(*name) && !ignored(name)) {
            let Some(view) = checkpoint.get(name) else { continue };
            let (shape, file) = (view.shape(), view.file().display());
            problems.push(format!("`{name}` {shape:?} in {file} belongs to no part of this model"));
        }
        if problems.is_empty() {
            return Ok(());
        }
        const SHOWN: usize = 20;
        let mut list = String::new();
        for problem in problems.iter().take(SHOWN) {
            let _ = write!(list, "\n  {problem}");
        }
        if problems.len() > SHOWN {
            let _ = write!(list, "\n  … and {} more", problems.len() - SHOWN);
        }
        Err(Error::Weights { file: checkpoint.path().to_owned(), n_problems: problems.len(), list })
    }
}
