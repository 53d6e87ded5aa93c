//! Working memory that a thread keeps from call to call, so that a step of decoding allocates nothing.

use std::cell::Cell;

/// A vector in memory, on one cache line: 16 `f32`, 16 pairs of `bf16`, or 16 groups of four 8-bit integers.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Lanes(pub(crate) [u32; 16]);

impl Lanes {
    pub(crate) const COUNT: usize = 16;
    pub(crate) const ZERO: Self = Self([0; 16]);

    /// The bytes of all lanes.
    pub(crate) fn bytes_mut(lanes: &mut [Self]) -> &mut [u8] {
        #[allow(unsafe_code, reason = "an array of words is an array of bytes")]
        // SAFETY: a `Lanes` is 64 bytes and nothing else, of any pattern; bytes need no alignment. The result keeps the
        // borrow.
        unsafe {
            std::slice::from_raw_parts_mut(lanes.as_mut_ptr().cast(), size_of_val(lanes))
        }
    }

    /// The words of all lanes.
    pub(crate) fn words_mut(lanes: &mut [Self]) -> &mut [u32] {
        #[allow(unsafe_code, reason = "an array of arrays is an array")]
        // SAFETY: a `Lanes` is 16 words and nothing else, aligned at least as words are. The result keeps the borrow.
        unsafe {
            std::slice::from_raw_parts_mut(lanes.as_mut_ptr().cast(), lanes.len() * Self::COUNT)
        }
    }
}

/// What a thread keeps at most for a purpose. The memory of a prefill is returned to the system.
const MAX_KEPT: usize = (8 << 20) / size_of::<Lanes>();

/// A thread may use several memories at once: it may wait for its tasks as a caller, and run one of them as a worker.
#[derive(Clone, Copy)]
pub(crate) enum Purpose {
    /// Packed activations, by the caller.
    Activations,
    /// Packed weights and sums, by a task.
    Panels,
    /// Copies of the rows of a small matrix, by a task.
    Rows,
}

thread_local! {
    static KEPT: [Cell<Vec<Lanes>>; 3] = const { [const { Cell::new(Vec::new()) }; 3] };
}

/// Calls `work` with `count` lanes of arbitrary content. A nested call for the same purpose gets other memory.
pub(crate) fn with<R>(purpose: Purpose, count: usize, work: impl FnOnce(&mut [Lanes]) -> R) -> R {
    let mut lanes = KEPT.with(|kept| kept[purpose as usize].take());
    if lanes.len() < count {
        lanes.resize(count, Lanes::ZERO);
    }
    let result = work(&mut lanes[..count]);
    if lanes.len() <= MAX_KEPT {
        KEPT.with(|kept| kept[purpose as usize].set(lanes));
    }
    result
}
