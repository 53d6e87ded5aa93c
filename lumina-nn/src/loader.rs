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

use crate::ops::low_rank::LowRank;
#[cfg(feature = "cube")]
use crate::ops::weight::GpuMatrix;
use crate::ops::weight::Weight;
use crate::ops::{Codebook, Conv2d, Embedding, HostMatrix, Linear, Values};
use crate::{Compute, Error, Residence, Result, Role, Weights};
#[cfg(feature = "cube")]
use lumina_checkpoint::gguf::quantise_rows;
use lumina_checkpoint::gguf::quantise_tensor;
use lumina_checkpoint::{Adapter, Checkpoint, Dtype, TensorView};

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
    adapter: Option<&'a Adapter>,
    target: Rc<Target>,
    shared: Rc<Shared<'a>>,
}

/// Where tensors go.
struct Target {
    compute: Compute,
    /// Where weights go on a GPU.
    #[cfg(feature = "cube")]
    arena: RefCell<Option<lumina_cube::Arena>>,
}

impl Target {
    fn new(compute: &Compute) -> Rc<Self> {
        Rc::new(Self {
            compute: compute.clone(),
            #[cfg(feature = "cube")]
            arena: RefCell::default(),
        })
    }
}

struct Shared<'a> {
    /// Without one only the names and shapes are wanted.
    checkpoint: Option<&'a Checkpoint>,
    state: RefCell<State>,
    progress: Option<&'a dyn Fn(LoadProgress)>,
}

/// What a tensor belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Model,
    Adapter,
}

#[derive(Default)]
struct State {
    asked: BTreeMap<String, Vec<usize>>,
    /// Paths of the linear layers, with `[outputs, inputs]`.
    linear: BTreeMap<String, [usize; 2]>,
    problems: Problems,
    names: HashMap<ParamId, String>,
    bytes: u64,
    /// Why no more weights go there.
    #[cfg(feature = "cube")]
    gpu_error: Option<lumina_cube::Error>,
}

impl State {
    /// Whether the network cannot be made, and no more is to be looked at.
    fn is_hopeless(&self) -> bool {
        #[cfg(feature = "cube")]
        if self.gpu_error.is_some() {
            return true;
        }
        self.problems.n > Problems::SHOWN
    }
}

/// What does not fit: how much, and the first of it.
#[derive(Default, Clone)]
struct Problems {
    n: usize,
    first: Vec<String>,
    /// Whether parts of the network were not looked at.
    stopped: bool,
}

impl Problems {
    /// How many are listed. With more, a network is not looked at further.
    const SHOWN: usize = 20;

    fn add(&mut self, problem: impl FnOnce() -> String) {
        if self.n < Self::SHOWN {
            self.first.push(problem());
        }
        self.n += 1;
    }
}

impl<'a> Loader<'a> {
    /// A loader of this checkpoint's tensors.
    pub fn new(checkpoint: &'a Checkpoint, compute: &Compute) -> Self {
        Self::with(Some(checkpoint), compute, None)
    }

    /// Like [`Loader::new`], calling `progress` for each tensor.
    pub fn with_progress(checkpoint: &'a Checkpoint, compute: &Compute, progress: &'a dyn Fn(LoadProgress)) -> Self {
        Self::with(Some(checkpoint), compute, Some(progress))
    }

    /// Names and shapes of the tensors that the network built by `build` asks for, in the order of their names.
    pub fn shapes_of<T>(compute: &Compute, build: impl FnOnce(&Loader<'_>) -> T) -> BTreeMap<String, Vec<usize>> {
        let loader = Loader::with(None, compute, None);
        build(&loader);
        loader.shared.state.take().asked
    }

    /// Paths and `[outputs, inputs]` of the linear layers that the network built by `build` has.
    pub fn linear_layers_of<T>(
        compute: &Compute,
        build: impl FnOnce(&Loader<'_>) -> T,
    ) -> BTreeMap<String, [usize; 2]> {
        let loader = Loader::with(None, compute, None);
        build(&loader);
        loader.shared.state.take().linear
    }

    /// The loader of a network with an adapter on it. Its own parameters are frozen then: on a device that records
    /// gradients only the adapter's have any, and only they have names.
    ///
    /// Frozen parameters are in the compute type even with [`Compute::master_weights`], since no update rounds away.
    #[must_use]
    pub fn with_adapter(self, adapter: &'a Adapter) -> Self {
        Self { adapter: Some(adapter), ..self }
    }

    fn with(checkpoint: Option<&'a Checkpoint>, compute: &Compute, progress: Option<&'a dyn Fn(LoadProgress)>) -> Self {
        let shared = Shared { checkpoint, state: RefCell::default(), progress };
        Self { prefix: String::new(), adapter: None, target: Target::new(compute), shared: Rc::new(shared) }
    }

    /// The loader of the names below `name`.
    #[must_use]
    pub fn pp(&self, name: impl Display) -> Self {
        Self { prefix: self.path(name), ..self.clone() }
    }

    /// The loader of the same names, whose tensors go elsewhere: for a network that is in several places.
    #[must_use]
    pub fn on(&self, compute: &Compute) -> Self {
        Self { target: Target::new(compute), ..self.clone() }
    }

    /// The loader of these names, whose tensors go where those of `other` go.
    #[must_use]
    pub fn like(&self, other: &Self) -> Self {
        Self { target: other.target.clone(), ..self.clone() }
    }

    /// `n` parts of a network that are numbered, as layers are: `part` gets the loader of each and its number.
    ///
    /// Where more is missing or misshaped than [`Loader::finish`] lists, the list ends early, and `finish` fails. So a
    /// number in a config costs no more than the tensors that are there.
    pub fn parts<T>(&self, n: usize, mut part: impl FnMut(&Self, usize) -> T) -> Vec<T> {
        let mut parts = Vec::new();
        for index in 0..n {
            if self.shared.state.borrow().is_hopeless() {
                self.shared.state.borrow_mut().problems.stopped = true;
                break;
            }
            parts.push(part(&self.pp(index), index));
        }
        parts
    }

    /// Where the network will compute.
    pub fn compute(&self) -> &Compute {
        &self.target.compute
    }

    /// The checkpoint; `None` where only names and shapes are wanted.
    pub fn checkpoint(&self) -> Option<&'a Checkpoint> {
        self.shared.checkpoint
    }

    /// The adapter that is put on the network.
    pub fn adapter(&self) -> Option<&'a Adapter> {
        self.adapter
    }

    /// Whether the checkpoint has a tensor of this name, which makes an optional part present.
    pub fn contains(&self, name: impl Display) -> bool {
        self.checkpoint().is_some_and(|checkpoint| checkpoint.contains(&self.path(name)))
    }

    /// The shape that the checkpoint gives a tensor, where several layouts are known.
    pub fn shape(&self, name: impl Display) -> Option<Vec<usize>> {
        self.checkpoint()?.get(&self.path(name)).map(|view| view.shape().to_vec())
    }

    /// A parameter in the type that [`Compute::master_weights`] chose, by default the compute type.
    pub fn param<const D: usize>(&self, name: impl Display, shape: [usize; D]) -> Param<Tensor<D>> {
        let path = self.path(name);
        let view = self.view(&path, &shape, Part::Model);
        self.parameter(path, view, Part::Model)
    }

    /// A small parameter, such as the weight of a norm: as [`Loader::param`], or in host memory where activations are
    /// there too.
    pub fn values<const D: usize>(&self, name: impl Display, shape: [usize; D]) -> Values<D> {
        let path = self.path(name);
        let view = self.view(&path, &shape, Part::Model);
        let device = self.target.compute.device();
        if self.target.compute.is_host()
            && let Some(view) = &view
        {
            return Values::host(floats(view), shape, device);
        }
        #[cfg(feature = "cube")]
        if self.target.compute.gpu().is_some() {
            let upload = |view| self.on_gpu(|gpu| Ok(Values::on_gpu(gpu, &floats(view), shape, device)));
            // `finish` fails without.
            return view.as_ref().and_then(upload).unwrap_or_else(|| Values::Tensor(self.placeholder()));
        }
        Values::Tensor(self.parameter(path, view, Part::Model))
    }

    /// The parameter of a tensor; its name is remembered unless it is frozen.
    fn parameter<const D: usize>(&self, path: String, view: Option<TensorView>, part: Part) -> Param<Tensor<D>> {
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
        Param::from_tensor(Tensor::zeros([1; D], (compute.device(), compute.parameter_dtype())))
    }

    /// The checkpoint's names of the parameters made so far, under which training saves them. A weight in host memory
    /// is no parameter, and one tensor asked for twice is two parameters of one name. Under an adapter they are the
    /// adapter's alone.
    pub fn parameter_names(&self) -> HashMap<ParamId, String> {
        self.shared.state.borrow().names.clone()
    }

    /// A linear layer: `weight` `[outputs, inputs]` and, if asked, `bias` `[outputs]`; with the adapter's matrices
    /// where it has any for this layer.
    pub fn linear(&self, inputs: usize, outputs: usize, bias: bool) -> Linear {
        self.linear_of(Role::Linear, inputs, outputs, bias)
    }

    /// [`Loader::linear`] without bias, for the layer that gives logits: [`Role::Head`] decides its format.
    pub fn head(&self, inputs: usize, outputs: usize) -> Linear {
        self.linear_of(Role::Head, inputs, outputs, false)
    }

    /// A convolution with its bias: `weight` `[outputs, inputs, kernel, kernel]`, `bias` `[outputs]`; the kernel is 1
    /// or 3 wide.
    pub fn conv(&self, inputs: usize, outputs: usize, kernel: usize) -> Conv2d {
        let shape = [outputs, inputs, kernel, kernel];
        #[cfg(feature = "cube")]
        if self.target.compute.gpu().is_some() {
            let values = self.floats("weight", &shape).zip(self.floats("bias", &[outputs]));
            let conv = |(weight, bias): (Vec<f32>, Vec<f32>)| {
                self.on_gpu(|gpu| lumina_cube::conv::ConvWeights::new(gpu, shape, &weight, &bias))
            };
            return match values.and_then(conv) {
                Some(weights) => Conv2d::on_gpu(weights),
                // `finish` fails then.
                None => Conv2d::new(self.placeholder(), self.placeholder(), kernel),
            };
        }
        Conv2d::new(self.param("weight", shape), self.param("bias", [outputs]), kernel)
    }

    /// A codebook, `[codes, width]`.
    pub fn codebook(&self, name: impl Display, [codes, width]: [usize; 2]) -> Codebook {
        #[cfg(feature = "cube")]
        if let Some(gpu) = self.target.compute.gpu() {
            let codebook =
                |entries: Vec<f32>| self.on_gpu(|gpu| lumina_cube::conv::Codebook::new(gpu, [codes, width], &entries));
            return match self.floats(name, &[codes, width]).and_then(codebook) {
                Some(codebook) => Codebook::on_gpu(gpu, codebook, self.target.compute.device()),
                // `finish` fails then.
                None => Codebook::new(self.placeholder()),
            };
        }
        Codebook::new(self.param(name, [codes, width]))
    }

    /// The values of a tensor in `f32`, if it is there in this shape.
    #[cfg(feature = "cube")]
    fn floats(&self, name: impl Display, shape: &[usize]) -> Option<Vec<f32>> {
        self.view(&self.path(name), shape, Part::Model).as_ref().map(floats)
    }

    /// What goes to a GPU, unless its memory is full.
    #[cfg(feature = "cube")]
    fn on_gpu<T>(&self, upload: impl FnOnce(&lumina_cube::Gpu) -> lumina_cube::Result<T>) -> Option<T> {
        let gpu = self.target.compute.gpu()?;
        if self.shared.state.borrow().gpu_error.is_some() {
            return None;
        }
        // In a turn, so that it goes into no recording of another model on the device.
        let _turn = gpu.turn();
        upload(gpu).map_err(|error| self.shared.state.borrow_mut().gpu_error = Some(error)).ok()
    }

    fn linear_of(&self, role: Role, inputs: usize, outputs: usize, bias: bool) -> Linear {
        self.shared.state.borrow_mut().linear.insert(self.prefix.clone(), [outputs, inputs]);
        let weight = self.weight(self.path("weight"), [outputs, inputs], Part::Model, Some(role));
        let low_rank = self.adapter.filter(|adapter| adapter.adapts(&self.prefix)).map(|adapter| {
            let [a, b] = Adapter::tensor_names(&self.prefix);
            let a = self.weight(a, [adapter.rank(), inputs], Part::Adapter, None);
            let b = self.weight(b, [outputs, adapter.rank()], Part::Adapter, None);
            LowRank::new(a, b, adapter.scale())
        });
        Linear::new(weight, bias.then(|| self.values("bias", [outputs])), low_rank)
    }

    /// An embedding table: `weight` `[entries, width]`.
    pub fn embedding(&self, entries: usize, width: usize) -> Embedding {
        self.embedding_of(Role::Embedding, entries, width)
    }

    /// [`Loader::embedding`] whose table is also the weight of the [head](Loader::head), and has its format.
    pub fn tied_embedding(&self, entries: usize, width: usize) -> Embedding {
        self.embedding_of(Role::Head, entries, width)
    }

    fn embedding_of(&self, role: Role, entries: usize, width: usize) -> Embedding {
        if let Some(target) = self.adapter.and_then(|adapter| adapter.target_of(&self.prefix)) {
            let problem = format!("`{target}`, one of `target_modules`, is an embedding, not a linear layer");
            self.shared.state.borrow_mut().problems.add(|| problem);
        }
        Embedding::new(self.weight(self.path("weight"), [entries, width], Part::Model, Some(role)), entries)
    }

    /// A tensor as a matrix, where the compute target wants it. Without a role it stays in the type of the file.
    fn weight(&self, path: String, shape: [usize; 2], part: Part, role: Option<Role>) -> Weight {
        let view = self.view(&path, &shape, part);
        #[cfg(feature = "cube")]
        if self.target.compute.gpu().is_some() {
            return match view.and_then(|view| self.gpu_matrix(&view, role)) {
                Some(matrix) => Weight::Gpu(matrix),
                // `finish` fails then.
                None => Weight::Burn(self.placeholder()),
            };
        }
        match self.target.compute.residence() {
            Residence::Mapped | Residence::Host => match view.as_ref().and_then(|view| self.matrix(view, role)) {
                Some(matrix) => Weight::Host(matrix),
                None => Weight::Burn(self.parameter(path, view, part)),
            },
            Residence::Device => Weight::Burn(self.parameter(path, view, part)),
        }
    }

    /// A tensor on a GPU, in its own format or quantised; `None`, with the problem noted, where it cannot be.
    #[cfg(feature = "cube")]
    fn gpu_matrix(&self, view: &TensorView, role: Option<Role>) -> Option<GpuMatrix> {
        use lumina_cube::Format;
        let (dtype, format) = match self.matrix_dtype(view, role) {
            dtype @ Dtype::F16 => (dtype, Format::F16),
            dtype @ Dtype::BF16 => (dtype, Format::BF16),
            dtype @ Dtype::Q8_0 => (dtype, Format::Q8_0),
            dtype @ Dtype::Q4_0 => (dtype, Format::Q4_0),
            // Other formats of blocks become the one that loses least of them.
            other if other.is_quantised() => (Dtype::Q8_0, Format::Q8_0),
            _ => (Dtype::F32, Format::F32),
        };
        let shape = [view.shape()[0], view.shape()[1]];
        let gpu = self.target.compute.gpu()?;
        if self.shared.state.borrow().gpu_error.is_some() {
            return None;
        }
        let mut arena = self.target.arena.borrow_mut();
        let arena = arena.get_or_insert_with(|| lumina_cube::Arena::new(gpu));
        match arena.matrix_of_rows(format, shape, |rows| Ok(quantise_rows(view, rows, dtype)?)) {
            Ok(matrix) => return Some(GpuMatrix { matrix }),
            Err(Error::Gpu(error)) => self.shared.state.borrow_mut().gpu_error = Some(error),
            Err(error) => self.shared.state.borrow_mut().problems.add(|| error.to_string()),
        }
        None
    }

    /// The type in which a tensor becomes a matrix: its own, unless a smaller one is asked for.
    fn matrix_dtype(&self, view: &TensorView, role: Option<Role>) -> Dtype {
        role.and_then(|role| smaller(self.target.compute.format(), role, view)).unwrap_or(view.dtype())
    }

    /// The bytes of a tensor in a type; `None`, with the problem noted, where a number does not fit it.
    fn quantised(&self, view: &TensorView, dtype: Dtype) -> Option<bytes::Bytes> {
        quantise_tensor(view, dtype)
            .map_err(|error| self.shared.state.borrow_mut().problems.add(|| error.to_string()))
            .ok()
    }

    /// A tensor in host memory, in its own format or quantised; `None` where kernels cannot read it.
    fn matrix(&self, view: &TensorView, role: Option<Role>) -> Option<HostMatrix> {
        let compute = &self.target.compute;
        let dtype = self.matrix_dtype(view, role);
        // A type that kernels do not read becomes one that they do.
        let dtype = if dtype.format().is_none() { Dtype::F32 } else { dtype };
        let bytes = self.quantised(view, dtype)?;
        let is_mapped = dtype == view.dtype();
        let bytes = match compute.residence() {
            Residence::Host if is_mapped => bytes::Bytes::copy_from_slice(&bytes),
            _ => bytes,
        };
        HostMatrix::new(dtype.format()?, view.shape(), bytes, compute.activations())
    }

    /// A tensor, if it is there in this shape and of floats or quantised; the problem is noted otherwise.
    fn view(&self, path: &str, shape: &[usize], part: Part) -> Option<TensorView> {
        let mut state = self.shared.state.borrow_mut();
        state.asked.insert(path.to_owned(), shape.to_vec());
        let checkpoint = match (part, self.adapter) {
            (Part::Adapter, Some(adapter)) => adapter.checkpoint(),
            _ => self.checkpoint()?,
        };
        let Some(view) = checkpoint.get(path) else {
            let file = checkpoint.path().display();
            let target =
                self.adapter.filter(|_| part == Part::Adapter).and_then(|adapter| adapter.target_of(&self.prefix));
            let why = target.map(|target| format!(": `{target}` is one of `target_modules`")).unwrap_or_default();
            state.problems.add(|| format!("`{path}` {shape:?} is missing from {file}{why}"));
            return None;
        };
        let file = view.file().display();
        if view.shape() != shape {
            let found = view.shape();
            state.problems.add(|| format!("`{path}` has shape {found:?} in {file}, expected {shape:?}"));
            return None;
        }
        if !view.dtype().is_float() && !view.dtype().is_quantised() {
            let found = view.dtype();
            state.problems.add(|| format!("`{path}` has type {found} in {file}, expected a float or quantised type"));
            return None;
        }
        state.bytes += view.bytes().len() as u64;
        let progress = LoadProgress { tensor: path.to_owned(), bytes: state.bytes };
        drop(state);
        if let Some(report) = self.shared.progress {
            report(progress);
        }
        Some(view)
    }

    fn path(&self, name: impl Display) -> String {
        if self.prefix.is_empty() { name.to_string() } else { format!("{}.{name}", self.prefix) }
    }

    /// Reports every tensor that was missing or misshaped, and those of checkpoint and adapter that nobody asked for.
    ///
    /// `ignored` says which of the checkpoint's other tensors are known and not for this network.
    ///
    /// # Errors
    /// [`Error::Weights`] with one line a problem, each naming tensor, file and shapes; `Error::Gpu` where its memory
    /// is full.
    pub fn finish(&self, ignored: impl Fn(&str) -> bool) -> Result<()> {
        let Some(checkpoint) = self.checkpoint() else { return Ok(()) };
        #[cfg(feature = "cube")]
        if let Some(error) = self.shared.state.borrow_mut().gpu_error.take() {
            return Err(error.into());
        }
        let state = self.shared.state.borrow();
        let mut problems = state.problems.clone();
        let unasked = |name: &&str| !state.asked.contains_key(*name);
        let of_model = checkpoint.names().filter(|name| unasked(name) && !ignored(name));
        let of_adapter = self.adapter.map(|adapter| adapter.checkpoint().names().filter(unasked));
        let views = of_model.filter_map(|name| checkpoint.get(name));
        let views =
            views.chain(of_adapter.into_iter().flatten().filter_map(|name| self.adapter?.checkpoint().get(name)));
        // Where parts were not looked at, it is not known what belongs to none.
        for view in views.take(if problems.stopped { 0 } else { usize::MAX }) {
            let (name, shape, file) = (view.name(), view.shape(), view.file().display());
            problems.add(|| format!("`{name}` {shape:?} in {file} belongs to no part of this model"));
        }
        if problems.n == 0 {
            return Ok(());
        }
        let mut list = String::new();
        for problem in &problems.first {
            let _ = write!(list, "\n  {problem}");
        }
        let more = problems.n - problems.first.len();
        let _ = match (more, problems.stopped) {
            (0, _) => Ok(()),
            (more, false) => write!(list, "\n  … and {more} more"),
            (more, true) => write!(list, "\n  … and {more} more; the rest was not looked at"),
        };
        Err(Error::Weights { file: checkpoint.path().to_owned(), n_problems: problems.n, list })
    }
}

/// The values of a tensor that [`Loader::view`] gives.
fn floats(view: &TensorView) -> Vec<f32> {
    view.to_f32().expect("`view` gives floats and quantised types alone, which have values")
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
    Tensor::from_data(data.convert_dtype(dtype), (compute.device(), dtype))
}

/// The type that a tensor is converted to; `None` where it stays, as the other type is no smaller or cannot hold its
/// shape.
fn smaller(weights: Weights, role: Role, view: &TensorView) -> Option<Dtype> {
    let dtype = weights.dtype_of(role)?;
    (dtype.bytes_of(view.shape())? < view.bytes().len()).then_some(dtype)
}
