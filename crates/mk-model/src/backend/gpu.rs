//! How a model is put on an NVIDIA GPU.

/// Which GPU, and how much of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CudaOptions {
    /// Its number in the driver's order.
    pub ordinal: usize,
    /// Whether to run the kernels that are made for no chip in particular, which the driver compiles: what a chip gets
    /// that this program does not know.
    pub portable: bool,
    /// Multiprocessors to use at most. All if `None`; with fewer than a chip's own kernels need, the portable ones run.
    pub multiprocessors: Option<u32>,
    /// Bytes of shared memory to use at most in a block. All if `None`.
    pub shared_memory: Option<u32>,
    /// What is to go wrong.
    pub fault: Option<CudaFault>,
}

/// A fault on purpose, to see what becomes of it: a wait of the decode kernel that takes too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CudaFault {
    /// It happens in launches whose first position this is, and in no others.
    pub position: usize,
    /// Which wait, as `MkPhase` in `kernels/abi.h` numbers them. Waits for other blocks end at the first look; the ring of
    /// block 0 is not filled.
    pub wait: u32,
}
