//! Rows of a matrix by index.

use std::sync::Arc;

use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;

use super::{Kernel, Operand, run, tensor, tensor_like, values};

pub(in crate::ops) fn gather(x: &Tensor<2>, indices: &[u32]) -> Option<Tensor<2>> {
    run(Gather { indices: indices.into(), width: x.dims()[1] }, [Operand::of(x)?])
}

#[derive(Debug, Clone)]
struct Gather {
    indices: Arc<[u32]>,
    width: usize,
}

impl Kernel<1> for Gather {
    type Saved = ();

    fn forward(&self, [x]: &[FlexTensor; 1]) -> (FlexTensor, ()) {
        let (x, width) = (values(x), self.width);
        let mut rows = Vec::with_capacity(self.indices.len() * width);
        for &index in &*self.indices {
            rows.extend_from_slice(&x[index as usize * width..][..width]);
        }
        (tensor(rows, &[self.indices.len(), width]), ())
    }

    fn backward(&self, [x]: &[FlexTensor; 1], (): (), dy: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
        let mut dx = vec![0.0; values(x).len()];
        for (&index, dy) in self.indices.iter().zip(values(&dy).chunks_exact(self.width.max(1))) {
            let to = &mut dx[index as usize * self.width..][..self.width];
            to.iter_mut().zip(dy).for_each(|(to, dy)| *to += dy);
        }
        [Some(tensor_like(dx, x))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_and_their_gradients_go_back() {
        let inputs = [tensor((0..6).map(|value| value as f32).collect(), &[3, 2])];
        let kernel = Gather { indices: [2, 0, 2].into(), width: 2 };
        let (y, ()) = kernel.forward(&inputs);
        assert_eq!(values(&y), [4.0, 5.0, 0.0, 1.0, 4.0, 5.0]);
        let dy = tensor(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[3, 2]);
        let [dx] = kernel.backward(&inputs, (), dy, [true]);
        assert_eq!(values(&dx.expect("is wanted")), [3.0, 4.0, 0.0, 0.0, 6.0, 8.0]);
    }
}
