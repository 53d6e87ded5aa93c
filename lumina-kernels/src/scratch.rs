//! Working memory that a thread keeps from call to call, so that a step of decoding allocates nothing.

use std::cell::Cell;

/// Sixteen words side by side: a vector of `f32`, of pairs of `bf16`, or of quads of bytes; one cache line.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Lanes(pub(crate) [u32; 16]);

impl Lanes {
    pub(crate) const COUNT: usize = 16;
    pub(crate) const ZERO: Self = Self([0; 16]);

    /// The bytes of all lanes.
    pub(crate) fn bytes_mut(lanes: &mut [Self]) -> &mut [u8] {
        #[allow(unsafe_code, reason = "an array of words is an array of bytes")]
        // SAFETY: a `Lanes` is 64 bytes and nothing else, of any pattern; bytes ask for no alignment. The borrow is handed on.
        unsafe {
            std::slice::from_raw_parts_mut(lanes.as_mut_ptr().cast(), size_of_val(lanes))
        }
    }

    /// The words of all lanes.
    pub(crate) fn words_mut(lanes: &mut [Self]) -> &mut [u32] {
        #[allow(unsafe_code, reason = "an array of arrays is an array")]
        // SAFETY: a `Lanes` is 16 words and nothing else, at their alignment or a stricter one. The borrow is handed on.
        unsafe {
            std::slice::from_raw_parts_mut(lanes.as_mut_ptr().cast(), lanes.len() * Self::COUNT)
        }
    }
}

/// What a thread keeps at most; a prefill's memory goes back to the system.
const KEPT: usize = (8 << 20) / size_of::<Lanes>();

/// A thread may hold several at once: as the caller that waits for its tasks, and as the worker that runs one.
#[derive(Clone, Copy)]
pub(crate) enum Use {
    Input,
    Task,
    Rows,
}

thread_local! {
    static KEEP: [Cell<Vec<Lanes>>; 3] = const { [const { Cell::new(Vec::new()) }; 3] };
}

/// Calls `work` with `count` lanes of arbitrary content. A call from within `work` gets memory of its own.
pub(crate) fn with<R>(purpose: Use, count: usize, work: impl FnOnce(&mut [Lanes]) -> R) -> R {
    let mut lanes = KEEP.with(|keep| keep[purpose as usize].take());
    if lanes.len() < count {
        lanes.resize(count, Lanes::ZERO);
    }
    let result = work(&mut lanes[..count]);
    if lanes.len() <= KEPT {
        KEEP.with(|keep| keep[purpose as usize].set(lanes));
    }
    result
}
