//! One seed, one run: the system's random numbers under the seed too.
//!
//! str0m keeps hash maps, whose order follows random keys that the standard library draws from `getrandom`. This module
//! replaces that function for the whole program; on a thread of [`seeded`] it follows the seed, elsewhere it counts.
#![expect(unsafe_code, reason = "a C function can be replaced only by one that writes through a pointer")]

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

thread_local! {
    static STATE: Cell<Option<u64>> = const { Cell::new(None) };
}

static ELSEWHERE: AtomicU64 = AtomicU64::new(0);

/// Runs `f` on a thread of its own on which every random number follows from `seed`.
pub fn seeded<T: Send>(seed: u64, f: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let run = scope.spawn(|| {
            STATE.set(Some(seed));
            f()
        });
        run.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Replaces the C library's `getrandom`.
///
/// # Safety
/// `buffer` points to `len` writable bytes, as the C function demands.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut u8, len: usize, _flags: u32) -> isize {
    // SAFETY: the caller gives `len` writable bytes, as for the function this one stands in for.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer, len) };
    for chunk in bytes.chunks_mut(8) {
        chunk.copy_from_slice(&next().to_le_bytes()[..chunk.len()]);
    }
    len as isize
}

/// SplitMix64 over the thread's state, or over a common counter.
fn next() -> u64 {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let state = match STATE.get() {
        Some(state) => {
            STATE.set(Some(state.wrapping_add(STEP)));
            state
        }
        None => ELSEWHERE.fetch_add(STEP, Ordering::Relaxed),
    };
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn a_hash_map_has_one_order_under_one_seed() {
        let order = || {
            seeded(7, || (0..1000).map(|key| (key, ())).collect::<HashMap<u32, ()>>().into_keys().collect())
        };
        let (first, second): (Vec<u32>, Vec<u32>) = (order(), order());
        assert_eq!(first, second);
        assert_ne!(
            first,
            seeded(8, || (0..1000)
                .map(|key| (key, ()))
                .collect::<HashMap<u32, ()>>()
                .into_keys()
                .collect::<Vec<u32>>())
        );
    }
}
