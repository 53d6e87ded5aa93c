//! The parts of a network from a checkpoint's tensors, where the compute target has them.

use std::fmt::Display;

use lumina_checkpoint::gguf::quantise_tensor;
use lumina_checkpoint::{Adapter, Dtype, TensorView};

use super::collect::{Loader, Part};
#[cfg(feature = "burn")]
use crate::ops::burn::TensorConv;
use crate::ops::host::{HostCodebook, HostConv};
use crate::ops::low_rank::LowRank;
use crate::ops::maps::{ConvWeights, Entries};
#[cfg(feature = "cube")]
use crate::ops::maps::{GpuConv, GpuEntries};
#[cfg(feature = "burn")]
use crate::ops::weight::BurnMatrix;
#[cfg(feature = "cube")]
use crate::ops::weight::GpuMatrix;
use crate::ops::weight::Weight;
use crate::ops::{Codebook, Conv2d, Embedding, HostMatrix, Linear, Values};
use crate::{Residence, Role, Weights};

impl Loader<'_> {
    /// A small parameter, such as the weight of a norm: in host memory, on a GPU or as a parameter of Burn, where
    /// activations are.
    pub fn values<const D: usize>(&self, name: impl Display, shape: [usize; D]) -> Values<D> {
        let path = self.path(name);
        let view = self.view(&path, &shape, Part::Model);
        #[cfg(feature = "burn")]
        if self.target.compute.is_in_tensors() {
            return Values::Tensor(self.parameter(path, view, Part::Model));
        }
        #[cfg(feature = "cube")]
        if self.target.compute.gpu().is_some()
            && let Some(own) =
                view.as_ref().and_then(|view| self.on_gpu(|gpu| Ok(Values::on_gpu(gpu, &floats(view), shape))))
        {
            return own;
        }
        // Without the values `finish` fails.
        Values::host(view.as_ref().map(floats).unwrap_or_default(), shape)
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
        #[cfg(feature = "burn")]
        if self.target.compute.is_in_tensors() {
            let conv = TensorConv::new(self.param("weight", shape), self.param("bias", [outputs]), kernel);
            return Conv2d::new(ConvWeights::Burn(conv));
        }
        // Without the values `finish` fails.
        let [weight, bias] =
            [self.floats("weight", &shape), self.floats("bias", &[outputs])].map(Option::unwrap_or_default);
        #[cfg(feature = "cube")]
        if self.target.compute.gpu().is_some()
            && !weight.is_empty()
            && !bias.is_empty()
            && let Some(own) = self.on_gpu(|gpu| lumina_cube::conv::ConvWeights::new(gpu, shape, &weight, &bias))
        {
            return Conv2d::new(ConvWeights::Gpu(GpuConv(own)));
        }
        Conv2d::new(ConvWeights::Host(HostConv::new(weight, bias, kernel)))
    }

    /// A codebook, `[codes, width]`.
    pub fn codebook(&self, name: impl Display, [codes, width]: [usize; 2]) -> Codebook {
        #[cfg(feature = "burn")]
        if self.target.compute.is_in_tensors() {
            return Codebook::new(Entries::Burn(self.param(name, [codes, width])));
        }
        // Without the values `finish` fails.
        let entries = self.floats(name, &[codes, width]).unwrap_or_default();
        #[cfg(feature = "cube")]
        if let Some(gpu) = self.target.compute.gpu()
            && !entries.is_empty()
            && let Some(codebook) = self.on_gpu(|gpu| lumina_cube::conv::Codebook::new(gpu, [codes, width], &entries))
        {
            return Codebook::new(Entries::Gpu(GpuEntries { gpu: gpu.clone(), codebook }));
        }
        Codebook::new(Entries::Host(HostCodebook::new(entries, width)))
    }

    /// The values of a tensor in `f32`, if it is there in this shape.
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
        #[cfg(feature = "burn")]
        if self.target.compute.is_in_tensors() {
            let precision = self.target.compute.activations();
            return Weight::Burn(BurnMatrix { parameter: self.parameter(path, view, part), precision });
        }
        #[cfg(feature = "cube")]
        if self.target.compute.gpu().is_some()
            && let Some(matrix) = view.as_ref().and_then(|view| self.gpu_matrix(view, role))
        {
            return Weight::Gpu(matrix);
        }
        // Without a matrix `finish` fails.
        let matrix = view.as_ref().filter(|_| self.target.compute.is_host()).and_then(|view| self.matrix(view, role));
        Weight::Host(matrix.unwrap_or_else(HostMatrix::missing))
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
        match arena.matrix_of_rows(format, shape, |rows| Ok(lumina_checkpoint::gguf::quantise_rows(view, rows, dtype)?))
        {
            Ok(matrix) => return Some(GpuMatrix { matrix }),
            Err(crate::Error::Gpu(error)) => self.shared.state.borrow_mut().gpu_error = Some(error),
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
}

/// The values of a tensor that [`Loader::view`] gives.
pub(super) fn floats(view: &TensorView) -> Vec<f32> {
    view.to_f32().expect("`view` gives floats and quantised types alone, which have values")
}

/// The type that a tensor is converted to; `None` where it stays, as the other type is no smaller or cannot hold its
/// shape.
fn smaller(weights: Weights, role: Role, view: &TensorView) -> Option<Dtype> {
    let dtype = weights.dtype_of(role)?;
    (dtype.bytes_of(view.shape())? < view.bytes().len()).then_some(dtype)
}
