//! How a step's output is split: by whole rows, over the threads of a pool where there is one.

use crate::error::Error;
#[cfg(feature = "std")]
use crate::pool::Pool;

/// Most parts that a step is split into.
#[cfg(feature = "std")]
pub(crate) const MAX_PARTS: usize = crate::pool::MAX_THREADS;
/// Most parts that a step is split into.
#[cfg(not(feature = "std"))]
pub(crate) const MAX_PARTS: usize = 1;

/// Where a step runs.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Exec<'p> {
    #[cfg(feature = "std")]
    pub pool: Option<&'p Pool>,
    #[cfg(not(feature = "std"))]
    pub pool: core::marker::PhantomData<&'p ()>,
}

/// Multiply-accumulates (or bytes moved) below which handing out a job costs more than it gains.
#[cfg(feature = "std")]
const WORTH_SPLITTING: usize = 100_000;

impl Exec<'_> {
    /// Calls `f(first_row, rows_of_y, scratch)` for disjoint runs of rows that cover `y`.
    ///
    /// A row is `row` elements; runs start at multiples of `grain` rows. `cost` is the work of the
    /// whole call in multiply-accumulates. Each run has its share of `scratch`, at least `least` bytes.
    pub fn rows<T: Send>(
        &self,
        y: &mut [T],
        row: usize,
        grain: usize,
        cost: usize,
        scratch: &mut [u8],
        least: usize,
        f: impl Fn(usize, &mut [T], &mut [u8]) -> Result<(), Error> + Sync,
    ) -> Result<(), Error> {
        #[cfg(feature = "std")]
        if let Some(pool) = self
            .pool
            .filter(|p| p.threads() > 1 && cost >= WORTH_SPLITTING)
        {
            return split(pool, y, row.max(1), grain.max(1), scratch, least, &f);
        }
        let _ = (row, grain, cost, least);
        f(0, y, scratch)
    }

    /// Threads that are worth using for that many multiply-accumulates.
    pub fn threads(&self, cost: usize) -> usize {
        #[cfg(feature = "std")]
        if let Some(pool) = self.pool.filter(|_| cost >= WORTH_SPLITTING) {
            return pool.threads().clamp(1, MAX_PARTS);
        }
        let _ = cost;
        1
    }

    /// Calls `f` with every part, each taken by one thread.
    pub fn each<P: Send>(
        &self,
        parts: &mut [Option<P>; MAX_PARTS],
        f: &(impl Fn(P) -> Result<(), Error> + Sync),
    ) -> Result<(), Error> {
        #[cfg(feature = "std")]
        if let Some(pool) = self.pool.filter(|_| parts.iter().flatten().count() > 1) {
            return share(pool, parts, f);
        }
        parts.iter_mut().filter_map(Option::take).try_for_each(f)
    }
}

/// Splits rows into parts and shares them out.
#[cfg(feature = "std")]
fn split<T: Send>(
    pool: &Pool,
    y: &mut [T],
    row: usize,
    grain: usize,
    scratch: &mut [u8],
    least: usize,
    f: &(impl Fn(usize, &mut [T], &mut [u8]) -> Result<(), Error> + Sync),
) -> Result<(), Error> {
    let grains = (y.len() / row).div_ceil(grain);
    let threads = pool.threads().min(grains).max(1);
    // Where there is much to do, a thread that comes late leaves some of it to the others.
    let runs = if grains >= 32 * threads {
        (2 * threads).min(MAX_PARTS)
    } else {
        threads
    };
    let aligned = least.next_multiple_of(crate::ARENA_ALIGN);
    let runs = runs.min(scratch.len().checked_div(aligned).unwrap_or(runs).max(1));
    // Scratch runs keep the arena's alignment.
    let work_bytes = if runs == 1 {
        scratch.len()
    } else {
        scratch.len() / runs / crate::ARENA_ALIGN * crate::ARENA_ALIGN
    };
    let mut parts = [const { None }; MAX_PARTS];
    let (mut rest, mut scratch, mut first) = (y, scratch, 0);
    for (i, part) in parts.iter_mut().take(runs).enumerate() {
        let end = end_of(i, runs, grains, grain * row)
            .saturating_sub(first * row)
            .min(rest.len());
        let (mine, tail) = if i + 1 == runs {
            (rest, [].as_mut_slice())
        } else {
            rest.split_at_mut(end)
        };
        let (work, other) = scratch.split_at_mut(work_bytes.min(scratch.len()));
        let rows = mine.len() / row;
        *part = Some((first, mine, work));
        (rest, scratch, first) = (tail, other, first + rows);
    }
    share(pool, &mut parts, &|(first, y, scratch)| {
        f(first, y, scratch)
    })
}

/// Where run `i` of `runs` ends that share `grains` of `size` elements.
#[cfg(feature = "std")]
fn end_of(i: usize, runs: usize, grains: usize, size: usize) -> usize {
    let grains = share_of(i + 1, runs, grains) as u64;
    // The last grain may reach beyond what there is, and beyond what 32 bits count.
    usize::try_from(grains.saturating_mul(size as u64)).unwrap_or(usize::MAX)
}

/// Where run `i` begins of `runs` that share `n` things: products of 32-bit sizes need 64 bits.
pub(crate) fn share_of(i: usize, runs: usize, n: usize) -> usize {
    (n as u64 * i as u64 / runs.max(1) as u64) as usize
}

/// Threads take parts one after another, each its own first.
#[cfg(feature = "std")]
fn share<P: Send>(
    pool: &Pool,
    parts: &mut [Option<P>; MAX_PARTS],
    f: &(impl Fn(P) -> Result<(), Error> + Sync),
) -> Result<(), Error> {
    use std::sync::Mutex;
    let count = parts.iter().flatten().count();
    let parts = parts.each_mut().map(Mutex::new);
    let failure = Mutex::new(None);
    pool.run(&|worker| {
        for i in 0..count {
            let slot = &parts[(worker + i) % count];
            let part = slot.try_lock().ok().and_then(|mut p| p.take());
            if let Some(part) = part
                && let Err(e) = f(part)
                && let Ok(mut failure) = failure.lock()
            {
                *failure = Some(e);
            }
        }
    });
    failure.into_inner().ok().flatten().map_or(Ok(()), Err)
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use super::*;

    #[test]
    fn sizes_beyond_32_bits_share_out() {
        assert_eq!(share_of(3, 4, u32::MAX as usize), 3_221_225_471);
        assert_eq!(end_of(0, 2, 3, usize::MAX / 2 + 1), usize::MAX / 2 + 1);
        assert_eq!(end_of(1, 2, 3, usize::MAX / 2 + 1), usize::MAX);
        assert_eq!((share_of(7, 7, 100), share_of(0, 7, 100)), (100, 0));
    }

    #[test]
    fn runs_cover_the_output_once() {
        let pool = Pool::new(3);
        let exec = Exec { pool: Some(&pool) };
        for rows in 1..40 {
            let mut y = std::vec![0u32; rows * 5];
            let mut scratch = std::vec![0u8; 1000];
            exec.rows(&mut y, 5, 4, usize::MAX, &mut scratch, 0, |first, y, _| {
                assert_eq!(first % 4, 0);
                y.iter_mut()
                    .enumerate()
                    .for_each(|(i, v)| *v += (first * 5 + i) as u32 + 1);
                Ok(())
            })
            .unwrap();
            assert!(y.iter().enumerate().all(|(i, &v)| v == i as u32 + 1));
        }
    }
}
