//! The decode kernel's launch.

use mk_sys::abi::{MK_MAX_STOPS, MK_WAITS, MkDecode, MkPhase, MkSampling};
use mk_sys::device::{Memory, Stream};
use mk_sys::driver::DriverError;

use super::super::kernels::Kernels;
use super::super::state::{Buffers, MAX_HANDED_IN};
use super::super::weights::Weights;

/// Positions up to which attention is split over 4 and over 8 blocks of a key head's 16 (see `kernels/decode/NOTES.md`).
const SPLITS: [i32; 2] = [256, 4096];
/// Turns of 0.2 to 0.7 µs before a wait for other blocks is an error: about a second.
const MAX_TURNS: i32 = 3_000_000;
/// Turns of 1 to 4 µs before a copy counts as lost. No copy takes as long; and less than the above, so that a block whose
/// copies fail says so before others miss what it should have sent.
const MAX_RING_TURNS: i32 = 50_000;

/// What one decode launch is to do.
pub(in super::super) struct DecodeCall<'a> {
    pub(in super::super) kernels: &'a Kernels,
    pub(in super::super) weights: &'a Weights,
    pub(in super::super) buffers: &'a Buffers,
    /// Which output head.
    pub(in super::super) head: usize,
    pub(in super::super) layers: usize,
    pub(in super::super) vocab: usize,
    pub(in super::super) eps: f32,
    /// Position of the first token.
    pub(in super::super) position: usize,
    /// Tokens run.
    pub(in super::super) tokens: usize,
    /// How many of them are handed in.
    pub(in super::super) handed_in: HandedIn,
    /// The first token whose logits are computed.
    pub(in super::super) head_from: usize,
    pub(in super::super) sampling: MkSampling,
    pub(in super::super) stops: &'a [u32],
    pub(in super::super) logits: Option<&'a Memory>,
    pub(in super::super) hidden: Option<&'a Memory>,
    /// The wait that is to fail, of an [`MkPhase`].
    pub(in super::super) fault: Option<u32>,
}

/// Input of a launch that does not come from sampling.
#[derive(Clone, Copy)]
pub(in super::super) enum HandedIn {
    /// So many ids: the first, and the others in `Buffers::forced`.
    Ids(u32, usize),
    /// So many rows in `Buffers::rows`.
    Rows(usize),
}

/// Launches the decode kernel. What it reports arrives in the mailbox of the buffers.
pub(in super::super) fn decode(stream: &Stream, call: &DecodeCall<'_>) -> Result<(), DriverError> {
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
    assert!(handed_in <= MAX_HANDED_IN, "more input than there is memory for");
    assert!(by_rows || weights.embedding.is_some(), "ids for a model without an embedding");
    assert!((first as usize) < call.vocab, "the first id is out of range");

    let exchange = |offset: u64| buffers.exchange.address() + offset;
    let address = |memory: Option<&Memory>| memory.map_or(0, Memory::address);
    let mut stops = [0; MK_MAX_STOPS as usize];
    let listed = call.stops.len().min(stops.len());
    for (stop, id) in stops.iter_mut().zip(call.stops) {
        *stop = *id as i32;
    }
    let mut max_turns = [MAX_TURNS; MK_WAITS as usize];
    max_turns[MkPhase::MK_PHASE_RING as usize] = MAX_RING_TURNS;
    let starved = call.fault == Some(MkPhase::MK_PHASE_RING);
    if let Some(turns) = call.fault.and_then(|wait| max_turns.get_mut(wait as usize))
        && !starved
    {
        *turns = 1;
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
        rows_f32: (buffers.rows.address() + (handed_in * hidden * 2) as u64) as *const f32,
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
        slots: call.kernels.plan.slots as i32,
        pace: call.kernels.pace as i32,
        clock_mhz: call.kernels.clock_mhz as i32,
        starved: if starved { 0 } else { -1 },
        max_turns,
        eps: call.eps,
    };
    stream.fill(&buffers.exchange, 0, buffers.exchange.len(), 0xff)?;
    // SAFETY: the buffers are of the sizes that the shape and the checks above give; weights are only read once they are
    // loaded; the rest is one sequence's, whose launches are in order on its stream. Memory is freed by functions that
    // wait for the device.
    unsafe { stream.launch(&call.kernels.decode, call.kernels.decode_grid(), &parameter) }
}
