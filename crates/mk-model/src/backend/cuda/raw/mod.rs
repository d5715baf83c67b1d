//! The launches: where buffers become the pointers of a kernel's parameter. The one part of the backend with `unsafe`.

#![allow(unsafe_code)]

mod baseline;
mod decode;
mod prefill;

use mk_sys::abi::{MkGemm, MkPackHead, MkPackLayer, MkRead, MkShape};
use mk_sys::device::{Grid, Kernel, Memory, Stream};
use mk_sys::driver::DriverError;

pub(super) use baseline::{BaselineCall, queue_token, replay};
pub(super) use decode::{DecodeCall, HandedIn, decode};
pub(super) use prefill::{PrefillCall, prefill};

use super::kernels::Kernels;

/// A variable of a module that is made of plain integers.
pub(super) trait Variable: Copy {}

impl Variable for MkShape {}
impl Variable for [MkGemm; 5] {}
impl Variable for u32 {}

/// Reads a variable of a module; `None` if it is not of the size that this program knows.
pub(super) fn parse<T: Variable>(bytes: &[u8]) -> Option<T> {
    (bytes.len() == size_of::<T>()).then(|| {
        // SAFETY: the types are of plain integers, for which all bits are values; the read need not be aligned.
        unsafe { bytes.as_ptr().cast::<T>().read_unaligned() }
    })
}

/// One thread for 16 packed bytes.
fn pack_grid(bytes: usize) -> Grid {
    let blocks = u32::try_from((bytes / 16).div_ceil(256)).unwrap_or(u32::MAX);
    Grid { blocks: [blocks, 1, 1], threads: 256, shared: 0, cooperative: false }
}

/// Packs the layer whose matrices (q, k, v; o; gate, up; down) lie in `plain` at these offsets.
pub(super) fn pack_layer(
    stream: &Stream,
    kernels: &Kernels,
    (plain, [qkv, o, gate_up, down]): (&Memory, [usize; 4]),
    (packed, layer): (&Memory, usize),
) -> Result<(), DriverError> {
    let bytes = kernels.shape.layer_bytes as usize;
    assert!(plain.len() >= bytes && packed.len() >= (layer + 1) * bytes, "a layer does not fit");
    let at = |offset: usize| (plain.address() + offset as u64) as *const u16;
    let parameter = MkPackLayer {
        qkv: at(qkv),
        o: at(o),
        gate_up: at(gate_up),
        down: at(down),
        out: (packed.address() + (layer * bytes) as u64) as *mut u8,
    };
    // SAFETY: both sides have been checked for size; packing reads each weight once and writes each packed byte once.
    unsafe { stream.launch(&kernels.pack_layer, pack_grid(bytes), &parameter) }
}

/// Packs an output head of `vocab` rows.
pub(super) fn pack_head(
    stream: &Stream,
    kernels: &Kernels,
    plain: &Memory,
    packed: &Memory,
    vocab: usize,
) -> Result<(), DriverError> {
    let shape = &kernels.shape;
    let bytes = vocab.div_ceil(8) * shape.head_tile_bytes as usize;
    let fits = plain.len() >= vocab * shape.hidden as usize * 2 && packed.len() >= bytes;
    assert!(fits, "a head does not fit");
    let parameter = MkPackHead {
        head: plain.address() as *const u16,
        out: packed.address() as *mut u8,
        vocab: vocab as i64,
    };
    // SAFETY: as in `pack_layer`.
    unsafe { stream.launch(&kernels.pack_head, pack_grid(bytes), &parameter) }
}

/// Reads all of `memory`.
pub(super) fn read(
    stream: &Stream,
    kernel: &Kernel,
    blocks: u32,
    memory: &Memory,
) -> Result<(), DriverError> {
    let parameter = MkRead {
        from: memory.address() as *const u8,
        bytes: memory.len() as u64,
        out: memory.address() as *mut u32,
    };
    let grid = Grid { blocks: [blocks, 1, 1], threads: 512, shared: 0, cooperative: false };
    // SAFETY: the kernel reads no more than the memory, and writes at most its first word.
    unsafe { stream.launch(kernel, grid, &parameter) }
}
