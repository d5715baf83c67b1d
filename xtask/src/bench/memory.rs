//! How fast this machine reads its memory: the floor under a decode step.

use std::hint::black_box;
use std::time::Instant;

use super::ours::median;

/// Larger than any cache we know of.
const BYTES: usize = 1 << 30;
const ROUNDS: usize = 5;

/// Streams that a thread reads side by side, each tried: how many a core needs to keep its memory busy differs.
const STREAMS: [usize; 3] = [1, 4, 8];

/// Bytes a second that `threads` threads read together: the median of several passes over a buffer, of the fastest way
/// of reading it.
pub fn read_bandwidth(threads: usize) -> f64 {
    // Written, so that every page is there; not zero, so that no page is shared.
    let buffer: Vec<u64> = (0..BYTES as u64 / 8).collect();
    let share = buffer.len().div_ceil(threads.max(1));
    let rate = |streams: usize| {
        let start = Instant::now();
        std::thread::scope(|scope| {
            for part in buffer.chunks(share) {
                scope.spawn(move || black_box(sum(part, streams)));
            }
        });
        BYTES as f64 / start.elapsed().as_secs_f64()
    };
    let median_rate = |streams| median(&mut (0..ROUNDS).map(|_| rate(streams)).collect::<Vec<_>>());
    STREAMS.into_iter().map(median_rate).fold(0.0, f64::max)
}

/// The sum of `numbers`, read as several streams in turn.
fn sum(numbers: &[u64], streams: usize) -> u64 {
    /// Numbers of a stream that are read before the next stream's turn.
    const RUN: usize = 64;
    let length = numbers.len() / streams / RUN * RUN;
    let mut lanes = [0u64; 16];
    for start in (0..length).step_by(RUN) {
        for stream in numbers.chunks_exact(length).take(streams) {
            for chunk in stream[start..start + RUN].as_chunks::<16>().0 {
                chunk.iter().zip(&mut lanes).for_each(|(n, lane)| *lane = lane.wrapping_add(*n));
            }
        }
    }
    lanes.iter().fold(0, |a, b| a.wrapping_add(*b))
}
