//! Memory for activations, used again from step to step.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use lumina_kernels::memory::zeros;

/// What is kept at most, in bytes: what a chunk of a prompt of the largest published model needs.
const KEPT: usize = 128 << 20;

/// Memory that activations have left behind, for those to come. It belongs to a [`Compute`](crate::Compute) and the models that it made, and goes
/// with the last of them.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    left: Mutex<Vec<Vec<f32>>>,
}

impl Buffers {
    /// Memory for `len` values, of arbitrary content.
    pub(crate) fn get(self: &Arc<Self>, len: usize) -> Buffer {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |(at, values): (usize, &Vec<f32>)| (values.len() >= len).then_some((values.len(), at));
        let smallest = left.iter().enumerate().filter_map(fits).min();
        let taken = smallest.map(|(_, at)| left.swap_remove(at));
        drop(left);
        Buffer { values: taken.unwrap_or_else(|| zeros(len)), len, home: self.clone() }
    }

    /// Values that came from elsewhere.
    pub(crate) fn adopt(self: &Arc<Self>, values: Vec<f32>) -> Buffer {
        Buffer { len: values.len(), values, home: self.clone() }
    }

    fn give_back(&self, values: Vec<f32>) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.push(values);
        let bytes = |values: &Vec<f32>| size_of::<f32>() * values.len();
        // The largest go first: the small ones are those that decoding wants.
        while left.iter().map(bytes).sum::<usize>() > KEPT {
            if let Some((at, _)) = left.iter().enumerate().max_by_key(|(_, values)| values.len()) {
                left.swap_remove(at);
            }
        }
    }
}

/// Values whose memory goes back to where it came from.
#[derive(Debug)]
pub(crate) struct Buffer {
    /// At least `len`.
    values: Vec<f32>,
    len: usize,
    home: Arc<Buffers>,
}

impl Buffer {
    /// Where its memory goes, and more comes from.
    pub(crate) fn home(&self) -> &Arc<Buffers> {
        &self.home
    }

    /// The values, and their memory with them.
    pub(crate) fn into_vec(mut self) -> Vec<f32> {
        let mut values = std::mem::take(&mut self.values);
        values.truncate(self.len);
        values
    }
}

impl Deref for Buffer {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.values[..self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.values[..self.len]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let values = std::mem::take(&mut self.values);
        if !values.is_empty() {
            self.home.give_back(values);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(buffers: &Buffers) -> Vec<usize> {
        let mut left: Vec<usize> = buffers.left.lock().unwrap().iter().map(Vec::len).collect();
        left.sort_unstable();
        left
    }

    #[test]
    fn memory_comes_back_and_the_smallest_that_fits_is_taken() {
        let buffers = Arc::new(Buffers::default());
        drop([10, 1000, 100].map(|len| buffers.get(len)));
        assert_eq!(left(&buffers), [10, 100, 1000]);
        let taken = buffers.get(50);
        assert_eq!((taken.len(), left(&buffers)), (50, vec![10, 1000]));
        drop(taken);
        assert_eq!(left(&buffers), [10, 100, 1000]);
        assert_eq!(buffers.get(2000).into_vec().len(), 2000);
        drop(buffers.adopt(vec![1.0; 7]));
        assert_eq!(left(&buffers), [7, 10, 100, 1000], "what was taken out for good is gone");
        drop(buffers.get(0));
    }

    #[test]
    fn the_largest_go_where_there_is_too_much() {
        let buffers = Arc::new(Buffers::default());
        let third = KEPT / size_of::<f32>() / 3;
        drop([third, 10, third + 100, third - 20].map(|len| buffers.get(len)));
        assert_eq!(left(&buffers), [10, third - 20, third]);
        drop(buffers.get(KEPT));
        assert_eq!(left(&buffers), [10, third - 20, third], "more than is kept at all");
    }
}
