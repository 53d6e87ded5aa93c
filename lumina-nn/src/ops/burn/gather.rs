//! Rows of a matrix by index, as a kernel with gradients.

use std::sync::Arc;

use super::kernel::{Array, Gradient, Kernel, View};

/// The rows of `indices`.
#[derive(Debug, Clone)]
pub(in crate::ops) struct Gather {
    pub(in crate::ops) indices: Arc<[u32]>,
    pub(in crate::ops) width: usize,
}

impl Kernel<1> for Gather {
    type Saved = ();

    fn forward(&self, [x]: [View<'_>; 1]) -> (Array, ()) {
        let mut rows = Vec::with_capacity(self.indices.len() * self.width);
        for &index in &*self.indices {
            rows.extend_from_slice(&x.values[index as usize * self.width..][..self.width]);
        }
        (Array { values: rows, shape: vec![self.indices.len(), self.width] }, ())
    }

    fn backward(&self, [x]: [View<'_>; 1], (): (), dy: &[f32], _: [bool; 1]) -> [Option<Gradient>; 1] {
        let mut dx = vec![0.0; x.values.len()];
        for (&index, dy) in self.indices.iter().zip(dy.chunks_exact(self.width.max(1))) {
            let to = &mut dx[index as usize * self.width..][..self.width];
            to.iter_mut().zip(dy).for_each(|(to, dy)| *to += dy);
        }
        [Some(dx.into())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_copied_and_their_gradients_are_summed() {
        let values: Vec<f32> = (0..6).map(|value| value as f32).collect();
        let inputs = [View { values: &values, shape: &[3, 2] }];
        let kernel = Gather { indices: [2, 0, 2].into(), width: 2 };
        let (y, ()) = kernel.forward(inputs);
        assert_eq!(y.values, [4.0, 5.0, 0.0, 1.0, 4.0, 5.0]);
        let [dx] = kernel.backward(inputs, (), &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [true]);
        let Some(Gradient::Values(dx)) = dx else { panic!("it is wanted") };
        assert_eq!(dx, [3.0, 4.0, 0.0, 0.0, 6.0, 8.0]);
    }
}
