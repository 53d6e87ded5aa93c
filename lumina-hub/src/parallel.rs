//! Several downloads at once.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread;

use crate::{Error, Result};

/// What is done for an index: it may send events, and ends early once the flag is set.
type Work<'a, T, E> = dyn Fn(usize, &Sender<E>, &AtomicBool) -> Result<T> + Sync + 'a;

/// Calls `work` with each index below `count` on at most `threads` threads, and `on_event` on this thread with what
/// they send. The first error sets the flag that all are given, so that the others end early.
pub(crate) fn run<T: Send, E: Send>(
    threads: usize,
    count: usize,
    work: &Work<'_, T, E>,
    on_event: &mut dyn FnMut(E),
) -> Result<Vec<T>> {
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let worker = |sender: Sender<E>| {
        let mut done = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                break;
            }
            match work(index, &sender, &stop) {
                Ok(result) => done.push((index, result)),
                Err(error) => {
                    stop.store(true, Ordering::Relaxed);
                    return Err(error);
                }
            }
        }
        Ok(done)
    };
    let results: Vec<Result<Vec<(usize, T)>>> = thread::scope(|scope| {
        // Where `on_event` panics the scope waits for all threads: they shall not go on to the end.
        let _guard = StopOnDrop(&stop);
        let (sender, receiver) = mpsc::channel();
        let mut handles = Vec::new();
        for _ in 0..threads.min(count) {
            let sender = sender.clone();
            match thread::Builder::new().spawn_scoped(scope, || worker(sender)) {
                Ok(handle) => handles.push(handle),
                Err(error) if handles.is_empty() => return vec![Err(Error::Thread(error))],
                // Those that are there do it.
                Err(_) => break,
            }
        }
        drop(sender);
        for event in receiver {
            on_event(event);
        }
        let joined = handles.into_iter().map(|handle| handle.join().unwrap_or_else(|panic| resume_unwind(panic)));
        joined.collect()
    });
    let mut done = Vec::with_capacity(count);
    let mut first = None;
    for result in results {
        match result {
            Ok(results) => done.extend(results),
            // The error that stopped the others says more than theirs.
            Err(error) if matches!(first, None | Some(Error::Stopped)) => first = Some(error),
            Err(_) => {}
        }
    }
    match first {
        Some(error) => Err(error),
        None => {
            done.sort_by_key(|(index, _)| *index);
            Ok(done.into_iter().map(|(_, result)| result).collect())
        }
    }
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
