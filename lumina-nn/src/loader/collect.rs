//! Tensors by name, and what is wrong with them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::rc::Rc;

use lumina_checkpoint::{Adapter, Checkpoint, TensorView};

use crate::{Compute, Error, Result};

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
    pub(super) prefix: String,
    pub(super) adapter: Option<&'a Adapter>,
    /// Which parameters of Burn have values; all of them without it.
    #[cfg(feature = "burn")]
    pub(super) keep: Option<&'a dyn Fn(&str) -> bool>,
    pub(super) target: Rc<Target>,
    pub(super) shared: Rc<Shared<'a>>,
}

/// Where tensors go.
pub(super) struct Target {
    pub(super) compute: Compute,
    /// Where weights go on a GPU.
    #[cfg(feature = "cube")]
    pub(super) arena: RefCell<Option<lumina_cube::Arena>>,
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

pub(super) struct Shared<'a> {
    /// Without one only the names and shapes are wanted.
    checkpoint: Option<&'a Checkpoint>,
    pub(super) state: RefCell<State>,
    progress: Option<&'a dyn Fn(LoadProgress)>,
}

/// What a tensor belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Model,
    Adapter,
}

#[derive(Default)]
pub(super) struct State {
    asked: BTreeMap<String, Vec<usize>>,
    /// Paths of the linear layers, with `[outputs, inputs]`.
    pub(super) linear: BTreeMap<String, [usize; 2]>,
    pub(super) problems: Problems,
    /// Names of the parameters of Burn.
    #[cfg(feature = "burn")]
    pub(super) names: std::collections::HashMap<burn::module::ParamId, String>,
    /// Those of frozen ones.
    #[cfg(feature = "burn")]
    pub(super) frozen: std::collections::HashMap<burn::module::ParamId, String>,
    bytes: u64,
    /// Why no more weights go there.
    #[cfg(feature = "cube")]
    pub(super) gpu_error: Option<lumina_cube::Error>,
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
pub(super) struct Problems {
    n: usize,
    first: Vec<String>,
    /// Whether parts of the network were not looked at.
    stopped: bool,
}

impl Problems {
    /// How many are listed. With more, a network is not looked at further.
    const SHOWN: usize = 20;

    pub(super) fn add(&mut self, problem: impl FnOnce() -> String) {
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
        Self {
            prefix: String::new(),
            adapter: None,
            #[cfg(feature = "burn")]
            keep: None,
            target: Target::new(compute),
            shared: Rc::new(shared),
        }
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

    /// Names and shapes of the tensors asked for so far.
    pub fn shapes(&self) -> BTreeMap<String, Vec<usize>> {
        self.shared.state.borrow().asked.clone()
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

    /// A tensor, if it is there in this shape and of floats or quantised; the problem is noted otherwise.
    pub(super) fn view(&self, path: &str, shape: &[usize], part: Part) -> Option<TensorView> {
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

    pub(super) fn path(&self, name: impl Display) -> String {
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
