//! Ranks that are processes which MPI started.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mpi::Threading;
use mpi::request::{LocalScope, Request, scope};
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, Destination, Source};

use super::{Collective, RankProblem};
use crate::{Error, Result};

/// A rank among processes that `mpirun`, `srun` or the like started.
///
/// A thread of its own makes all calls of MPI, none of which blocks. So a time limit holds also where another process
/// is gone: this one returns with an error and ends, and MPI ends those that are left.
///
/// Dropping it waits for the other ranks to do the same, up to the time limit, as MPI asks for.
#[derive(Debug)]
pub struct Mpi {
    rank: usize,
    size: usize,
    limit: Duration,
    line: Mutex<Line>,
}

/// The line to the thread that calls MPI.
#[derive(Debug)]
struct Line {
    jobs: Sender<Job>,
    results: Receiver<Outcome>,
    /// Why nothing more can be exchanged.
    broken: Option<(usize, RankProblem)>,
}

#[derive(Debug)]
enum Job {
    Exchange(Vec<Bytes>),
    Fail(String),
    /// The orderly end, once all ranks have come to it.
    End,
}

/// What a job gave, or the rank at fault.
type Outcome = std::result::Result<Vec<Bytes>, (usize, RankProblem)>;

impl Mpi {
    /// Starts MPI in this process. A call that waits for another rank longer than `limit` fails, so it has to be longer
    /// than the slowest pass. A program that MPI did not start is one rank alone.
    ///
    /// # Errors
    /// [`Error::MpiStart`] where this process has started MPI before.
    pub fn new(limit: Duration) -> Result<Self> {
        let (jobs, received) = channel();
        let (give, results) = channel();
        let (tell, place) = channel();
        thread::Builder::new()
            .name("mpi".to_owned())
            .spawn(move || {
                let Some((universe, _)) = mpi::initialize_with_threading(Threading::Funneled) else { return };
                let world = universe.world();
                let (rank, size) = (world.rank() as usize, world.size() as usize);
                let _ = tell.send((rank, size));
                Calls { world: &world, rank, size, limit, give: &give }.serve(&received);
                drop(universe);
                let _ = give.send(Ok(Vec::new()));
            })
            .map_err(|_| Error::MpiStart)?;
        let (rank, size) = place.recv().map_err(|_| Error::MpiStart)?;
        Ok(Self { rank, size, limit, line: Mutex::new(Line { jobs, results, broken: None }) })
    }

    /// Gives a job to the thread, and waits for what it gives at most this long.
    fn call(&self, line: &mut Line, job: Job, limit: Option<Duration>) -> Outcome {
        let gone = || (self.rank, RankProblem::Ended);
        line.jobs.send(job).map_err(|_| gone())?;
        match limit {
            None => line.results.recv().map_err(|_| gone())?,
            Some(limit) => line.results.recv_timeout(limit).map_err(|_| gone())?,
        }
    }
}

impl Collective for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn exchange(&self, mut to: Vec<Bytes>) -> Result<Vec<Bytes>> {
        to.resize(self.size, Bytes::new());
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = match line.broken.clone() {
            Some(broken) => Err(broken),
            None => self.call(&mut line, Job::Exchange(to), None),
        };
        outcome.map_err(|(rank, problem)| {
            line.broken.get_or_insert((rank, problem.clone()));
            Error::Rank { rank, problem }
        })
    }

    fn fail(&self, reason: &str) {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        if line.broken.is_none() {
            line.broken = Some((self.rank, RankProblem::Failed(reason.to_owned())));
            let _ = self.call(&mut line, Job::Fail(reason.to_owned()), Some(2 * NOTICE));
        }
    }
}

impl Drop for Mpi {
    fn drop(&mut self) {
        if thread::panicking() {
            self.fail(PANICKED);
        }
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        if line.broken.is_none() {
            let _ = self.call(&mut line, Job::End, Some(self.limit));
        }
    }
}

/// How long a rank that has failed waits until the others know.
const NOTICE: Duration = Duration::from_secs(1);
/// The reason of a panic.
const PANICKED: &str = "it panicked";

/// Each message begins with a frame: its kind, its length, and as much of it as there is place for.
const FRAME: usize = 512;
const HEAD: usize = 9;
const DATA: u8 = 0;
const END: u8 = 1;
const FAIL: u8 = 2;
const FRAME_TAG: i32 = 1;
const REST_TAG: i32 = 2;
/// MPI counts bytes in 31 bits.
const PIECE: usize = 1 << 30;

fn frame(kind: u8, message: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; FRAME];
    let in_frame = message.len().min(FRAME - HEAD);
    frame[0] = kind;
    frame[1..HEAD].copy_from_slice(&(message.len() as u64).to_le_bytes());
    frame[HEAD..HEAD + in_frame].copy_from_slice(&message[..in_frame]);
    frame
}

/// The message of a frame as far as it is there, and how much is missing.
fn unframe(frame: &[u8]) -> (&[u8], usize) {
    let len = frame[1..HEAD].iter().rev().fold(0usize, |len, &byte| len << 8 | usize::from(byte));
    let in_frame = len.min(FRAME - HEAD);
    (&frame[HEAD..HEAD + in_frame], len - in_frame)
}

/// The thread that calls MPI.
struct Calls<'a> {
    world: &'a SimpleCommunicator,
    rank: usize,
    size: usize,
    limit: Duration,
    give: &'a Sender<Outcome>,
}

/// What is to be received from a rank: the bytes from `begin` on.
struct Receive {
    rank: usize,
    begin: usize,
    bytes: Vec<u8>,
}

type Pending<'a, 'scope> = Request<'a, [u8], &'scope LocalScope<'a>>;

impl Calls<'_> {
    /// Does jobs until the orderly end. After a failure it never returns: what MPI still sends and receives has to stay
    /// in memory until the process ends.
    fn serve(&self, jobs: &Receiver<Job>) {
        while let Ok(job) = jobs.recv() {
            match job {
                Job::Exchange(to) => {
                    let received = self.exchange(to);
                    let _ = self.give.send(Ok(received));
                }
                Job::Fail(reason) => self.notify(&reason),
                Job::End => return self.end(),
            }
        }
        // The program has dropped its end without a word: it is ending, or about to.
        wait_for_the_end()
    }

    fn others(&self) -> impl Iterator<Item = usize> {
        let own = self.rank;
        (0..self.size).filter(move |rank| *rank != own)
    }

    fn exchange(&self, mut to: Vec<Bytes>) -> Vec<Bytes> {
        let begun = Instant::now();
        let frames: Vec<Vec<u8>> = to.iter().map(|message| frame(DATA, message)).collect();
        let sends = self.others().map(|rank| (rank, frames[rank].as_slice())).collect();
        let frames = self.transfer(begun, Some(DATA), sends, self.frames());
        let receives = frames.iter().filter_map(|(&rank, frame)| {
            let (there, missing) = unframe(frame);
            // The rest comes behind what is there, so that long messages are not copied once more.
            let mut bytes = vec![0; there.len() + missing];
            bytes[..there.len()].copy_from_slice(there);
            (missing > 0).then_some(Receive { rank, begin: there.len(), bytes })
        });
        let receives = receives.collect();
        let long = |rank: &usize| to[*rank].len() > FRAME - HEAD;
        let sends = self.others().filter(long).map(|rank| (rank, &to[rank][FRAME - HEAD..])).collect();
        let mut long = self.transfer(begun, None, sends, receives);
        let own = std::mem::take(&mut to[self.rank]);
        let message = |rank: usize| match (frames.get(&rank), long.remove(&rank)) {
            (None, _) => own.clone(),
            (Some(frame), None) => Bytes::copy_from_slice(unframe(frame).0),
            (Some(_), Some(message)) => message.into(),
        };
        (0..self.size).map(message).collect()
    }

    /// Places for a frame of each other rank.
    fn frames(&self) -> Vec<Receive> {
        self.others().map(|rank| Receive { rank, begin: 0, bytes: vec![0; FRAME] }).collect()
    }

    /// Sends to ranks and receives from ranks, as many bytes as there is place for, at the same time. `frames` is the
    /// kind of frames that are sent and expected; without one it is what is missing after frames.
    fn transfer(
        &self,
        begun: Instant,
        frames: Option<u8>,
        sends: Vec<(usize, &[u8])>,
        mut receives: Vec<Receive>,
    ) -> HashMap<usize, Vec<u8>> {
        let tag = if frames.is_some() { FRAME_TAG } else { REST_TAG };
        scope(|scope| {
            // Receives first: a rank that does not come is named by what it has not sent.
            let mut pending: Vec<(usize, Option<Pending<'_, '_>>)> = Vec::new();
            for Receive { rank, begin, bytes } in &mut receives {
                let process = self.world.process_at_rank(*rank as i32);
                for piece in bytes[*begin..].chunks_mut(PIECE) {
                    pending.push((*rank, Some(process.immediate_receive_into_with_tag(scope, piece, tag))));
                }
            }
            let n_receives = pending.len();
            for (rank, bytes) in sends {
                let process = self.world.process_at_rank(rank as i32);
                for piece in bytes.chunks(PIECE) {
                    pending.push((rank, Some(process.immediate_send_with_tag(scope, piece, tag))));
                }
            }
            let mut progress = Instant::now();
            loop {
                let (mut left, mut fault) = (None, None);
                for (place, (rank, slot)) in pending.iter_mut().enumerate() {
                    let Some(request) = slot.take() else { continue };
                    match request.test_with_data() {
                        Ok((_, bytes)) => {
                            progress = Instant::now();
                            let frame = frames.filter(|_| place < n_receives);
                            let problem = frame.and_then(|expected| problem_of(bytes, expected));
                            fault = fault.or(problem.map(|problem| (*rank, problem)));
                        }
                        Err(request) => {
                            *slot = Some(request);
                            left.get_or_insert(*rank);
                        }
                    }
                }
                let late = || left.filter(|_| begun.elapsed() > self.limit);
                if let Some((rank, problem)) = fault.or_else(|| Some((late()?, RankProblem::Stalled(self.limit)))) {
                    std::mem::forget(pending);
                    self.give_up(rank, problem);
                }
                if left.is_none() {
                    break;
                }
                wait(progress);
            }
        });
        receives.into_iter().map(|received| (received.rank, received.bytes)).collect()
    }

    /// Reports a failure. What MPI still sends and receives stays in memory until the process ends.
    fn give_up(&self, rank: usize, problem: RankProblem) -> ! {
        let _ = self.give.send(Err((rank, problem)));
        wait_for_the_end()
    }

    /// Tells the others that this rank has failed.
    fn notify(&self, reason: &str) -> ! {
        let frame = frame(FAIL, reason.as_bytes());
        scope(|scope| {
            let send =
                |rank| self.world.process_at_rank(rank as i32).immediate_send_with_tag(scope, &frame[..], FRAME_TAG);
            let mut pending: Vec<Pending<'_, '_>> = self.others().map(send).collect();
            let begun = Instant::now();
            while !pending.is_empty() && begun.elapsed() < NOTICE {
                pending = pending.into_iter().filter_map(|request| request.test().err()).collect();
                wait(begun);
            }
            std::mem::forget(pending);
            let _ = self.give.send(Ok(Vec::new()));
            wait_for_the_end()
        })
    }

    /// Returns once all ranks have come to their end. Where another one goes on, it learns of this end, and MPI cannot
    /// be ended in order.
    fn end(&self) {
        let frame = frame(END, &[]);
        let sends = self.others().map(|rank| (rank, frame.as_slice())).collect();
        self.transfer(Instant::now(), Some(END), sends, self.frames());
    }
}

/// What is wrong with a rank that sent this frame.
fn problem_of(frame: &[u8], expected: u8) -> Option<RankProblem> {
    match frame.first() {
        Some(&kind) if kind == expected => None,
        Some(&END) => Some(RankProblem::Ended),
        Some(&FAIL) => Some(match String::from_utf8_lossy(unframe(frame).0) {
            reason if reason == PANICKED => RankProblem::Panicked,
            reason => RankProblem::Failed(reason.into_owned()),
        }),
        _ => Some(RankProblem::Differs),
    }
}

/// Lets others compute: at once while messages come, a little later where none have come for a while.
fn wait(progress: Instant) {
    match progress.elapsed() < Duration::from_millis(2) {
        true => thread::yield_now(),
        false => thread::sleep(Duration::from_micros(200)),
    }
}

fn wait_for_the_end() -> ! {
    loop {
        thread::park();
    }
}
