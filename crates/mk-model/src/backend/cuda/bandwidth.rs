//! How fast a GPU reads its memory: the floor under a decode step.

use std::time::Instant;

use mk_sys::device::{Device, Memory};

use super::kernels::unavailable;
use super::raw;
use crate::error::Result;

/// Far larger than any cache.
const BYTES: usize = 1 << 30;
/// Launches timed together.
const LAUNCHES: u32 = 10;
/// Blocks for each multiprocessor, each tried.
const BLOCKS: [u32; 3] = [4, 8, 16];

/// Bytes a second that the GPU of this number reads, of the fastest of several ways, each the best of three passes.
///
/// # Errors
/// [`crate::Error::Unavailable`] where there is no such GPU, [`crate::Error::Device`] where it fails.
pub fn read_bandwidth(ordinal: usize) -> Result<f64> {
    let device = Device::open(ordinal).map_err(|e| unavailable(e.to_string()))?;
    let image = mk_sys::kernels::image(device.info().compute_capability)
        .map_err(|e| unavailable(e.to_string()))?;
    let kernel = device.load(image)?.kernel("mk_read")?;
    let stream = device.stream()?;
    let memory: Memory = device.memory(BYTES)?;
    // Not zeros, which may be cheaper to move.
    stream.fill(&memory, 0, BYTES, 0x5a)?;
    let mut best = 0.0_f64;
    for blocks in BLOCKS.map(|blocks| blocks * device.info().multiprocessors) {
        raw::read(&stream, &kernel, blocks, &memory)?;
        for _ in 0..3 {
            stream.synchronize()?;
            let start = Instant::now();
            for _ in 0..LAUNCHES {
                raw::read(&stream, &kernel, blocks, &memory)?;
            }
            stream.synchronize()?;
            let seconds = start.elapsed().as_secs_f64() / f64::from(LAUNCHES);
            best = best.max(BYTES as f64 / seconds);
        }
    }
    Ok(best)
}
