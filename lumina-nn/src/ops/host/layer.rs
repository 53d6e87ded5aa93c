//! What else a layer of the transformer consists of: products, the gate, and additions to the residual stream.

use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;

use super::{Kernel, Operand, run, tensor, tensor_like, values};
use lumina_kernels::elementwise::add as add_kernel;
use lumina_kernels::elementwise::swiglu as swiglu_kernel;
use lumina_kernels::matmul::dense::Side::{Plain, Turned};
use lumina_kernels::matmul::dense::product;

pub(in crate::ops) fn swiglu(gate: &Tensor<2>, up: &Tensor<2>) -> Option<Tensor<2>> {
    if gate.dims() != up.dims() {
        return None;
    }
    run(SwiGlu, [Operand::of(gate)?, Operand::of(up)?])
}

#[derive(Debug, Clone)]
struct SwiGlu;

impl Kernel<2> for SwiGlu {
    type Saved = ();

    fn forward(&self, [gate, up]: &[FlexTensor; 2]) -> (FlexTensor, ()) {
        (tensor_like(swiglu_kernel::forward(values(gate), values(up)), gate), ())
    }

    fn backward(&self, [gate, up]: &[FlexTensor; 2], (): (), dy: FlexTensor, _: [bool; 2]) -> [Option<FlexTensor>; 2] {
        let (of_gate, of_up) = swiglu_kernel::backward(values(gate), values(up), values(&dy));
        [Some(tensor_like(of_gate, gate)), Some(tensor_like(of_up, up))]
    }
}

/// Gives `kept` back where the tensors are not of this backend.
pub(in crate::ops) fn add_kept(x: &Tensor<2>, y: &Tensor<2>, kept: Vec<u8>, scale: f64) -> Result<Tensor<2>, Vec<u8>> {
    let (Some(a), Some(b)) = (Operand::of(x), Operand::of(y)) else { return Err(kept) };
    if a.is_recorded() != b.is_recorded() {
        return Err(kept);
    }
    let kernel = AddKept { kept: kept.into(), scale: scale as f32 };
    Ok(run(kernel, [a, b]).expect("both record gradients or both do not"))
}

#[derive(Debug, Clone)]
struct AddKept {
    kept: std::sync::Arc<[u8]>,
    scale: f32,
}

impl Kernel<2> for AddKept {
    type Saved = ();

    fn forward(&self, [x, y]: &[FlexTensor; 2]) -> (FlexTensor, ()) {
        (tensor_like(add_kernel::forward(values(x), values(y), &self.kept, self.scale), x), ())
    }

    fn backward(&self, [x, _]: &[FlexTensor; 2], (): (), dy: FlexTensor, _: [bool; 2]) -> [Option<FlexTensor>; 2] {
        let of_y = add_kernel::backward(values(&dy), &self.kept, self.scale);
        [Some(dy), Some(tensor_like(of_y, x))]
    }
}

pub(in crate::ops) fn linear(x: &Tensor<2>, weight: &Tensor<2>) -> Option<Tensor<2>> {
    run(Linear, [Operand::of(x)?, Operand::of(weight)?])
}

/// Gradients by either side are products of one side with the other turned over.
#[derive(Debug, Clone)]
struct Linear;

impl Kernel<2> for Linear {
    type Saved = ();

    fn forward(&self, [x, weight]: &[FlexTensor; 2]) -> (FlexTensor, ()) {
        let [[n, inputs], [outputs, _]] = [x, weight].map(dims);
        let y = product(Plain(values(x)), Turned(values(weight)), [n, outputs, inputs]);
        (tensor(y, &[n, outputs]), ())
    }

    fn backward(
        &self,
        [x, weight]: &[FlexTensor; 2],
        (): (),
        dy: FlexTensor,
        [of_x, of_weight]: [bool; 2],
    ) -> [Option<FlexTensor>; 2] {
        let [[n, inputs], [outputs, _]] = [x, weight].map(dims);
        let dy = values(&dy);
        [
            of_x.then(|| tensor(product(Plain(dy), Plain(values(weight)), [n, inputs, outputs]), &[n, inputs])),
            of_weight.then(|| tensor(product(Turned(dy), Plain(values(x)), [outputs, inputs, n]), &[outputs, inputs])),
        ]
    }
}

fn dims(tensor: &FlexTensor) -> [usize; 2] {
    let shape = tensor.layout().shape();
    [shape[0], shape[1]]
}
