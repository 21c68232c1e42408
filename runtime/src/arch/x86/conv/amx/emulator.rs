//! The tile instructions in software, for tests on processors without them.
//!
//! Follows the Intel manual (SDM volume 2, `LDTILECFG`, `TILELOADD`, `TILESTORED`, `TDPBSSD`). What
//! would fault there panics here, and so does an access outside the memory that the driver announced
//! by [`lend`].

use std::cell::RefCell;
use std::ops::Range;
use std::sync::LazyLock;
use std::vec::Vec;

use super::tiles::{TILE, TileConfig};
use crate::arch::x86::Amx;

/// Bytes of a tile row.
const ROW: usize = 64;

/// A tile register with its configured shape; rows and columns beyond it are 0.
#[derive(Clone, Copy)]
struct Tile {
    rows: usize,
    row_bytes: usize,
    data: [[u8; ROW]; TILE],
}

const EMPTY: Tile = Tile {
    rows: 0,
    row_bytes: 0,
    data: [[0; ROW]; TILE],
};

#[derive(Default)]
struct State {
    /// The registers, once configured.
    tiles: Option<[Tile; 8]>,
    /// Memory that loads may touch, as addresses.
    lent: Vec<Range<usize>>,
}

std::thread_local! {
    static STATE: RefCell<State> = RefCell::default();
}

/// Whether the instructions are emulated, because the processor or the system refuses them.
pub(crate) fn is_on() -> bool {
    static ON: LazyLock<bool> = LazyLock::new(|| !Amx::is_real());
    *ON
}

/// Announces memory that loads may touch until the tiles are released. Where some that starts at the
/// same place was lent before, this is its new length.
pub(super) fn lend<T>(memory: &[T]) {
    let range = memory.as_ptr_range();
    let range = range.start as usize..range.end as usize;
    STATE.with_borrow_mut(|s| {
        s.lent.retain(|lent| lent.start != range.start);
        s.lent.push(range);
    });
}

pub(super) fn ldtilecfg(config: &TileConfig) {
    assert_eq!((config.palette, config.start_row), (1, 0), "#GP: palette");
    let shapes = config.rows.iter().zip(&config.row_bytes);
    let mut tiles = [EMPTY; 8];
    for (i, (&rows, &row_bytes)) in shapes.enumerate() {
        let (rows, row_bytes) = (usize::from(rows), usize::from(row_bytes));
        assert!(rows <= TILE && row_bytes <= ROW, "#GP: tile {i} too large");
        assert_eq!(rows == 0, row_bytes == 0, "#GP: tile {i} half empty");
        match tiles.get_mut(i) {
            Some(tile) => (tile.rows, tile.row_bytes) = (rows, row_bytes),
            None => assert_eq!(rows, 0, "#GP: there are 8 tiles"),
        }
    }
    STATE.with_borrow_mut(|s| {
        assert!(s.tiles.is_none(), "configured twice without a release");
        s.tiles = Some(tiles);
    });
}

pub(super) fn tilerelease() {
    STATE.with_borrow_mut(|s| *s = State::default());
}

pub(super) fn tilezero(tile: usize) {
    with(|tiles, _| configured(&mut tiles[tile]).data = EMPTY.data);
}

/// # Safety
///
/// The rows are readable, which is checked against what was lent.
pub(super) unsafe fn tileloadd(tile: usize, base: *const i8, stride: usize) {
    with(|tiles, lent| {
        let tile = configured(&mut tiles[tile]);
        tile.data = EMPTY.data;
        for r in 0..tile.rows {
            let start = base.wrapping_add(r * stride);
            let end = start as usize + tile.row_bytes;
            let inside = |m: &Range<usize>| m.start <= start as usize && end <= m.end;
            assert!(
                lent.iter().any(inside),
                "row {r} of {} is read outside {lent:x?}: {start:p}",
                tile.rows
            );
            // SAFETY: the row lies in a slice that the driver borrows.
            let row = unsafe { std::slice::from_raw_parts(start.cast::<u8>(), tile.row_bytes) };
            tile.data[r][..tile.row_bytes].copy_from_slice(row);
        }
    });
}

/// Stores a tile whose place is one of its largest size.
pub(super) fn tilestored(tile: usize, place: &mut [[i32; ROW / 4]; TILE]) {
    with(|tiles, _| {
        let tile = configured(&mut tiles[tile]);
        for (place, row) in place.iter_mut().zip(&tile.data[..tile.rows]) {
            let (words, _) = row[..tile.row_bytes].as_chunks::<4>();
            place
                .iter_mut()
                .zip(words)
                .for_each(|(p, &w)| *p = i32::from_le_bytes(w));
        }
    });
}

/// `sums += a · b` of signed bytes in fours, without saturation.
pub(super) fn tdpbssd(sums: usize, a: usize, b: usize) {
    assert!(sums != a && sums != b && a != b, "#UD: operands repeat");
    with(|tiles, _| {
        let (a, b) = (*configured(&mut tiles[a]), *configured(&mut tiles[b]));
        let c = configured(&mut tiles[sums]);
        assert_eq!(a.rows, c.rows, "#UD: rows");
        assert_eq!(b.row_bytes, c.row_bytes, "#UD: columns");
        assert_eq!(a.row_bytes, 4 * b.rows, "#UD: depth");
        for (c, a) in c.data.iter_mut().zip(&a.data).take(c.rows) {
            let (sums, _) = c.as_chunks_mut::<4>();
            let (quads, _) = a.as_chunks::<4>();
            for (a, b) in quads.iter().zip(&b.data[..b.rows]) {
                let (columns, _) = b.as_chunks::<4>();
                for (sum, b) in sums.iter_mut().zip(columns) {
                    let mut value = i32::from_le_bytes(*sum);
                    for i in 0..4 {
                        value = value.wrapping_add(i32::from(a[i] as i8) * i32::from(b[i] as i8));
                    }
                    *sum = value.to_le_bytes();
                }
            }
        }
    });
}

fn with(f: impl FnOnce(&mut [Tile; 8], &[Range<usize>])) {
    STATE.with_borrow_mut(|s| {
        let tiles = s.tiles.as_mut().expect("#UD: tiles are not configured");
        f(tiles, &s.lent);
    });
}

fn configured(tile: &mut Tile) -> &mut Tile {
    assert!(tile.rows > 0, "#UD: the tile has no shape");
    tile
}

#[test]
fn products_are_those_of_the_definition() {
    let mut config = TileConfig::EMPTY;
    for (tile, rows, row_bytes) in [(0, 2, 8), (1, 2, 12), (2, 3, 8)] {
        (config.rows[tile], config.row_bytes[tile]) = (rows, row_bytes);
    }
    let a: [i8; 24] = core::array::from_fn(|i| (i as i8).wrapping_mul(37));
    let b: [i8; 24] = core::array::from_fn(|i| (i as i8).wrapping_mul(-91));
    let mut place = [[7; 16]; 16];
    ldtilecfg(&config);
    lend(&a);
    lend(&b);
    // SAFETY: both arrays hold what the shapes say.
    unsafe {
        tileloadd(1, a.as_ptr(), 12);
        tileloadd(2, b.as_ptr(), 8);
    }
    tdpbssd(0, 1, 2);
    tdpbssd(0, 1, 2);
    tilestored(0, &mut place);
    for (m, n) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let dot: i32 = (0..12)
            .map(|k| i32::from(a[m * 12 + k]) * i32::from(b[k / 4 * 8 + n * 4 + k % 4]))
            .sum();
        assert_eq!(place[m][n], 2 * dot);
    }
    assert_eq!((place[0][2], place[2][0]), (7, 7));
    let beyond = std::panic::catch_unwind(|| {
        // SAFETY: the access is refused before it is made.
        unsafe { tileloadd(2, b.as_ptr().wrapping_add(1), 8) }
    });
    assert!(beyond.is_err(), "a load past the end went unnoticed");
    tilerelease();
    assert!(std::panic::catch_unwind(|| tilezero(0)).is_err());
}
