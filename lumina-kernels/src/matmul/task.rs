//! A weight matrix and the memory for its result.

use std::mem::MaybeUninit;

use crate::Matrix;
use crate::memory::SharedOutput;
use crate::scratch::Lanes;

/// A weight matrix and the memory for its product with activations.
#[derive(Debug)]
pub struct MatmulTask<'a> {
    weight: Matrix<'a>,
    output: SharedOutput<'a>,
}

impl<'a> MatmulTask<'a> {
    /// `output` is `[n, rows]`, for `n` rows of activations.
    pub fn new(weight: Matrix<'a>, output: &'a mut [f32]) -> Self {
        Self { weight, output: SharedOutput::from_initialised(output) }
    }

    /// `output` is `[n, rows]`, and need not be initialised: where there are columns, all of it is written.
    pub(super) fn in_room(weight: Matrix<'a>, output: &'a mut [MaybeUninit<f32>]) -> Self {
        Self { weight, output: SharedOutput::new(output) }
    }

    pub(super) fn weight(&self) -> Matrix<'a> {
        self.weight
    }

    /// Number of values of the result.
    pub(super) fn len(&self) -> usize {
        self.output.len()
    }

    /// Stores zeros.
    pub(super) fn clear(&mut self) {
        self.output.fill(0.0);
    }

    /// Stores up to 16 results, as bits of `f32`, for activation row `row`, from weight row `first` on, as far as there
    /// are weight rows.
    ///
    /// # Safety
    ///
    /// No other thread stores results for these weight rows.
    #[allow(unsafe_code, reason = "threads write disjoint parts of one result")]
    pub(super) unsafe fn store(&self, row: usize, first: usize, bits: &[u32]) {
        let rows = self.weight.rows();
        let count = bits.len().min(rows.saturating_sub(first));
        if count == 0 {
            return;
        }
        let start = row * rows + first;
        // SAFETY: the caller is the only one to write these places.
        unsafe {
            if let Ok(bits) = <&[u32; Lanes::COUNT]>::try_from(bits)
                && count == Lanes::COUNT
            {
                // Of constant length, which takes no call.
                self.output.write(start, &bits.map(f32::from_bits));
            } else {
                let mut values = [0.0; Lanes::COUNT];
                values.iter_mut().zip(bits).for_each(|(value, &bits)| *value = f32::from_bits(bits));
                self.output.write(start, &values[..count]);
            }
        }
    }
}
