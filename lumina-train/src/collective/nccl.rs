//! Ranks whose long messages go over NCCL.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use cudarc::driver::DriverError;
use cudarc::driver::safe::{CudaContext, CudaSlice, CudaStream};
use cudarc::nccl::result::NcclError;
use cudarc::nccl::safe::{Comm, Id, group_end, group_start};

use super::{Collective, RankProblem, agree, lead};
use crate::{Error, Result};

/// Shorter messages go over the other collective: they would wait longer for the device than for the network.
const SHORT: usize = 64 << 10;

/// A rank whose long messages NCCL moves from GPU to GPU, over NVLink or InfiniBand.
///
/// Another collective, `Mpi` or [`Threads`](super::Threads), joins the ranks, moves short messages, and names a rank
/// that fails or stalls: NCCL by itself waits without an end and knows no names.
///
/// NCCL is that of the machine (`libnccl.so`), found when this is made. A thread of its own makes all its calls, so a
/// time limit holds where another rank is gone.
#[derive(Debug)]
pub struct Nccl<C> {
    control: C,
    limit: Duration,
    line: Mutex<Line>,
}

/// The line to the thread that calls NCCL.
#[derive(Debug)]
struct Line {
    jobs: Sender<Job>,
    results: Receiver<Outcome>,
}

/// What goes to and comes from other ranks.
#[derive(Debug)]
struct Job {
    sends: Vec<(usize, Bytes)>,
    /// Ranks, and how many bytes each of them sends.
    receives: Vec<(usize, usize)>,
}

/// What a job received, with the rank that sent it.
type Outcome = Result<Vec<(usize, Vec<u8>)>>;

impl<C: Collective> Nccl<C> {
    /// Joins the ranks of `control`, each with the CUDA device of this number. No two ranks may have the same device.
    /// NCCL has to begin, and each exchange to move its bytes, within `limit`.
    ///
    /// # Errors
    /// [`Error::Nccl`] where NCCL is missing or does not begin, [`Error::Rank`] on the other ranks then, and as
    /// [`Collective::exchange`] of `control`.
    pub fn new(control: C, device: usize, limit: Duration) -> Result<Self> {
        let (rank, size) = (control.rank(), control.size());
        // NCCL waits for all ranks, so each says first whether it can take part.
        agree(&control, libraries())?;
        let id = lead(&control, id)?;
        let id = control.broadcast(0, id)?;
        let (jobs, received) = channel();
        let (give, results) = channel::<Outcome>();
        let thread =
            thread::Builder::new().name("nccl".to_owned()).spawn(move || match begin(device, rank, size, &id) {
                Ok(comm) => {
                    let _ = give.send(Ok(Vec::new()));
                    serve(&comm, &received, &give);
                }
                Err(error) => {
                    let _ = give.send(Err(error));
                }
            });
        let begun = thread.map_err(|error| nccl(error.to_string())).and_then(|_| wait(&results, limit));
        agree(&control, begun)?;
        Ok(Self { control, limit, line: Mutex::new(Line { jobs, results }) })
    }

    /// Moves long messages, within the time limit.
    fn transfer(&self, job: Job) -> Outcome {
        let line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        line.jobs.send(job).map_err(|_| nccl("it has ended".to_owned()))?;
        wait(&line.results, self.limit)
    }
}

impl<C: Collective> Collective for Nccl<C> {
    fn rank(&self) -> usize {
        self.control.rank()
    }

    fn size(&self) -> usize {
        self.control.size()
    }

    fn exchange(&self, mut to: Vec<Bytes>) -> Result<Vec<Bytes>> {
        let (own, size) = (self.rank(), self.size());
        to.resize(size, Bytes::new());
        // What stays here goes nowhere.
        let kept = std::mem::take(&mut to[own]);
        let mut sends = Vec::new();
        let announced = to.into_iter().enumerate().map(|(rank, message)| {
            let head = (message.len() as u64).to_le_bytes();
            // A long message is announced by its length alone.
            if message.len() > SHORT {
                sends.push((rank, message));
                return Bytes::copy_from_slice(&head);
            }
            [&head[..], &message[..]].concat().into()
        });
        let announced = announced.collect();
        let received = self.control.exchange(announced)?;
        let differs = |rank| Error::Rank { rank, problem: RankProblem::Differs };
        let mut receives = Vec::new();
        let mut messages = Vec::with_capacity(size);
        for (rank, message) in received.into_iter().enumerate() {
            let head = message.get(..8).and_then(|head| head.try_into().ok()).map(u64::from_le_bytes);
            let len = head.and_then(|len| usize::try_from(len).ok()).ok_or_else(|| differs(rank))?;
            let rest = message.slice(8..);
            match rest.len() {
                there if there == len => {}
                0 if len > SHORT => receives.push((rank, len)),
                _ => return Err(differs(rank)),
            }
            messages.push(rest);
        }
        messages[own] = kept;
        let is_idle = sends.is_empty() && receives.is_empty();
        let moved = if is_idle { Ok(Vec::new()) } else { self.transfer(Job { sends, receives }) };
        // Where NCCL stands still a rank is gone, and this names it. Nothing can be exchanged after that.
        let moved = agree(&self.control, moved).inspect_err(|error| self.control.fail(&error.to_string()))?;
        for (rank, message) in moved {
            messages[rank] = message.into();
        }
        Ok(messages)
    }

    fn fail(&self, reason: &str) {
        self.control.fail(reason);
    }
}

/// What the thread gives, within the time limit.
fn wait(results: &Receiver<Outcome>, limit: Duration) -> Outcome {
    results.recv_timeout(limit).map_err(|_| nccl(format!("no answer within {limit:?}")))?
}

fn nccl(reason: String) -> Error {
    Error::Nccl { reason }
}

fn failed(what: &str, error: &NcclError) -> Error {
    nccl(format!("{what}: {:?}", error.0))
}

fn cuda(error: DriverError) -> Error {
    nccl(format!("CUDA: {error}"))
}

/// Whether the libraries are there.
fn libraries() -> Result<()> {
    match lumina_nn::has_nccl() {
        true => Ok(()),
        false => Err(nccl("the loader finds no libnccl.so, or no CUDA driver".to_owned())),
    }
}

/// A name for a group.
fn id() -> Result<Bytes> {
    let id = Id::new().map_err(|error| failed("name of a group", &error))?;
    Ok(id.internal().iter().map(|&byte| byte as u8).collect())
}

/// Joins a group, once all of its ranks do.
fn begin(device: usize, rank: usize, size: usize, id: &[u8]) -> Result<Comm> {
    let Ok(id) = <[u8; 128]>::try_from(id) else { return Err(nccl("rank 0 sent no name of a group".to_owned())) };
    let stream = CudaContext::new(device).and_then(|context| context.new_stream()).map_err(cuda)?;
    let id = Id::uninit(id.map(|byte| byte as std::ffi::c_char));
    Comm::from_rank(stream, rank, size, id).map_err(|error| failed("begin", &error))
}

/// Does jobs until the other end is gone, or one fails.
fn serve(comm: &Comm, jobs: &Receiver<Job>, give: &Sender<Outcome>) {
    while let Ok(job) = jobs.recv() {
        let outcome = exchange(comm, &job);
        let failed = outcome.is_err();
        if give.send(outcome).is_err() || failed {
            return;
        }
    }
}

fn exchange(comm: &Comm, Job { sends, receives }: &Job) -> Outcome {
    let stream = comm.stream();
    let (sends, mut places) = buffers(&stream, sends, receives).map_err(cuda)?;
    launch(comm, &sends, &mut places).map_err(|error| failed("exchange", &error))?;
    let download = |(rank, place): &(usize, CudaSlice<u8>)| Ok((*rank, stream.clone_dtoh(place)?));
    let received = places.iter().map(download).collect::<std::result::Result<_, _>>().map_err(cuda)?;
    stream.synchronize().map_err(cuda)?;
    Ok(received)
}

/// Bytes on the device, with the rank that they go to or come from.
type Buffers = Vec<(usize, CudaSlice<u8>)>;

fn buffers(
    stream: &Arc<CudaStream>,
    sends: &[(usize, Bytes)],
    receives: &[(usize, usize)],
) -> std::result::Result<(Buffers, Buffers), DriverError> {
    let upload = |(rank, bytes): &(usize, Bytes)| Ok((*rank, stream.clone_htod(&bytes[..])?));
    let sends = sends.iter().map(upload).collect::<std::result::Result<_, _>>()?;
    let place = |(rank, len): &(usize, usize)| Ok((*rank, stream.alloc_zeros(*len)?));
    Ok((sends, receives.iter().map(place).collect::<std::result::Result<_, _>>()?))
}

/// All at once, so that no rank waits for a turn.
fn launch(comm: &Comm, sends: &Buffers, places: &mut Buffers) -> std::result::Result<(), NcclError> {
    group_start()?;
    let sent = sends.iter().try_for_each(|(rank, bytes)| comm.send(bytes, *rank as i32));
    let mut receive = |(rank, place): &mut (usize, _)| comm.recv(place, *rank as i32).map(|_| ());
    let launched = sent.and_then(|()| places.iter_mut().try_for_each(&mut receive));
    group_end().map(|_| ()).and(launched)
}
