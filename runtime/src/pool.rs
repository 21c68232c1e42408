//! A small pool of threads that split a step's output by rows.
//!
//! The workers spin for a short while between jobs, because the steps of a network follow each other
//! within microseconds, and then sleep. Handing out a job allocates nothing.

#![allow(unsafe_code)]

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle, Thread};
use std::vec::Vec;

/// Most threads a pool may have, the caller included.
pub const MAX_THREADS: usize = 64;
/// Polls before a waiting worker goes to sleep: about 100 µs.
const SPINS: u32 = 20_000;

/// Threads that help the caller.
///
/// ```
/// use ampoule_runtime::Pool;
/// use std::sync::atomic::{AtomicUsize, Ordering};
/// let pool = Pool::new(2);
/// let calls = AtomicUsize::new(0);
/// pool.run(&|_worker| { calls.fetch_add(1, Ordering::Relaxed); });
/// assert_eq!(calls.into_inner(), 2);
/// ```
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    threads: Vec<Thread>,
    /// Serialises callers: one job at a time.
    turn: Mutex<()>,
}

#[derive(Debug)]
struct Shared {
    /// Number of the current job; odd values never occur, so 0 means none yet.
    epoch: AtomicU64,
    /// Address of the current job, a `*const Job`.
    job: AtomicUsize,
    /// Workers that have not finished the current job.
    pending: AtomicUsize,
    stop: AtomicBool,
    panicked: AtomicBool,
}

/// A job on the caller's stack.
struct Job<'f> {
    call: &'f (dyn Fn(usize) + Sync),
}

impl Pool {
    /// A pool of `threads` threads in all: the caller and `threads − 1` workers.
    pub fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared {
            epoch: AtomicU64::new(0),
            job: AtomicUsize::new(0),
            pending: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
        });
        let spawn = |index: usize| {
            let shared = Arc::clone(&shared);
            thread::Builder::new()
                .name("ampoule".into())
                .spawn(move || work(&shared, index))
                .ok()
        };
        let workers: Vec<_> = (1..threads.clamp(1, MAX_THREADS))
            .map_while(spawn)
            .collect();
        let threads = workers.iter().map(|w| w.thread().clone()).collect();
        Pool {
            shared,
            workers,
            threads,
            turn: Mutex::new(()),
        }
    }

    /// Threads that take part in a job, the caller included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `f(worker)` once on every thread, `worker` counting from 0 (the caller), and returns when
    /// all calls have returned. A panic in a worker's call is raised again here.
    pub fn run(&self, f: &(dyn Fn(usize) + Sync)) {
        let _turn = self
            .turn
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let job = Job { call: f };
        let shared = &*self.shared;
        shared.pending.store(self.workers.len(), Ordering::Relaxed);
        shared.job.store(&raw const job as usize, Ordering::Relaxed);
        shared.epoch.fetch_add(1, Ordering::Release);
        self.threads.iter().for_each(Thread::unpark);
        // The guard waits for the workers even when `f` panics here: they borrow `job` and `f`.
        let guard = Wait(shared);
        f(0);
        drop(guard);
        if shared.panicked.swap(false, Ordering::Relaxed) {
            panic!("a pool worker panicked");
        }
    }
}

/// Waits for all workers when dropped.
struct Wait<'s>(&'s Shared);

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let mut spins = 0u32;
        while self.0.pending.load(Ordering::Acquire) > 0 {
            spins += 1;
            if spins < SPINS {
                core::hint::spin_loop()
            } else {
                thread::yield_now()
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.threads.iter().for_each(Thread::unpark);
        for worker in self.workers.drain(..) {
            // A worker catches its job's panics, so joining can't fail in a way that matters here.
            let _ = worker.join();
        }
    }
}

fn work(shared: &Shared, index: usize) {
    let mut seen = 0;
    loop {
        let mut spins = 0u32;
        let epoch = loop {
            let epoch = shared.epoch.load(Ordering::Acquire);
            if epoch != seen {
                break epoch;
            }
            if shared.stop.load(Ordering::Acquire) {
                return;
            }
            spins += 1;
            if spins < SPINS {
                core::hint::spin_loop()
            } else {
                thread::park()
            }
        };
        seen = epoch;
        // SAFETY: `job` was stored before the epoch's release that the acquire above observed, and
        // points at a `Job` on the stack of `Pool::run`, which does not return (nor unwind past its
        // guard) before `pending` reaches 0; this worker decrements it only after its last use.
        let job = unsafe { &*(shared.job.load(Ordering::Relaxed) as *const Job<'_>) };
        let call = std::panic::AssertUnwindSafe(|| (job.call)(index));
        if std::panic::catch_unwind(call).is_err() {
            shared.panicked.store(true, Ordering::Relaxed);
        }
        shared.pending.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thread_is_called_once_per_job() {
        let pool = Pool::new(3);
        for _ in 0..1000 {
            let hits: [AtomicUsize; 3] = Default::default();
            pool.run(&|i| {
                hits[i].fetch_add(1, Ordering::Relaxed);
            });
            assert!(hits.iter().all(|h| h.load(Ordering::Relaxed) == 1));
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let pool = Pool::new(2);
        let panics = |who: usize| {
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                pool.run(&|i| assert!(i != who))
            }))
            .is_err()
        };
        assert!(panics(1) && panics(0));
        pool.run(&|_| ());
    }
}
