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
/// let next = AtomicUsize::new(0);
/// pool.run(&|_worker| while next.fetch_add(1, Ordering::Relaxed) < 100 { /* one piece of work */ });
/// assert!(next.into_inner() >= 100);
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
    /// The current job: its number from bit [`EPOCH`] on, whether it is [`OPEN`] to workers, and
    /// [`ACTIVE`] times the workers that have joined and not finished it.
    state: AtomicU64,
    /// Address of the current job, a `*const Job`.
    job: AtomicUsize,
    stop: AtomicBool,
    panicked: AtomicBool,
}

const OPEN: u64 = 1;
const ACTIVE: u64 = 2;
const EPOCH: u32 = 16;

/// A job on the caller's stack.
struct Job<'f> {
    call: &'f (dyn Fn(usize) + Sync),
}

impl Pool {
    /// A pool of `threads` threads in all: the caller and `threads − 1` workers.
    pub fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            job: AtomicUsize::new(0),
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

    /// Calls `f(0)` here and `f(worker)`, counting from 1, on each worker that is free before that
    /// returns; returns when all calls have. A worker that the system keeps from running is not
    /// waited for, so `f` must hand out its work until none is left. A panic in a worker's call is
    /// raised again here.
    pub fn run(&self, f: &(dyn Fn(usize) + Sync)) {
        let _turn = self
            .turn
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let job = Job { call: f };
        let shared = &*self.shared;
        shared.job.store(&raw const job as usize, Ordering::Relaxed);
        let epoch = (shared.state.load(Ordering::Relaxed) >> EPOCH).wrapping_add(1);
        shared.state.store(epoch << EPOCH | OPEN, Ordering::Release);
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

/// Closes the job and waits for the workers that have joined, when dropped.
struct Wait<'s>(&'s Shared);

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let joined = |state: u64| state % (1 << EPOCH) / ACTIVE;
        let mut state = self.0.state.fetch_and(!OPEN, Ordering::Acquire);
        let mut spins = 0u32;
        while joined(state) > 0 {
            spins += 1;
            if spins < SPINS {
                core::hint::spin_loop()
            } else {
                thread::yield_now()
            }
            state = self.0.state.load(Ordering::Acquire);
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
    let mut spins = 0u32;
    while !shared.stop.load(Ordering::Acquire) {
        let state = shared.state.load(Ordering::Acquire);
        let joined = state >> EPOCH != seen
            && state & OPEN != 0
            && shared
                .state
                .compare_exchange(state, state + ACTIVE, Ordering::Acquire, Ordering::Relaxed)
                .is_ok();
        if joined {
            (seen, spins) = (state >> EPOCH, 0);
            call(shared, index);
            shared.state.fetch_sub(ACTIVE, Ordering::Release);
            continue;
        }
        spins += 1;
        if spins < SPINS {
            core::hint::spin_loop()
        } else {
            thread::park()
        }
    }
}

/// Makes this worker's call of the job that it has joined.
fn call(shared: &Shared, index: usize) {
    // SAFETY: `job` was stored before the release of the state that the worker joined with an acquire.
    // It points at a `Job` on the stack of `Pool::run`, which does not return, nor unwind past its
    // guard, before the workers that have joined are done; this one is done after its last use.
    let job = unsafe { &*(shared.job.load(Ordering::Relaxed) as *const Job<'_>) };
    let call = std::panic::AssertUnwindSafe(|| (job.call)(index));
    if std::panic::catch_unwind(call).is_err() {
        shared.panicked.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_done_whoever_comes() {
        let pool = Pool::new(3);
        for _ in 0..1000 {
            let (left, calls) = (AtomicUsize::new(50), [const { AtomicUsize::new(0) }; 3]);
            pool.run(&|i| {
                calls[i].fetch_add(1, Ordering::Relaxed);
                let take = |n: usize| n.checked_sub(1);
                while left
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
                    .is_ok()
                {}
            });
            assert_eq!(left.into_inner(), 0);
            assert!(calls.iter().all(|c| c.load(Ordering::Relaxed) <= 1));
        }
    }

    #[test]
    fn workers_join_while_the_caller_is_busy() {
        let pool = Pool::new(3);
        let arrived = AtomicUsize::new(0);
        pool.run(&|_| {
            arrived.fetch_add(1, Ordering::Relaxed);
            while arrived.load(Ordering::Relaxed) < 3 {
                thread::yield_now();
            }
        });
        assert_eq!(arrived.into_inner(), 3);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let pool = Pool::new(2);
        let both = AtomicUsize::new(0);
        let panics = |who: usize| {
            both.store(0, Ordering::Relaxed);
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                pool.run(&|i| {
                    both.fetch_add(1, Ordering::Relaxed);
                    while both.load(Ordering::Relaxed) < 2 {
                        thread::yield_now();
                    }
                    assert!(i != who);
                })
            }))
            .is_err()
        };
        assert!(panics(1) && panics(0));
        pool.run(&|_| ());
    }
}
