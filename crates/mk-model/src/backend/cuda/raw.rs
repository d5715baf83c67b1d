//! The launches: where buffers become the pointers of a kernel's parameter.

#![allow(unsafe_code)]

use mk_sys::abi::{MK_MAX_STOPS, MkDecode, MkPackHead, MkPackLayer, MkSampling, MkShape};
use mk_sys::device::{Grid, Memory, Stream};
use mk_sys::driver::DriverError;

use super::kernels::Kernels;
use super::state::Buffers;
use super::weights::Weights;

/// Positions up to which attention is split over 4 and over 8 blocks of a key head's 16 (see `kernels/decode/NOTES.md`).
const SPLITS: [i32; 2] = [256, 4096];
/// Polls of about 0.7 µs before a wait is an error: two seconds.
const MAX_TURNS: i32 = 3_000_000;

/// Reads what a module says of its kernels; `None` if it is not of the size that this program knows.
pub(super) fn shape(bytes: &[u8]) -> Option<MkShape> {
    (bytes.len() == size_of::<MkShape>()).then(|| {
        // SAFETY: the struct is of plain integers, of exactly this size; the read need not be aligned.
        unsafe { bytes.as_ptr().cast::<MkShape>().read_unaligned() }
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

/// What one decode launch is to do.
pub(super) struct DecodeCall<'a> {
    pub(super) kernels: &'a Kernels,
    pub(super) weights: &'a Weights,
    pub(super) buffers: &'a Buffers,
    /// Which output head.
    pub(super) head: usize,
    pub(super) layers: usize,
    pub(super) vocab: usize,
    pub(super) eps: f32,
    /// Position of the first token.
    pub(super) position: usize,
    /// Tokens run.
    pub(super) tokens: usize,
    /// How many of them are handed in.
    pub(super) handed_in: HandedIn,
    /// The first token whose logits are computed.
    pub(super) head_from: usize,
    pub(super) sampling: MkSampling,
    pub(super) stops: &'a [u32],
    pub(super) logits: Option<&'a Memory>,
    pub(super) hidden: Option<&'a Memory>,
}

/// Input of a launch that does not come from sampling.
#[derive(Clone, Copy)]
pub(super) enum HandedIn {
    /// So many ids: the first, and the others in `Buffers::forced`.
    Ids(u32, usize),
    /// So many rows in `Buffers::rows`.
    Rows(usize),
}

/// Launches the decode kernel. What it reports arrives in the mailbox of the buffers.
pub(super) fn decode(stream: &Stream, call: &DecodeCall<'_>) -> Result<(), DriverError> {
    let DecodeCall { weights, buffers, .. } = call;
    let shape = &call.kernels.shape;
    let hidden = shape.hidden as usize;
    let made = call.tokens - call.head_from;
    let (first, handed_in) = match call.handed_in {
        HandedIn::Ids(first, count) => (first, count),
        HandedIn::Rows(count) => (0, count),
    };
    assert!(call.tokens >= 1 && handed_in >= 1 && handed_in <= call.tokens, "no input");
    let tiles = buffers.cache.tiles();
    let end = call.position + call.tokens;
    assert!(end <= tiles * mk_sys::abi::MK_TILE as usize, "the cache is too small");
    assert!(weights.rope.len() >= end * shape.head_dim as usize * 4, "beyond the table of angles");
    assert!(made <= buffers.mailbox.capacity(), "the mailbox is too small");
    let room =
        |memory: Option<&Memory>, row: usize| memory.is_none_or(|m| m.len() >= made * row * 4);
    assert!(room(call.logits, call.vocab) && room(call.hidden, hidden), "a readout does not fit");
    let by_rows = matches!(call.handed_in, HandedIn::Rows(_));
    assert!(handed_in <= super::state::MAX_HANDED_IN, "more input than there is memory for");
    assert!(by_rows || weights.embedding.is_some(), "ids for a model without an embedding");
    assert!((first as usize) < call.vocab, "the first id is out of range");

    let exchange = |offset: u64| buffers.exchange.address() + offset;
    let address = |memory: Option<&Memory>| memory.map_or(0, Memory::address);
    let mut stops = [0; MK_MAX_STOPS as usize];
    let listed = call.stops.len().min(stops.len());
    for (stop, id) in stops.iter_mut().zip(call.stops) {
        *stop = *id as i32;
    }
    let parameter = MkDecode {
        weights: weights.layers.address() as *const u8,
        head: weights.heads[call.head].address() as *const u8,
        embed: address(weights.embedding.as_ref()) as *const u16,
        norms: weights.norms.address() as *const u16,
        rope: weights.rope.address() as *const f32,
        kv: buffers.cache.address() as *mut u8,
        xa: exchange(shape.xa) as *mut u32,
        xb: exchange(shape.xb) as *mut u32,
        h: exchange(shape.h) as *mut u32,
        qkv: exchange(shape.qkv) as *mut u32,
        att: exchange(shape.att) as *mut u32,
        lse: exchange(shape.lse) as *mut u32,
        keys: exchange(shape.keys) as *mut u64,
        cand: exchange(shape.cand) as *mut u64,
        error: exchange(shape.error) as *mut u32,
        seen: buffers.masks.address() as *const u32,
        suppressed: (buffers.masks.address() + (buffers.masks.len() / 2) as u64) as *const u32,
        out: buffers.mailbox.tokens_address() as *mut u64,
        status: buffers.mailbox.status_address() as *mut _,
        forced: buffers.forced.address() as *const u32,
        rows: if by_rows { buffers.rows.address() as *const u16 } else { std::ptr::null() },
        rows_f32: (buffers.rows.address() + (buffers.rows.len() / 3) as u64) as *const f32,
        logits: address(call.logits) as *mut f32,
        hidden: address(call.hidden) as *mut f32,
        sampling: call.sampling,
        layers: call.layers as i32,
        vocab: call.vocab as i32,
        max_tiles: tiles as i32,
        pos0: call.position as i32,
        n_tokens: call.tokens as i32,
        n_forced: handed_in as i32,
        head_from: call.head_from as i32,
        first_token: first as i32,
        n_stops: listed as i32,
        stops,
        split4: SPLITS[0],
        split8: SPLITS[1],
        max_turns: MAX_TURNS,
        eps: call.eps,
        reserved: 0,
    };
    stream.fill(&buffers.exchange, 0, buffers.exchange.len(), 0xff)?;
    // SAFETY: the buffers are of the sizes that the shape and the checks above give; weights are only read once they are
    // loaded; the rest is one sequence's, whose launches are in order on its stream. Memory is freed by functions that
    // wait for the device.
    unsafe { stream.launch(&call.kernels.decode, call.kernels.decode_grid(), &parameter) }
}
