//! A pool of memory for activations, used again from step to step.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use lumina_kernels::memory::zeros;

/// What the pool keeps at most, in bytes: what a chunk of a prompt of the largest published model needs.
const MAX_POOLED_BYTES: usize = 128 << 20;

/// A pool of buffers. It belongs to a [`Compute`](crate::Compute) and the models made with it, and is dropped with the
/// last of them.
#[derive(Default)]
pub(crate) struct Buffers {
    free: Mutex<Vec<Vec<f32>>>,
}

impl Buffers {
    /// Memory for `len` values, of arbitrary content.
    pub(crate) fn get(self: &Arc<Self>, len: usize) -> Buffer {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |(at, values): (usize, &Vec<f32>)| (values.len() >= len).then_some((values.len(), at));
        let smallest = free.iter().enumerate().filter_map(fits).min();
        let taken = smallest.map(|(_, at)| free.swap_remove(at));
        drop(free);
        Buffer { values: taken.unwrap_or_else(|| zeros(len)), len, pool: self.clone() }
    }

    /// Values that were allocated elsewhere.
    #[cfg(any(test, feature = "burn", feature = "cube"))]
    pub(crate) fn adopt(self: &Arc<Self>, values: Vec<f32>) -> Buffer {
        Buffer { len: values.len(), values, pool: self.clone() }
    }

    fn return_buffer(&self, values: Vec<f32>) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.push(values);
        let bytes = |values: &Vec<f32>| size_of::<f32>() * values.len();
        // The largest go first: the small ones are those that decoding wants.
        while free.iter().map(bytes).sum::<usize>() > MAX_POOLED_BYTES {
            if let Some((at, _)) = free.iter().enumerate().max_by_key(|(_, values)| values.len()) {
                free.swap_remove(at);
            }
        }
    }
}

/// Values whose memory returns to its pool when dropped.
pub(crate) struct Buffer {
    /// At least `len`.
    values: Vec<f32>,
    len: usize,
    pool: Arc<Buffers>,
}

impl Buffer {
    /// The pool that its memory returns to.
    pub(crate) fn pool(&self) -> &Arc<Buffers> {
        &self.pool
    }

    /// The values, and their memory with them.
    #[cfg(any(test, feature = "burn"))]
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
            self.pool.return_buffer(values);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free(buffers: &Buffers) -> Vec<usize> {
        let mut free: Vec<usize> = buffers.free.lock().unwrap().iter().map(Vec::len).collect();
        free.sort_unstable();
        free
    }

    #[test]
    fn memory_comes_back_and_the_smallest_that_fits_is_taken() {
        let buffers = Arc::new(Buffers::default());
        drop([10, 1000, 100].map(|len| buffers.get(len)));
        assert_eq!(free(&buffers), [10, 100, 1000]);
        let taken = buffers.get(50);
        assert_eq!((taken.len(), free(&buffers)), (50, vec![10, 1000]));
        drop(taken);
        assert_eq!(free(&buffers), [10, 100, 1000]);
        assert_eq!(buffers.get(2000).into_vec().len(), 2000);
        drop(buffers.adopt(vec![1.0; 7]));
        assert_eq!(free(&buffers), [7, 10, 100, 1000], "what was taken out for good is gone");
        drop(buffers.get(0));
    }

    #[test]
    fn the_largest_go_where_there_is_too_much() {
        let buffers = Arc::new(Buffers::default());
        let third = MAX_POOLED_BYTES / size_of::<f32>() / 3;
        drop([third, 10, third + 100, third - 20].map(|len| buffers.get(len)));
        assert_eq!(free(&buffers), [10, third - 20, third]);
        drop(buffers.get(MAX_POOLED_BYTES));
        assert_eq!(free(&buffers), [10, third - 20, third], "more than is kept at all");
    }
}
