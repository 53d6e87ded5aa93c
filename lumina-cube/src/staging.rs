//! Host memory through which weights go to a device: a ring of pinned buffers, which threads fill and the device
//! empties.
//!
//! A device copies from pinned memory on its own, while the processor fills the next buffer; whatever else is handed
//! over, CubeCL first copies to such memory on its one thread. Where a device has no pinned memory, buffers of the ring
//! are on the heap. CubeCL keeps pinned memory that is free again for the next ring.

use std::sync::mpsc::{Receiver, Sender, channel};

use cubecl::bytes::{AllocationProperty, Bytes};
use rayon::prelude::*;

use crate::gpu::{Buffer, WORD};
use crate::{Error, Gpu, Result};

/// Bytes of a buffer of the ring. CubeCL waits for the copy before at each that is larger than 10 MB.
const SLOT: usize = 8 << 20;

/// Buffers that are filled before the device is waited for. As many again are being copied meanwhile.
const BATCH: usize = 4;

/// Bytes that one thread fills at a time: whole blocks of every format.
const CHUNK: usize = 1 << 19;

/// The ring. Its memory is taken when it is first needed, and at most twice a batch.
pub(crate) struct Staging {
    gpu: Gpu,
    /// Buffers whose copy is done.
    free: Receiver<Bytes>,
    back: Sender<Bytes>,
    made: usize,
    /// Whether all of it is pinned.
    is_pinned: bool,
    /// Buffers filled since the device was last waited for.
    filled: usize,
}

/// A filled buffer, which CubeCL drops when the device has copied it: then it is free.
struct Slot {
    memory: Bytes,
    len: usize,
    back: Sender<Bytes>,
}

impl AsRef<[u8]> for Slot {
    fn as_ref(&self) -> &[u8] {
        &self.memory[..self.len]
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let memory = std::mem::replace(&mut self.memory, Bytes::from_bytes_vec(Vec::new()));
        // Nobody waits for it where the ring is gone.
        let _ = self.back.send(memory);
    }
}

impl Staging {
    pub(crate) fn new(gpu: &Gpu) -> Self {
        let (back, free) = channel();
        Self { gpu: gpu.clone(), free, back, made: 0, is_pinned: true, filled: 0 }
    }

    /// Overwrites a buffer. `fill` is called on the threads of the current rayon pool, with parts of the bytes and
    /// where each begins, a multiple of half a megabyte; it writes all of them. The device has its [turn](Gpu::turn) in
    /// between.
    pub(crate) fn upload(&mut self, buffer: &Buffer, fill: impl Fn(usize, &mut [u8]) + Sync) -> Result<()> {
        let gpu = self.gpu.clone();
        let len = buffer.len() * WORD;
        for first in (0..len).step_by(BATCH * SLOT) {
            let starts = (first..len.min(first + BATCH * SLOT)).step_by(SLOT);
            let turn = gpu.turn();
            if self.filled + starts.len() > BATCH {
                self.wait()?;
            }
            let mut slots = Vec::with_capacity(BATCH);
            for start in starts {
                slots.push((start, SLOT.min(len - start), self.take()?));
            }
            drop(turn);
            let chunks = slots.par_iter_mut().flat_map(|(start, len, memory)| {
                let chunks = memory[..*len].par_chunks_mut(CHUNK).enumerate();
                chunks.map(|(index, chunk)| (*start + index * CHUNK, chunk))
            });
            chunks.for_each(|(start, chunk)| fill(start, chunk));
            let _turn = gpu.turn();
            self.filled += slots.len();
            for (start, len, memory) in slots {
                let part = buffer.part(start / WORD..(start + len) / WORD);
                let property = memory.property();
                let slot = Slot { memory, len, back: self.back.clone() };
                gpu.write_bytes(&part, bytes::Bytes::from_owner(slot), property);
            }
        }
        Ok(())
    }

    /// A buffer that the device does not read.
    fn take(&mut self) -> Result<Bytes> {
        if let Ok(memory) = self.free.try_recv() {
            return Ok(memory);
        }
        if self.made == 2 * BATCH {
            // CubeCL keeps what the device may still read when waiting for it fails.
            let reason = "it did not finish copying weights; open the model again".to_owned();
            return Err(Error::Device { doing: "copying weights", reason });
        }
        let memory = self.gpu.staging_memory(SLOT);
        self.made += 1;
        self.is_pinned &= memory.property() == AllocationProperty::Pinned;
        Ok(memory)
    }

    /// Waits until the batch before the last one is free again.
    fn wait(&mut self) -> Result<()> {
        self.filled = 0;
        // Memory on the heap was copied already, to memory of the driver's, which is free when the device is done.
        if self.is_pinned { self.gpu.flush() } else { self.gpu.sync() }
    }
}

impl Gpu {
    /// Host memory of so many bytes, pinned where the device has such memory.
    fn staging_memory(&self, bytes: usize) -> Bytes {
        let mut memory = Bytes::from_bytes_vec(vec![0; bytes]);
        self.client().staging(std::iter::once(&mut memory), false);
        memory
    }

    /// Drops the host memory that the device had copied, or was copying, at the call before.
    fn flush(&self) -> Result<()> {
        self.client().flush().map_err(|error| crate::gpu::failed("copying weights", &error))
    }
}

#[cfg(all(test, feature = "wgpu"))]
mod tests {
    use super::*;
    use crate::DeviceChoice;

    /// Uploads that are larger than the ring, and those that end within a chunk.
    #[test]
    fn every_byte_arrives_in_a_ring_of_fixed_size() {
        let Ok(gpu) = Gpu::open(DeviceChoice::Wgpu) else { return };
        let mut staging = Staging::new(&gpu);
        let word = |index: usize, seed: usize| (index as u32).wrapping_mul(0x9e37_79b9).wrapping_add(seed as u32);
        let slot = SLOT / WORD;
        for (seed, words) in
            [1, 64, CHUNK / WORD + 3, slot, slot + 1, 9 * slot + 5, 2, 3 * slot].into_iter().enumerate()
        {
            let buffer = gpu.empty(words);
            let fill = |start: usize, bytes: &mut [u8]| {
                assert!(start.is_multiple_of(CHUNK) && bytes.len() <= CHUNK);
                for (index, bytes) in bytes.as_chunks_mut::<WORD>().0.iter_mut().enumerate() {
                    *bytes = word(start / WORD + index, seed).to_le_bytes();
                }
            };
            staging.upload(&buffer, fill).expect("the device works");
            let found = gpu.read(&buffer).expect("the device works");
            let wrong = found.iter().enumerate().find(|(index, found)| **found != word(*index, seed));
            assert!(found.len() == words && wrong.is_none(), "{words} words: {wrong:?}");
        }
        assert!(staging.made <= 2 * BATCH, "{}", staging.made);
    }

    #[test]
    fn a_device_that_keeps_the_memory_is_an_error() {
        let Ok(gpu) = Gpu::open(DeviceChoice::Wgpu) else { return };
        let mut staging = Staging::new(&gpu);
        let kept: Vec<Bytes> = (0..2 * BATCH).map(|_| staging.take().expect("there is memory")).collect();
        let error = staging.take().expect_err("all of it is taken").to_string();
        assert!(error.contains("copying weights"), "{error}");
        drop(Slot { memory: kept.into_iter().next().expect("some"), len: 1, back: staging.back.clone() });
        assert!(staging.take().is_ok());
    }
}
