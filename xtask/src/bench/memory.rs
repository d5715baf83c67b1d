//! How fast this machine reads its memory: the floor under a decode step.

use std::hint::black_box;
use std::time::Instant;

/// Larger than any cache we know of.
const BYTES: usize = 2 << 30;
const ROUNDS: usize = 7;

/// Bytes a second that `threads` threads read together; the median of several passes over a buffer.
pub fn read_bandwidth(threads: usize) -> f64 {
    // Written, so that every page is there; not zero, so that no page is shared.
    let buffer: Vec<u64> = (0..BYTES as u64 / 8).collect();
    let share = buffer.len().div_ceil(threads.max(1));
    let mut rates: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            std::thread::scope(|scope| {
                for part in buffer.chunks(share) {
                    scope.spawn(move || black_box(sum(part)));
                }
            });
            BYTES as f64 / start.elapsed().as_secs_f64()
        })
        .collect();
    rates.sort_by(f64::total_cmp);
    rates[ROUNDS / 2]
}

/// Several sums side by side, so that loads do not wait for additions.
fn sum(numbers: &[u64]) -> u64 {
    let mut lanes = [0u64; 32];
    for chunk in numbers.chunks_exact(32) {
        chunk.iter().zip(&mut lanes).for_each(|(n, lane)| *lane = lane.wrapping_add(*n));
    }
    lanes.iter().fold(0, |a, b| a.wrapping_add(*b))
}
