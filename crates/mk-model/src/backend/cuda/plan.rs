//! How the decode kernel is spread over a device.

use mk_sys::abi::MkShape;
use mk_sys::driver::Device;

/// A launch, cut to the device: all of its blocks are there at once, one a multiprocessor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    /// Blocks; with fewer than the kernel has shares, each takes several, as evenly as it goes.
    pub(super) blocks: u32,
    /// Slots of a block's ring.
    pub(super) slots: u32,
    /// Dynamic shared memory of a block.
    pub(super) shared_bytes: u32,
}

impl Plan {
    /// For a device of so many multiprocessors, and so many bytes of shared memory for a block.
    ///
    /// # Errors
    /// What there is too little of.
    pub(super) fn new(
        shape: &MkShape,
        multiprocessors: u32,
        shared_memory: u32,
    ) -> Result<Self, String> {
        let needed = shape.min_blocks.max(1);
        if multiprocessors < needed {
            return Err(format!(
                "the kernel needs {needed} multiprocessors, there are {multiprocessors}"
            ));
        }
        // A phase takes as long as the blocks with the most shares, so the fewest blocks with no more are as fast.
        let most = shape.shares.div_ceil(multiprocessors);
        let blocks = shape.shares.div_ceil(most);
        let beside_ring = shape.shared_bytes + (most - 1) * shape.share_bytes;
        let slots =
            (shared_memory.saturating_sub(beside_ring) / shape.slot_bytes).min(shape.max_slots);
        if slots < shape.min_slots {
            let needed = beside_ring + shape.min_slots * shape.slot_bytes;
            return Err(format!(
                "a block of the kernel needs {needed} bytes of shared memory where there are {blocks} multiprocessors, \
                 it can have {shared_memory}"
            ));
        }
        Ok(Self { blocks, slots, shared_bytes: beside_ring + slots * shape.slot_bytes })
    }
}

/// Clocks of the device in which its memory, at its peak, fills a slot of every block, less a twelfth: copies that come no
/// faster come evenly, where bursts delay what blocks hand to each other. 0, no pace, where the driver does not know the clocks.
pub(super) fn pace(shape: &MkShape, device: &Device) -> u32 {
    let bytes = f64::from(shape.slot_bytes) * f64::from(shape.shares);
    let peak = device.memory_bandwidth();
    if peak == 0 {
        return 0;
    }
    (bytes / peak as f64 * f64::from(device.clock_khz) * 1e3 * 11.0 / 12.0) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of about the size of the kernels' own, which only a device can read.
    fn shape(min_blocks: u32, min_slots: u32) -> MkShape {
        MkShape {
            shares: 128,
            min_blocks,
            shared_bytes: 39 << 10,
            share_bytes: 5300,
            slot_bytes: 16 << 10,
            min_slots,
            max_slots: 11,
            ..raw_shape()
        }
    }

    fn raw_shape() -> MkShape {
        super::super::raw::parse(&[0; size_of::<MkShape>()]).unwrap()
    }

    /// Multiprocessors and shared memory a block of A100, RTX 3090, RTX 3060, RTX 4090, RTX 5090.
    #[test]
    fn a_ring_fits_every_chip() {
        for (multiprocessors, kib, blocks, slots) in [
            (108, 163, 64, 7),
            (82, 99, 64, 3),
            (28, 99, 26, 2),
            (128, 99, 128, 3),
            (170, 99, 128, 3),
        ] {
            let plan = Plan::new(&shape(1, 2), multiprocessors, kib << 10).unwrap();
            assert_eq!((plan.blocks, plan.slots), (blocks, slots), "{multiprocessors} {kib}");
            assert!(plan.shared_bytes <= kib << 10);
        }
        let plan = Plan::new(&shape(128, 11), 132, 227 << 10).unwrap();
        assert_eq!((plan.blocks, plan.slots), (128, 11));
    }

    #[test]
    fn the_pace_follows_the_memory() {
        let device = |memory_clock_khz, memory_bus_bits| Device {
            name: String::new(),
            compute_capability: (9, 0),
            multiprocessors: 132,
            memory: 0,
            l2_cache: 0,
            shared_memory_per_block: 0,
            clock_khz: 1_980_000,
            memory_clock_khz,
            memory_bus_bits,
        };
        // H200, H100: 4.9 and 3.4 TB/s.
        assert_eq!(pace(&shape(128, 11), &device(3_201_000, 6144)), 774);
        assert_eq!(pace(&shape(128, 11), &device(2_619_000, 5120)), 1135);
        assert_eq!(pace(&shape(128, 11), &device(0, 6144)), 0);
    }

    #[test]
    fn what_does_not_fit_is_said() {
        let error = |shape, multiprocessors, kib: u32| {
            Plan::new(&shape, multiprocessors, kib << 10).unwrap_err()
        };
        assert!(
            error(shape(128, 11), 114, 227).contains("needs 128 multiprocessors, there are 114")
        );
        assert!(error(shape(1, 2), 0, 99).contains("there are 0"));
        assert!(error(shape(128, 11), 132, 99).contains("it can have 101376"));
        // Each block would have to keep the logits of 32 shares.
        assert!(error(shape(1, 2), 4, 99).contains("where there are 4 multiprocessors"));
    }
}
