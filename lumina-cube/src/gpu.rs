//! A device that is open, and numbers on it.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cubecl::Device;
use cubecl::bytes::{AllocationProperty, Bytes};
use cubecl::client::Graph;
use cubecl::device::WgpuDeviceKind;
use cubecl::prelude::*;
use cubecl::server::{Handle, IoError, ServerError};

use crate::{Error, Result};

/// Bytes of a word: every buffer is of 32-bit words.
pub(crate) const WORD: usize = 4;

/// Parts of a buffer begin at a multiple of so many words, as graphics drivers ask for.
pub const ALIGNMENT: usize = 64;

/// Which device to open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeviceChoice {
    /// NVIDIA's device of this index, through CUDA.
    Cuda(usize),
    /// The best device that wgpu finds: Vulkan, Metal, DirectX 12 or WebGPU.
    Wgpu,
}

/// A device that is open. Clones are the same device, and may be used from any thread: all work is done in the order in
/// which it was asked for.
#[derive(Clone)]
pub struct Gpu {
    inner: Arc<Inner>,
    tensor_cores: bool,
}

struct Inner {
    choice: DeviceChoice,
    client: Client,
    name: String,
    lanes: u32,
    /// What a recording uses, while there is one: it must live as long as the recording.
    recorded: Mutex<Option<Vec<Handle>>>,
    /// Held by who launches what belongs together.
    turn: Mutex<()>,
}

/// Launches that were recorded, to be made again at once. They read and write the buffers of the first time.
pub struct Recording {
    graph: Graph,
    /// Temporary buffers of the launches.
    _kept: Vec<Handle>,
}

/// 32-bit words on a device: `f32`, or whole numbers. Clones are the same memory.
#[derive(Clone)]
pub struct Buffer {
    handle: Handle,
    len: usize,
}

impl Gpu {
    /// Opens a device.
    ///
    /// # Errors
    /// [`Error::NoDevice`] where the machine has none, its driver does not work, the program was built without it, or
    /// NVRTC or the headers of the CUDA toolkit are not there.
    pub fn open(choice: DeviceChoice) -> Result<Self> {
        #[cfg(all(feature = "kernel-cache", any(feature = "cuda", feature = "vulkan")))]
        crate::kernel_cache::configure();
        let device = match choice {
            DeviceChoice::Cuda(index) => Device::cuda(index),
            DeviceChoice::Wgpu => Device::wgpu(WgpuDeviceKind::DefaultDevice),
        };
        let device = device.map_err(|error| Error::NoDevice { reason: error.to_string() })?;
        #[cfg(feature = "cuda")]
        if matches!(choice, DeviceChoice::Cuda(_)) {
            crate::cuda::check_compiler()?;
        }
        // CubeCL panics where a driver is there and does not work.
        let client = std::panic::catch_unwind(|| device.client())
            .map_err(|_| Error::NoDevice { reason: format!("the driver of {device:?} does not work") })?;
        Ok(Self::of_client(choice, client))
    }

    /// The devices that this program was built for and this machine has.
    pub fn enumerate() -> Vec<DeviceChoice> {
        let devices = std::panic::catch_unwind(Device::enumerate_all).unwrap_or_default();
        let mut choices: Vec<DeviceChoice> = Vec::new();
        for device in devices {
            let choice = match device {
                Device::Cuda(device) => DeviceChoice::Cuda(device.index),
                Device::Wgpu(_) => DeviceChoice::Wgpu,
                _ => continue,
            };
            if !choices.contains(&choice) {
                choices.push(choice);
            }
        }
        choices
    }

    fn of_client(choice: DeviceChoice, mut client: Client) -> Self {
        // One stream for all threads, as memory and order are per stream, and no other program part's: a recording
        // would take up what that launches.
        static STREAMS: AtomicU64 = AtomicU64::new(1 << 40);
        let mut stream = client.empty(WORD).stream;
        stream.value = STREAMS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: streams are names, and only this device uses this one.
        unsafe { client.set_stream(stream) };
        let hardware = &client.properties().hardware;
        // Units that exchange numbers without shared memory. Where planes vary in size, the smallest are meant: larger
        // ones are then several of those.
        let lanes = hardware.plane_size_min.clamp(4, 32);
        let lanes = 1 << lanes.ilog2();
        let name = client.name().to_owned();
        let tensor_cores = crate::matmul::mma::is_offered(&client);
        let inner = Inner { choice, client, name, lanes, recorded: Mutex::new(None), turn: Mutex::new(()) };
        Self { inner: Arc::new(inner), tensor_cores }
    }

    /// The name of the runtime, such as `cuda` or `wgpu<wgsl>`.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    pub(crate) fn client(&self) -> &Client {
        &self.inner.client
    }

    /// Units that exchange numbers without shared memory: a power of two from 4 to 32.
    pub(crate) fn lanes(&self) -> u32 {
        self.inner.lanes
    }

    /// Whether weights in 16, 8 and 4 bits are multiplied by tensor cores.
    pub fn has_tensor_cores(&self) -> bool {
        self.tensor_cores
    }

    /// The same device, on which they are multiplied as on one without tensor cores: sums are then those of `f32`, and
    /// many rows take longer.
    #[must_use]
    pub fn without_tensor_cores(&self) -> Self {
        Self { tensor_cores: false, ..self.clone() }
    }

    /// Cubes of 256 units that have one for each of `len` numbers, in a [`line`](Gpu::line).
    pub(crate) fn cubes_for(&self, len: usize) -> CubeCount {
        self.line(len.div_ceil(256))
    }

    /// A line of cubes, folded along the second axis where it is too long: the last row may have more of them.
    pub(crate) fn line(&self, cubes: usize) -> CubeCount {
        let cubes = cubes.max(1) as u32;
        let x = cubes.min(self.client().properties().hardware.max_cube_count.0.max(1));
        CubeCount::Static(x, cubes.div_ceil(x), 1)
    }

    /// `x` columns of `cubes`, these folded along the third axis where they are too many.
    pub(crate) fn columns(&self, x: usize, cubes: usize) -> CubeCount {
        let cubes = cubes.max(1) as u32;
        let y = cubes.min(self.client().properties().hardware.max_cube_count.1.max(1));
        CubeCount::Static(x as u32, y, cubes.div_ceil(y))
    }

    /// Bytes of its memory, where the driver says so.
    pub fn memory_bytes(&self) -> Option<u64> {
        self.client().properties().memory.max_memory()
    }

    /// Bytes of its memory that are free now, where the driver says so: on CUDA. Memory that buffers of this program
    /// had, and that is kept for later ones, counts as free.
    pub fn free_memory_bytes(&self) -> Option<u64> {
        match self.inner.choice {
            #[cfg(feature = "cuda")]
            DeviceChoice::Cuda(index) => {
                let usage = self.client().memory_report(cubecl::MemoryScope::CurrentStream).usage();
                let kept = usage.bytes_reserved.saturating_sub(usage.bytes_in_use + usage.bytes_padding);
                Some(crate::cuda::free_memory(index)?.saturating_add(kept))
            }
            _ => None,
        }
    }

    /// The most bytes that one buffer can have.
    pub fn max_buffer_bytes(&self) -> u64 {
        self.client().properties().memory.max_page_size
    }

    /// Room for `len` words of arbitrary content.
    pub fn empty(&self, len: usize) -> Buffer {
        // Whole units of alignment, and so never empty.
        let words = len.max(1).next_multiple_of(ALIGNMENT);
        let handle = self.client().empty(words * WORD);
        self.keep(&handle);
        Buffer { handle, len }
    }

    /// These words on the device.
    pub fn upload(&self, words: &[u32]) -> Buffer {
        self.upload_bytes(bytes_of(words.iter().copied()), words.len())
    }

    /// These numbers on the device.
    pub fn upload_f32(&self, values: &[f32]) -> Buffer {
        self.upload_bytes(bytes_of(values.iter().map(|value| value.to_bits())), values.len())
    }

    fn upload_bytes(&self, mut bytes: Vec<u8>, len: usize) -> Buffer {
        bytes.resize(len.max(1).next_multiple_of(ALIGNMENT) * WORD, 0);
        let handle = self.client().create(Bytes::from_bytes_vec(bytes));
        self.keep(&handle);
        Buffer { handle, len }
    }

    /// Overwrites a buffer from its first word on. What was launched before still sees the old words.
    ///
    /// # Panics
    /// If there are more words than the buffer has.
    pub fn write(&self, buffer: &Buffer, words: &[u32]) {
        assert!(words.len() <= buffer.len, "{} words do not fit a buffer of {}", words.len(), buffer.len);
        self.write_words(buffer, Bytes::from_bytes_vec(bytes_of(words.iter().copied())));
    }

    /// [`Gpu::write`] of bytes in memory of any kind.
    pub(crate) fn write_bytes(&self, buffer: &Buffer, bytes: bytes::Bytes, property: AllocationProperty) {
        self.write_words(buffer, Bytes::from_shared(bytes, property));
    }

    fn write_words(&self, buffer: &Buffer, bytes: Bytes) {
        if !bytes.is_empty() {
            self.client().write(&buffer.part_in_bytes(0..bytes.len() as u64), bytes);
        }
    }

    /// The words of a buffer, once everything before is done.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::Device`]: also of what was launched before.
    pub fn read(&self, buffer: &Buffer) -> Result<Vec<u32>> {
        if buffer.len == 0 {
            return Ok(Vec::new());
        }
        let part = buffer.part_in_bytes(0..(buffer.len * WORD) as u64);
        let bytes = self.client().read_one(part).map_err(|error| failed("reading a result", &error))?;
        Ok(bytes.as_chunks::<WORD>().0.iter().map(|word| u32::from_le_bytes(*word)).collect())
    }

    /// The numbers of a buffer, once everything before is done.
    ///
    /// # Errors
    /// As [`Gpu::read`].
    pub fn read_f32(&self, buffer: &Buffer) -> Result<Vec<f32>> {
        Ok(self.read(buffer)?.into_iter().map(f32::from_bits).collect())
    }

    /// Whether memory for a buffer could be had, and whatever is to be written into it could be launched. It does not
    /// wait for the device to compute.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::Device`].
    pub fn check(&self, buffer: &Buffer) -> Result<()> {
        self.client().check([&buffer.handle]).map_err(|error| failed("taking memory", &error))
    }

    /// Copies the words of a buffer to the beginning of another.
    ///
    /// # Panics
    /// If they do not fit, or fill only a part of it that does not end at a multiple of four words.
    pub fn copy(&self, from: &Buffer, to: &Buffer) {
        crate::elementwise::copy(self, from, to);
    }

    /// A turn on the device. Launches that belong together, such as those of a pass, are made in one, so that those of
    /// another thread do not come between them, nor into a recording.
    pub fn turn(&self) -> MutexGuard<'_, ()> {
        self.inner.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the launches of `run`, and records them. It is run twice, first as it is, so that kernels are compiled and
    /// memory is there; the result is that of the second time, whose launches are only recorded:
    /// [`Recording::replay`] makes them. The caller has the [turn](Gpu::turn).
    ///
    /// # Errors
    /// [`Error::Device`] where something was uploaded, written or read inside, memory ran out, or the device cannot.
    pub fn record<T>(&self, mut run: impl FnMut() -> T) -> Result<(Recording, T)> {
        let failed = |error: ServerError| failed("recording launches", &error);
        let client = self.client();
        client.graph_prepare().map_err(failed)?;
        drop(run());
        client.start_capture().map_err(failed)?;
        let recorded = || self.inner.recorded.lock().unwrap_or_else(PoisonError::into_inner);
        *recorded() = Some(Vec::new());
        let result = run();
        let kept = recorded().take().unwrap_or_default();
        let graph = client.stop_capture().map_err(failed)?;
        Ok((Recording { graph, _kept: kept }, result))
    }

    /// Waits until everything before is done.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn sync(&self) -> Result<()> {
        cubecl::future::block_on(self.client().sync()).map_err(|error| failed("waiting for the device", &error))
    }

    /// Keeps memory alive for the recording, if there is one.
    fn keep(&self, handle: &Handle) {
        if let Some(kept) = &mut *self.inner.recorded.lock().unwrap_or_else(PoisonError::into_inner) {
            kept.push(handle.clone());
        }
    }
}

impl Recording {
    /// Makes the launches again, in the order of everything else. The caller has the [turn](Gpu::turn).
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn replay(&self) -> Result<()> {
        // SAFETY: the recording keeps its temporary buffers, its caller the others, and all work on them is in one
        // stream, in order.
        unsafe { self.graph.replay() }.map_err(|error| failed("replaying launches", &error))
    }
}

impl fmt::Debug for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recording").field("buffers", &self._kept.len()).finish_non_exhaustive()
    }
}

impl Buffer {
    /// Number of words.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no words.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A part of the words, of the same memory. It begins at a multiple of [`ALIGNMENT`] words.
    ///
    /// # Panics
    /// If the part is not inside, or begins elsewhere.
    #[must_use]
    pub fn part(&self, words: Range<usize>) -> Self {
        assert!(words.end <= self.len && words.start <= words.end, "{words:?} of {} words", self.len);
        assert!(words.start.is_multiple_of(ALIGNMENT), "{words:?} is not at a multiple of {ALIGNMENT} words");
        let bytes = (words.start * WORD) as u64..(words.end * WORD) as u64;
        Self { handle: self.part_in_bytes(bytes), len: words.len() }
    }

    fn part_in_bytes(&self, bytes: Range<u64>) -> Handle {
        let size = self.handle.size_in_used();
        self.handle.clone().offset_start(bytes.start).offset_end(size - bytes.end)
    }

    /// As the argument of a kernel, as elements of `words` words each.
    pub(crate) fn arg(&self, words: usize) -> BufferArg {
        // SAFETY: the handle has at least `len` words.
        unsafe { BufferArg::from_raw_parts(self.handle.clone(), self.len.div_ceil(words)) }
    }

    /// Whether both are the same words of one buffer.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.handle.clone().binding().claim_key() == other.handle.clone().binding().claim_key()
    }
}

/// Words in the order of a device's bytes.
fn bytes_of(words: impl Iterator<Item = u32>) -> Vec<u8> {
    words.flat_map(u32::to_le_bytes).collect()
}

/// What a server said, without its traces.
pub(crate) fn failed(doing: &'static str, error: &ServerError) -> Error {
    if let Some(bytes) = bytes_without_room(error) {
        return Error::OutOfMemory { bytes };
    }
    let text = error.to_string();
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("Backtrace"));
    let reason: String = lines.take(4).collect::<Vec<_>>().join("; ").chars().take(400).collect();
    Error::Device { doing, reason }
}

/// The bytes that were asked for, if memory is what lacks.
fn bytes_without_room(error: &ServerError) -> Option<u64> {
    match error {
        ServerError::Io(
            IoError::OutOfMemory { size, .. }
            | IoError::BufferTooBig { size, .. }
            | IoError::PageUpdateForbidden { size, .. }
            | IoError::PageSizesExhausted { size, .. },
        ) => Some(*size),
        ServerError::Unwritten { root, .. } => bytes_without_room(root),
        ServerError::Several { errors, .. } => errors.iter().find_map(bytes_without_room),
        _ => None,
    }
}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gpu").field("name", &self.inner.name).field("lanes", &self.inner.lanes).finish_non_exhaustive()
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("len", &self.len).finish_non_exhaustive()
    }
}

#[cfg(all(test, feature = "cuda"))]
mod tests {
    use super::{DeviceChoice, Gpu};

    /// Also where there is no driver: CubeCL asks for its library before it calls it.
    #[test]
    fn devices_that_are_listed_are_those_that_open() {
        let first = DeviceChoice::Cuda(0);
        match Gpu::open(first) {
            Ok(_) => assert!(Gpu::enumerate().contains(&first)),
            Err(error) => assert!(error.to_string().starts_with("no GPU: "), "{error}"),
        }
        let beyond = Gpu::enumerate().len();
        assert!(Gpu::open(DeviceChoice::Cuda(beyond)).is_err());
    }
}
