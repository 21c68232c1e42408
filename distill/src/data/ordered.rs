//! Work done by several threads, with the results in order and a bounded number of them waiting.

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::resume_unwind;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

/// An iterator over `work(i)` for the indices of a range, in order.
///
/// Threads take the next index whenever they are free, but none that lies `ahead` or more beyond the
/// one that the consumer waits for. Dropping the iterator ends the threads.
pub(crate) struct Ordered<T> {
    shared: Arc<Shared<T>>,
    threads: Vec<JoinHandle<()>>,
    next: usize,
    end: usize,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    /// The next index that a thread takes.
    free: usize,
    /// Indices from here on must wait.
    limit: usize,
    ready: BTreeMap<usize, T>,
    stopped: bool,
}

impl<T: Send + 'static> Ordered<T> {
    /// Starts the threads; `worker` makes what each of them works with.
    pub fn new<W: FnMut(usize) -> T + Send + 'static>(
        range: Range<usize>,
        threads: usize,
        ahead: usize,
        mut worker: impl FnMut() -> W,
    ) -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                free: range.start,
                limit: range.start.saturating_add(ahead.max(1)).min(range.end),
                ready: BTreeMap::new(),
                stopped: false,
            }),
            changed: Condvar::new(),
        });
        let end = range.end;
        let start = |_| {
            let (shared, mut work) = (shared.clone(), worker());
            thread::spawn(move || {
                let _stop = StopOnPanic(&shared);
                while let Some(index) = shared.take(end) {
                    let result = work(index);
                    shared.lock().ready.insert(index, result);
                    shared.changed.notify_all();
                }
            })
        };
        Ordered {
            threads: (0..threads.max(1)).map(start).collect(),
            shared,
            next: range.start,
            end,
        }
    }
}

impl<T> Iterator for Ordered<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        if self.next == self.end {
            return None;
        }
        let shared = self.shared.clone();
        let mut state = shared.lock();
        loop {
            if let Some(result) = state.ready.remove(&self.next) {
                self.next += 1;
                state.limit = (state.limit + 1).min(self.end);
                shared.changed.notify_all();
                return Some(result);
            }
            if state.stopped {
                drop(state);
                let results = self.threads.drain(..).map(JoinHandle::join);
                if let Some(panic) = results.filter_map(Result::err).next() {
                    resume_unwind(panic);
                }
                return None;
            }
            state = wait(&shared.changed, state);
        }
    }
}

impl<T> Drop for Ordered<T> {
    fn drop(&mut self) {
        self.shared.stop();
        for thread in self.threads.drain(..) {
            let _ = thread.join(); // a panic was passed on by `next`, or nobody waits for the result
        }
    }
}

impl<T> Shared<T> {
    /// Waits for an index to work on; `None` when there are no more.
    fn take(&self, end: usize) -> Option<usize> {
        let mut state = self.lock();
        loop {
            if state.stopped || state.free == end {
                return None;
            }
            if state.free < state.limit {
                state.free += 1;
                return Some(state.free - 1);
            }
            state = wait(&self.changed, state);
        }
    }

    fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Work happens outside the lock, so that a panic leaves the state whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wait<'g, T>(changed: &Condvar, state: MutexGuard<'g, T>) -> MutexGuard<'g, T> {
    changed.wait(state).unwrap_or_else(PoisonError::into_inner)
}

/// Ends everything when a thread panics, so that nobody waits for its result.
struct StopOnPanic<'s, T>(&'s Shared<T>);

impl<T> Drop for StopOnPanic<'_, T> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.stop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn results_come_in_order_whatever_the_threads() {
        for threads in [1, 2, 5, 16] {
            for ahead in [1, 3, 100] {
                let slow = |i: usize| {
                    thread::sleep(std::time::Duration::from_micros(
                        (i * 7919 % 5) as u64 * 100,
                    ));
                    i * i
                };
                let all: Vec<usize> = Ordered::new(3..40, threads, ahead, || slow).collect();
                assert!(all.into_iter().eq((3..40).map(|i| i * i)));
            }
        }
        assert_eq!(Ordered::new(5..5, 2, 2, || |i| i).count(), 0);
    }

    #[test]
    fn no_more_than_asked_wait() {
        let started = Arc::new(AtomicUsize::new(0));
        let worker = || {
            let started = started.clone();
            move |i| {
                started.fetch_add(1, Ordering::SeqCst);
                i
            }
        };
        let mut ordered = Ordered::new(0..1000, 4, 8, worker);
        assert_eq!(ordered.by_ref().take(10).count(), 10);
        thread::sleep(std::time::Duration::from_millis(50));
        assert!(started.load(Ordering::SeqCst) <= 18);
        drop(ordered); // ends the threads
    }

    #[test]
    fn a_panic_reaches_the_consumer() {
        let worker = || |i: usize| assert!(i != 5, "five");
        let mut ordered = Ordered::new(0..10, 3, 4, worker);
        let all =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| ordered.by_ref().count()));
        assert_eq!(all.unwrap_err().downcast_ref(), Some(&"five"));
    }
}
